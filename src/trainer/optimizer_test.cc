// Goal: the optimiser and the schedule do what their formulas say. Method: scalar twins in double, edge
// cases.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/prng.h"
#include "trainer/adamw.h"
#include "trainer/schedule.h"

namespace capstan::trainer {
namespace {

float random_float(Prng& prng) { return static_cast<float>(prng.between(-1'000'000, 1'000'000)) / 1e6f; }

struct ScalarAdamW {  // one parameter, straight from the paper
  double p, m = 0, v = 0;
  void update(const AdamWConfig& c, double rate, double g, double decay, int t) {
    m = c.beta1 * m + (1 - c.beta1) * g;
    v = c.beta2 * v + (1 - c.beta2) * g * g;
    const double m_hat = m / (1 - std::pow(c.beta1, t));
    const double v_hat = v / (1 - std::pow(c.beta2, t));
    p -= rate * (m_hat / (std::sqrt(v_hat) + c.epsilon) + decay * p);
  }
};

TEST(AdamWTest, AgreesWithTheScalarTwinOverManyStepsWithAndWithoutDecay) {
  constexpr std::size_t kCount = 203;
  const AdamWConfig config{.beta1 = 0.9, .beta2 = 0.98, .epsilon = 1e-8, .weight_decay = 0.2};
  const std::vector<ParameterRange> decayed = {{3, 40}, {40, 41}, {100, 200}};
  Prng prng(7);
  std::vector<float> parameters(kCount), gradients(kCount);
  std::vector<ScalarAdamW> twins;
  for (float& p : parameters) {
    p = random_float(prng);
    twins.push_back({p});
  }
  AdamWState state{std::vector<float>(kCount), std::vector<float>(kCount), 0};
  for (int t = 1; t <= 50; ++t) {
    for (float& g : gradients) g = random_float(prng);
    const double rate = 0.01 / t;
    adamw_update(config, rate, 0.5, decayed, gradients, parameters, state);
    for (std::size_t i = 0; i < kCount; ++i) {
      const bool decays = (i >= 3 && i < 41) || (i >= 100 && i < 200);
      twins[i].update(config, rate, 0.5 * gradients[i], decays ? config.weight_decay : 0, t);
    }
  }
  EXPECT_EQ(state.updates, 50u);
  for (std::size_t i = 0; i < kCount; ++i) EXPECT_NEAR(parameters[i], twins[i].p, 2e-6) << i;
}

TEST(AdamWTest, TheSameInputsGiveTheSameBits) {
  const auto run = [] {
    Prng prng(3);
    std::vector<float> p(1000, 0.5f), g(1000);
    AdamWState state{std::vector<float>(1000), std::vector<float>(1000), 0};
    for (int t = 0; t < 20; ++t) {
      for (float& x : g) x = random_float(prng);
      adamw_update({}, 1e-3, 1.0, std::vector<ParameterRange>{{0, 500}}, g, p, state);
    }
    return p;
  };
  EXPECT_EQ(run(), run());
}

TEST(AdamWTest, TheNormIsEuclideanAndNotFiniteIfAnyGradientIsNot) {
  std::vector<float> g(19, 0.0f);
  g[3] = 3.0f;
  g[18] = 4.0f;
  EXPECT_DOUBLE_EQ(gradient_norm(g), 5.0);
  g[18] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(std::isfinite(gradient_norm(g)));
  g[18] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(std::isfinite(gradient_norm(g)));
}

TEST(ScheduleTest, WarmsUpLinearlyThenFallsToTheFloor) {
  const ScheduleConfig config{.peak = 1.0, .warmup_steps = 10, .steps = 110, .min_ratio = 0.1};
  EXPECT_DOUBLE_EQ(learning_rate(config, 0), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(config, 9), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(config, 10), 1.0);
  EXPECT_NEAR(learning_rate(config, 60), 0.55, 1e-12);  // half way: the mean of peak and floor
  EXPECT_DOUBLE_EQ(learning_rate(config, 110), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(config, 5000), 0.1);
  for (std::uint64_t step = 10; step < 110; ++step) {
    EXPECT_GE(learning_rate(config, step), learning_rate(config, step + 1));
  }
}

TEST(ScheduleTest, NoWarmUpStartsAtThePeakAndRatioOneStaysThere) {
  EXPECT_DOUBLE_EQ(learning_rate({.peak = 2, .warmup_steps = 0, .steps = 10, .min_ratio = 0.5}, 0), 2.0);
  EXPECT_DOUBLE_EQ(learning_rate({.peak = 2, .warmup_steps = 0, .steps = 10, .min_ratio = 1}, 7), 2.0);
}

}  // namespace
}  // namespace capstan::trainer
