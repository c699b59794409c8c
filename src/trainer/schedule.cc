// How it works: a closed formula of the step, so a resumed run needs no state to continue the curve.
#include "trainer/schedule.h"

#include <cmath>
#include <numbers>

namespace capstan::trainer {

double learning_rate(const ScheduleConfig& config, std::uint64_t step) {
  if (step < config.warmup_steps) {
    return config.peak * static_cast<double>(step + 1) / static_cast<double>(config.warmup_steps);
  }
  if (step >= config.steps) return config.peak * config.min_ratio;
  const double progress = static_cast<double>(step - config.warmup_steps) /
                          static_cast<double>(config.steps - config.warmup_steps);
  const double cosine = 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
  return config.peak * (config.min_ratio + (1.0 - config.min_ratio) * cosine);
}

}  // namespace capstan::trainer
