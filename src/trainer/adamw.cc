// How it works: the bias corrections are folded into two scalars per update, so the inner loop is four
// multiply-adds, a square root and a division per parameter, which the compiler turns into SIMD. The file is
// built with -ffp-contract=off: no fused multiply-add may creep in for one instruction set and not for
// another.
#include "trainer/adamw.h"

#include <cmath>

#include "base/assert.h"

namespace capstan::trainer {
namespace {

struct Scalars {
  float beta1, beta2;
  float rest1, rest2;  // 1 - beta
  float step_size;     // rate / (1 - b1^t)
  float second_scale;  // 1 / (1 - b2^t)
  float epsilon;
  float keep;  // 1 - rate * decay, or 1 where nothing decays
  float gradient_scale;
};

__attribute__((target_clones("avx512f", "avx2", "default"))) void update_range(
    const Scalars s, std::size_t begin, std::size_t end, const float* __restrict gradients,
    float* __restrict parameters, float* __restrict first, float* __restrict second) {
  for (std::size_t i = begin; i < end; ++i) {
    const float g = gradients[i] * s.gradient_scale;
    const float m = s.beta1 * first[i] + s.rest1 * g;
    const float v = s.beta2 * second[i] + s.rest2 * (g * g);
    first[i] = m;
    second[i] = v;
    parameters[i] = s.keep * parameters[i] - s.step_size * (m / (std::sqrt(v * s.second_scale) + s.epsilon));
  }
}

}  // namespace

double gradient_norm(std::span<const float> gradients) {
  // Eight running sums: a fixed order that still lets the compiler use SIMD.
  double sums[8] = {};
  std::size_t i = 0;
  for (; i + 8 <= gradients.size(); i += 8) {
    for (std::size_t lane = 0; lane < 8; ++lane) {
      const double g = gradients[i + lane];
      sums[lane] += g * g;
    }
  }
  for (; i < gradients.size(); ++i) sums[0] += static_cast<double>(gradients[i]) * gradients[i];
  double total = 0;
  for (const double sum : sums) total += sum;
  return std::sqrt(total);
}

void adamw_update(const AdamWConfig& config, double rate, double gradient_scale,
                  std::span<const ParameterRange> decayed, std::span<const float> gradients,
                  std::span<float> parameters, AdamWState& state) {
  const std::size_t count = parameters.size();
  CAPSTAN_ASSERT(gradients.size() == count && state.first.size() == count && state.second.size() == count);
  state.updates += 1;
  const double t = static_cast<double>(state.updates);
  Scalars s{.beta1 = static_cast<float>(config.beta1),
            .beta2 = static_cast<float>(config.beta2),
            .rest1 = static_cast<float>(1.0 - config.beta1),
            .rest2 = static_cast<float>(1.0 - config.beta2),
            .step_size = static_cast<float>(rate / (1.0 - std::pow(config.beta1, t))),
            .second_scale = static_cast<float>(1.0 / (1.0 - std::pow(config.beta2, t))),
            .epsilon = static_cast<float>(config.epsilon),
            .keep = 1.0f,
            .gradient_scale = static_cast<float>(gradient_scale)};
  const float keep_decayed = static_cast<float>(1.0 - rate * config.weight_decay);
  std::size_t at = 0;
  const auto run = [&](std::size_t end, float keep) {
    s.keep = keep;
    update_range(s, at, end, gradients.data(), parameters.data(), state.first.data(), state.second.data());
    at = end;
  };
  for (const ParameterRange& range : decayed) {
    CAPSTAN_ASSERT(range.begin >= at && range.begin <= range.end && range.end <= count);
    run(range.begin, 1.0f);
    run(range.end, keep_decayed);
  }
  run(count, 1.0f);
}

}  // namespace capstan::trainer
