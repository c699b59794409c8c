// Goal: the fast passes compute what the formulas say, and their gradients are the derivatives of exactly
// that. Method: the f64 twin gives losses and logits; central differences of the twin give derivatives, for
// every parameter tensor along a random direction and at single coordinates. Sizes are odd on purpose:
// documents end inside blocks.
#include "trainer/model/model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/prng.h"
#include "trainer/model/twin.h"

namespace capstan::trainer {
namespace {

double uniform(Prng& prng) {
  return static_cast<double>(prng.next() >> 11) / 4503599627370496.0 - 1.0;
}  // [-1, 1)

struct Case {
  ModelConfig config;
  std::vector<int> lengths;
  std::uint64_t seed = 1;
};

// Two layers (one sliding, one full), YaRN, limits low enough to be hit, a window shorter than the documents.
Case small_case() {
  return {.config = {.layers = 2,
                     .hidden = 24,
                     .intermediate = 12,
                     .heads = 4,
                     .kv_heads = 2,
                     .head_dim = 8,
                     .experts = 4,
                     .experts_per_token = 2,
                     .vocab = 19,
                     .sliding_window = 5,
                     .rope_theta = 100.0,
                     .yarn_factor = 4.0,
                     .beta_fast = 2.0,
                     .beta_slow = 0.5,
                     .original_context = 16,
                     .swiglu_limit = 0.6,
                     .aux_loss_coefficient = 0.5,
                     .context_max = 64},
          .lengths = {13, 1, 9, 22},
          .seed = 7};
}

// Documents longer than two blocks of queries, a window that skips whole blocks, plain RoPE, one KV head.
Case long_case() {
  return {.config = {.layers = 2,
                     .hidden = 16,
                     .intermediate = 6,
                     .heads = 2,
                     .kv_heads = 1,
                     .head_dim = 6,
                     .experts = 3,
                     .experts_per_token = 1,
                     .vocab = 11,
                     .sliding_window = 50,
                     .rope_theta = 1000.0,
                     .swiglu_limit = 0.8,
                     .aux_loss_coefficient = 0.1,
                     .context_max = 200},
          .lengths = {3, 150, 70},
          .seed = 11};
}

struct Problem {
  explicit Problem(const Case& c) : config(c.config), layout(c.config) {
    Prng prng(c.seed);
    for (const ParameterInfo& info : layout.all()) {
      const double scale = info.decay ? 1.2 / std::sqrt(static_cast<double>(info.shape.back())) : 0.3;
      for (std::size_t i = 0; i < info.count; ++i) {
        params.push_back(
            static_cast<float>(scale * uniform(prng) + (info.name.ends_with("norm.weight") ? 1.0 : 0.0)));
      }
    }
    for (int length : c.lengths) {
      starts.push_back(static_cast<std::int32_t>(tokens.size()));
      for (int i = 0; i < length; ++i) {
        tokens.push_back(static_cast<std::int32_t>(prng.below(config.vocab)));
        targets.push_back(prng.below(3) == 0 ? -1 : static_cast<std::int32_t>(prng.below(config.vocab)));
      }
    }
    exact.assign(params.begin(), params.end());
    normaliser = static_cast<double>(tokens.size()) * 0.7;
  }
  Batch batch() const {
    return {.tokens = tokens, .targets = targets, .document_starts = starts, .aux_weight = 0.75};
  }
  TwinResult twin(std::span<const double> at) const { return twin_forward(config, at, batch(), normaliser); }

