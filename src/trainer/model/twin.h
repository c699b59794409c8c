// The slow, obvious twin of the forward pass: f64, one token and one head at a time, straight from the
// formulas.
//
// For tests only. It shares nothing with the fast passes but ModelConfig, ParameterLayout and Batch.
#pragma once

#include <span>
#include <vector>

#include "trainer/model/model.h"

namespace capstan::trainer {

struct TwinResult {
  double objective = 0.0;  // loss_sum / normaliser + aux_weight * coefficient * aux_loss
  StepResult step;
  std::vector<double> logits;              // [T, vocab]
  int gates_clamped = 0, ups_clamped = 0;  // how often the limits of SwiGLU were hit
  double margin = 1e30;  // the smallest gap between the last chosen and the first refused router logit
};

TwinResult twin_forward(const ModelConfig& config, std::span<const double> params, const Batch& batch,
                        double normaliser);

}  // namespace capstan::trainer
