// YaRN keeps fast dimensions (index below `low`), divides slow ones (above `high`) by the factor, and ramps
// between. The two bounds are the indices that turn beta_fast and beta_slow times within the original
// context.
#include "trainer/model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace capstan::trainer {

std::vector<double> rope_frequencies(const ModelConfig& config) {
  const int half = config.head_dim / 2;
  auto index_of = [&](double rotations) {
    return half * std::log(config.original_context / (2 * std::numbers::pi * rotations)) /
           std::log(config.rope_theta);
  };
  double low = index_of(config.beta_fast), high = index_of(config.beta_slow);
  if (config.yarn_truncate) low = std::floor(low), high = std::ceil(high);
  std::vector<double> frequencies;
  for (int i = 0; i < half; ++i) {
    const double plain = std::pow(config.rope_theta, -static_cast<double>(i) / half);
    if (config.yarn_factor == 0.0) {
      frequencies.push_back(plain);
      continue;
    }
    const double ramp = std::clamp((i - low) / std::max(high - low, 1e-3), 0.0, 1.0);
    frequencies.push_back(plain * (1 - ramp) + plain / config.yarn_factor * ramp);
  }
  return frequencies;
}

double rope_concentration(const ModelConfig& config) {
  return config.yarn_factor == 0.0 ? 1.0 : 0.1 * std::log(config.yarn_factor) + 1.0;
}

RopeTable rope_table(const ModelConfig& config, int positions) {
  const std::vector<double> frequencies = rope_frequencies(config);
  const double concentration = rope_concentration(config);
  RopeTable table;
  for (int position = 0; position < positions; ++position) {
    for (double frequency : frequencies) {
      table.cosine.push_back(static_cast<float>(concentration * std::cos(position * frequency)));
      table.sine.push_back(static_cast<float>(concentration * std::sin(position * frequency)));
    }
  }
  return table;
}

}  // namespace capstan::trainer
