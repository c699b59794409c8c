// How it works: one document a pass, so that each sample's own count of right tokens is known; rank r takes
// the samples r, r + ranks, …; the sums are added in rank order.
#include "trainer/evaluate.h"

#include "trainer/batch.h"

namespace capstan::trainer {

Result<Evaluation> evaluate_model(Model& model, std::span<const float> parameters, const DataSource& source,
                                  std::uint64_t samples, Gang& gang) {
  double mine[4] = {};  // loss, right tokens, counting tokens, exact samples
  for (auto i = static_cast<std::uint64_t>(gang.rank()); i < samples;
       i += static_cast<std::uint64_t>(gang.size())) {
    const Sample sample = source.sample(i);
    const PackedBatch batch(std::span(&sample, 1));
    const StepResult result = model.forward(parameters, batch.view(1.0));
    mine[0] += result.loss_sum;
    mine[1] += static_cast<double>(result.correct);
    mine[2] += static_cast<double>(result.target_count);
    mine[3] += result.correct == result.target_count ? 1.0 : 0.0;
  }
  CAPSTAN_TRY(const std::vector<double> all, gang.gather(mine));
  double total[4] = {};
  for (std::size_t i = 0; i < all.size(); ++i) total[i % 4] += all[i];
  const double targets = total[2] > 0 ? total[2] : 1.0;
  return Evaluation{.loss = total[0] / targets,
                    .token_accuracy = total[1] / targets,
                    .exact = total[3] / static_cast<double>(samples),
                    .samples = samples};
}

}  // namespace capstan::trainer
