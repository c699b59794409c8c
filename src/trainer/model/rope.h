// Rotary position embedding with YaRN, half-split pairs (x[i], x[i + head_dim / 2]).
//
// Sources: Su et al. 2021 (RoPE), Peng et al. 2023 (YaRN), openai/gpt-oss gpt_oss/torch/model.py.
// Pure functions of the configuration, computed in f64.
#pragma once

#include <vector>

#include "trainer/model/model.h"

namespace capstan::trainer {

// [head_dim / 2], radians per position.
std::vector<double> rope_frequencies(const ModelConfig& config);
// The factor on cos and sin: 0.1 ln(factor) + 1 under YaRN, else 1.
double rope_concentration(const ModelConfig& config);

struct RopeTable {
  std::vector<float> cosine, sine;  // [positions, head_dim / 2], the concentration included
};
RopeTable rope_table(const ModelConfig& config, int positions);

}  // namespace capstan::trainer
