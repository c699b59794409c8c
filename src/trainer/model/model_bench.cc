// Question: how many tokens a second does one core train, and how much of the machine's matrix rate is that?
//
//   trainer_model_bench [bf16|f32] [steps] [tokens]
// Prints one line a step: seconds of CPU (other work on the machine does not count), tokens/s, GFLOP/s (2 per
// multiply-add, three passes) and the loss as fingerprint.
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string_view>

#include "base/prng.h"
#include "trainer/model/model.h"

namespace {

using namespace capstan;
using namespace capstan::trainer;

double flop_per_token(const ModelConfig& c) {
  const double query = c.heads * c.head_dim, key = c.kv_heads * c.head_dim;
  const double layer =
      c.hidden * (2 * query + 2 * key + c.experts) + 3.0 * c.experts_per_token * c.hidden * c.intermediate;
  return 6.0 * (c.layers * layer + static_cast<double>(c.hidden) * c.vocab);
}

double cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

}  // namespace

int main(int argc, char** argv) {
  const Precision precision =
      argc > 1 && std::string_view(argv[1]) == "f32" ? Precision::kF32 : Precision::kBf16;
  const int steps = argc > 2 ? std::atoi(argv[2]) : 5, count = argc > 3 ? std::atoi(argv[3]) : 8192;
  const ModelConfig config{};
  const ParameterLayout layout(config);
  std::vector<float> params(layout.size()), grads(layout.size());
  initialise(layout, 1, params);
  Model model(config, precision);
  for (int step = 0; step < steps; ++step) {
    Prng prng(static_cast<std::uint64_t>(step));
    std::vector<std::int32_t> tokens, targets, starts;
    while (static_cast<int>(tokens.size()) < count) {
      starts.push_back(static_cast<std::int32_t>(tokens.size()));
      const int length = static_cast<int>(prng.between(100, 200));
      for (int i = 0; i < length && static_cast<int>(tokens.size()) < count; ++i) {
        tokens.push_back(static_cast<std::int32_t>(prng.below(config.vocab)));
        targets.push_back(i < length / 2 ? -1 : tokens.back());
      }
    }
    const double begin = cpu_seconds();
    const StepResult result = model.forward_backward(
        params, {.tokens = tokens, .targets = targets, .document_starts = starts}, count, grads);
    const double seconds = cpu_seconds() - begin;
    std::printf("%.3f s, %.0f tokens/s, %.0f GFLOP/s, loss %.9f\n", seconds, count / seconds,
                count / seconds * flop_per_token(config) / 1e9,
                result.loss_sum / static_cast<double>(result.target_count));
  }
}
