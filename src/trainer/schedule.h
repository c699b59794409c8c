// The learning rate of each step: linear warm-up, then cosine decay to a floor.
//
//   step s in [0, warmup):      peak * (s + 1) / warmup
//   step s in [warmup, steps):  peak * (floor + (1 - floor) * (1 + cos(pi * (s - warmup) / (steps - warmup)))
//   / 2) later:                      peak * floor
//
// Pure; threads: any.  Source: Loshchilov and Hutter, "SGDR" (2017), one cycle.
#pragma once

#include <cstdint>

namespace capstan::trainer {

struct ScheduleConfig {
  double peak = 1e-3;  // the highest learning rate
  std::uint64_t warmup_steps = 0;
  std::uint64_t steps = 1;  // of the whole run; the decay ends here
  double min_ratio = 0.1;   // the floor, as a share of the peak; 1 means a constant rate
};

double learning_rate(const ScheduleConfig& config, std::uint64_t step);

}  // namespace capstan::trainer