  ModelConfig config;
  ParameterLayout layout;
  std::vector<float> params;
  std::vector<double> exact;
  std::vector<std::int32_t> tokens, targets, starts;
  double normaliser = 1.0;
};

double norm_of(std::span<const float> values) {
  double squares = 0.0;
  for (float value : values) squares += static_cast<double>(value) * value;
  return std::sqrt(squares);
}

// The derivative of the twin along `direction` within one tensor.
double slope(const Problem& problem, const ParameterInfo& info, std::span<const double> direction) {
  constexpr double kStep = 1e-6;
  std::vector<double> at = problem.exact;
  auto move = [&](double by) {
    for (std::size_t i = 0; i < info.count; ++i)
      at[info.offset + i] = problem.exact[info.offset + i] + by * direction[i];
    return problem.twin(at).objective;
  };
  return (move(kStep) - move(-kStep)) / (2 * kStep);
}

// `tolerance` is relative to the norm of the tensor's gradient, with a floor for tensors whose gradient is
// tiny against that of the whole model.
void check_gradients(const Case& c, Precision precision, double tolerance, int coordinates) {
  const Problem problem(c);
  Model model(c.config, precision);
  std::vector<float> grads(problem.layout.size(), 0.0f);
  model.forward_backward(problem.params, problem.batch(), problem.normaliser, grads);
  const double floor = 1e-3 * norm_of(grads);
  Prng prng(c.seed + 100);
  for (const ParameterInfo& info : problem.layout.all()) {
    const std::span<const float> gradient(grads.data() + info.offset, info.count);
    const double allowed = tolerance * (norm_of(gradient) + floor);
    std::vector<double> direction(info.count);
    double length = 0.0, along = 0.0;
    for (double& value : direction) value = uniform(prng), length += value * value;
    for (double& value : direction) value /= std::sqrt(length);
    for (std::size_t i = 0; i < info.count; ++i) along += gradient[i] * direction[i];
    EXPECT_NEAR(along, slope(problem, info, direction), allowed) << info.name << " along a random direction";
    for (int n = 0; n < coordinates; ++n) {
      // The steepest coordinate first, then random ones.
      std::size_t at = prng.below(info.count);
      if (n == 0) {
        auto steeper = [](float a, float b) { return std::abs(a) < std::abs(b); };
        at = static_cast<std::size_t>(std::ranges::max_element(gradient, steeper) - gradient.begin());
      }
      std::vector<double> unit(info.count, 0.0);
      unit[at] = 1.0;
      EXPECT_NEAR(gradient[at], slope(problem, info, unit), allowed) << info.name << " at " << at;
    }
  }
}

void check_losses(const Case& c, Precision precision, double tolerance) {
  const Problem problem(c);
  const TwinResult twin = problem.twin(problem.exact);
  EXPECT_GT(twin.margin, 1e-5) << "a router tie would make the comparison meaningless";
  Model model(c.config, precision);
  const StepResult step = model.forward(problem.params, problem.batch());
  EXPECT_NEAR(step.loss_sum, twin.step.loss_sum, tolerance * twin.step.loss_sum);
  EXPECT_NEAR(step.aux_loss, twin.step.aux_loss, tolerance * twin.step.aux_loss);
  EXPECT_EQ(step.target_count, twin.step.target_count);
  if (precision == Precision::kF32) {
    EXPECT_EQ(step.correct, twin.step.correct);
    EXPECT_EQ(step.expert_load, twin.step.expert_load);
  }
}

TEST(Model, F32LossesAgreeWithTheTwin) {
  check_losses(small_case(), Precision::kF32, 1e-6);
  check_losses(long_case(), Precision::kF32, 1e-6);
}

TEST(Model, F32GradientsOfEveryTensorAreTheTwinsDerivatives) {
  check_gradients(small_case(), Precision::kF32, 1e-5, 4);
}

TEST(Model, F32GradientsHoldAcrossBlocksOfQueries) { check_gradients(long_case(), Precision::kF32, 1e-5, 1); }

TEST(Model, TheTestPointHitsEveryClamp) {
  const Problem problem(small_case());
  const TwinResult twin = problem.twin(problem.exact);
  EXPECT_GT(twin.gates_clamped, 20);
  EXPECT_GT(twin.ups_clamped, 20);
}

// bf16 keeps 8 bits: a product's operands are off by up to 2^-8 each, half of it on average, and about ten
// products follow each other. A token whose router logits are closer than that may choose differently, so the
// margin is in the tolerance, too.
TEST(Model, Bf16LossesAgreeWithTheTwinWithinRounding) {
  check_losses(small_case(), Precision::kBf16, 10 * std::pow(2.0, -9));
  check_losses(long_case(), Precision::kBf16, 10 * std::pow(2.0, -9));
}

TEST(Model, Bf16GradientsPointWhereTheF32GradientsDo) {
  for (const Case& c : {small_case(), long_case()}) {
    const Problem problem(c);
    std::vector<float> fine(problem.layout.size(), 0.0f), coarse = fine;
    Model(c.config, Precision::kF32)
        .forward_backward(problem.params, problem.batch(), problem.normaliser, fine);
    Model(c.config, Precision::kBf16)
        .forward_backward(problem.params, problem.batch(), problem.normaliser, coarse);
    const double floor = 1e-3 * norm_of(fine);
    for (const ParameterInfo& info : problem.layout.all()) {
      std::vector<float> error(info.count);
      for (std::size_t i = 0; i < info.count; ++i) error[i] = coarse[info.offset + i] - fine[info.offset + i];
      const double size = norm_of({fine.data() + info.offset, info.count}) + floor;
      EXPECT_LT(norm_of(error), 0.15 * size) << info.name;
    }
  }
}

TEST(Model, LogitsAgreeWithTheTwin) {
  for (const Case& c : {small_case(), long_case()}) {
    const Problem problem(c);
    const std::int32_t start = 0;
    const auto tokens = std::span(problem.tokens).first(c.config.context_max < 64 ? 20 : 40);
    const TwinResult twin = twin_forward(
        c.config, problem.exact, {.tokens = tokens, .targets = {}, .document_starts = {&start, 1}}, 1.0);
    std::vector<float> logits(tokens.size() * c.config.vocab);
    Model(c.config, Precision::kF32).forward_logits(problem.params, tokens, logits);
    for (std::size_t i = 0; i < logits.size(); ++i) ASSERT_NEAR(logits[i], twin.logits[i], 2e-5) << i;
  }
}

TEST(Model, EqualInputGivesEqualBitsWhateverCameBefore) {
  const Problem problem(small_case()), other(long_case());
  for (Precision precision : {Precision::kF32, Precision::kBf16}) {
    std::vector<float> first(problem.layout.size(), 0.0f), second = first, unused = first;
    Model model(problem.config, precision);
    model.forward_backward(problem.params, problem.batch(), problem.normaliser, first);
    // Another batch in between leaves its rows in the buffers; they must not show.
    const std::vector<std::int32_t> tokens(50, 3), starts{0, 20};
    model.forward_backward(problem.params, {.tokens = tokens, .targets = tokens, .document_starts = starts},
                           1.0, unused);
    model.forward_backward(problem.params, problem.batch(), problem.normaliser, second);
    EXPECT_EQ(first, second);
  }
}

TEST(Model, GradientsAreAddedToWhatIsThere) {
  const Problem problem(small_case());
  Model model(problem.config, Precision::kF32);
  std::vector<float> once(problem.layout.size(), 0.0f), twice = once;
  model.forward_backward(problem.params, problem.batch(), problem.normaliser, once);
  for (int i = 0; i < 2; ++i)
    model.forward_backward(problem.params, problem.batch(), problem.normaliser, twice);
  for (std::size_t i = 0; i < once.size(); ++i)
    ASSERT_NEAR(twice[i], 2 * once[i], 1e-5 * (1 + std::abs(once[i])));
}

TEST(Model, AnEmptyBatchAndABatchWithoutTargetsAreFine) {
  Problem problem(small_case());
  Model model(problem.config, Precision::kBf16);
  std::vector<float> grads(problem.layout.size(), 0.0f);
  EXPECT_EQ(model.forward_backward(problem.params, {}, 1.0, grads).target_count, 0);
  EXPECT_EQ(norm_of(grads), 0.0);
  std::ranges::fill(problem.targets, -1);
  EXPECT_EQ(model.forward_backward(problem.params, problem.batch(), 1.0, grads).loss_sum, 0.0);
  EXPECT_GT(norm_of(grads), 0.0) << "the balance loss remains";
}

TEST(Model, ADocumentDoesNotSeeItsNeighbours) {
  const Case c = small_case();
  const Problem problem(c);
  Model model(c.config, Precision::kF32);
  const std::int32_t start = 0;
  const auto second = std::span(problem.tokens).subspan(14, 9),
             targets = std::span(problem.targets).subspan(14, 9);
  std::vector<std::int32_t> only = problem.targets;
  for (std::size_t t = 0; t < only.size(); ++t) only[t] = t >= 14 && t < 23 ? only[t] : -1;
  Batch packed = problem.batch();
  packed.targets = only;
  const double alone =
      model.forward(problem.params, {.tokens = second, .targets = targets, .document_starts = {&start, 1}})
          .loss_sum;
  EXPECT_NEAR(model.forward(problem.params, packed).loss_sum, alone, 1e-5 * alone);
}

TEST(ParameterLayout, TensorsStandBackToBackUnderCheckpointNames) {
  const ParameterLayout layout(small_case().config);
  std::size_t next = 0;
  for (const ParameterInfo& info : layout.all()) {
    EXPECT_EQ(info.offset, next) << info.name;
    next += info.count;
  }
  EXPECT_EQ(layout.size(), next);
  EXPECT_EQ(layout.all().size(), 3u + 2 * 17);
  EXPECT_EQ(layout.find("model.layers.1.mlp.experts.gate_up_proj").shape,
            (std::vector<std::int64_t>{4, 24, 24}));
}

TEST(Initialise, IsAPureFunctionOfTheSeedWithTheStatedDeviation) {
  const ParameterLayout layout(ModelConfig{});
  std::vector<float> first(layout.size()), second(layout.size()), third(layout.size());
  initialise(layout, 5, first), initialise(layout, 5, second), initialise(layout, 6, third);
  EXPECT_EQ(first, second);
  EXPECT_NE(first, third);
  auto deviation = [&](const char* name) {
    const ParameterInfo& info = layout.find(name);
    return norm_of({first.data() + info.offset, info.count}) / std::sqrt(static_cast<double>(info.count));
  };
  EXPECT_NEAR(deviation("lm_head.weight"), 0.02, 2e-4);
  EXPECT_NEAR(deviation("model.layers.3.mlp.experts.down_proj"), 0.02 / std::sqrt(8.0), 2e-4);
  EXPECT_EQ(deviation("model.norm.weight"), 1.0);
  EXPECT_EQ(deviation("model.layers.0.self_attn.sinks"), 0.0);
}

}  // namespace
}  // namespace capstan::trainer
