// Goal: near logits of a large vocabulary choose what true ones would. Method: a random checkpoint with a screen; each choice is
// compared with the sampler on all true logits, frequencies with the distribution that they give, and near logits that are off by
// as much as they may be with what the margin promises.
#include <gtest/gtest.h>

#include <cmath>

#include "base/prng.h"
#include "engine/batching/batch.h"
#include "engine/testing/random_checkpoint.h"

namespace capstan::engine {
namespace {

using Tokens = std::vector<TokenId>;

class OnlyEvery : public TokenConstraint {
 public:
  explicit OnlyEvery(std::size_t step) : step_(step) {}
  bool mask(std::span<std::uint64_t> allowed) override {
    for (std::uint64_t& word : allowed) word = 0;
    for (std::size_t i = step_; i < allowed.size() * 64; i += step_) allowed[i / 64] |= std::uint64_t{1} << i % 64;
    return true;
  }
  void accept(TokenId) override {}

 private:
  std::size_t step_;
};

class Screened : public ::testing::Test {
 protected:
  static constexpr int kVocab = 10'000;  // not whole words of a mask
  void SetUp() override {
    checkpoint_.write(directory_.path());
    model_ = load({});
    ASSERT_TRUE(model_->screens());
  }
  std::unique_ptr<Model> load(PackOptions pack) {
    auto model = Model::load(directory_.path(), {.threads = 2, .arithmetic = Arithmetic::kInteger, .pack = pack});
    EXPECT_TRUE(model.has_value()) << model.error().message;
    return std::move(*model);
  }
  Tokens prompt(int length, int number) { return checkpoint_.random_tokens(length, static_cast<std::uint64_t>(number)); }

  // All logits of a prompt's tokens, near ones or true ones.
  Logits logits_of(const Tokens& tokens, bool screened) {
    KvCache kv(model_->config(), model_->kv_type());
    const SequenceStep step{.tokens = tokens, .kv = &kv, .logits = LogitsOf::kAll, .screened = screened};
    Logits logits;
    EXPECT_TRUE(model_->step(std::span(&step, 1), logits).has_value());
    return logits;
  }
  static Tokens run(Model& model, std::vector<GenerationRequest> requests, std::vector<Tokens>* all = nullptr) {
    std::vector<Tokens> got(requests.size());
    Batch batch(model, {.sequences_max = 8});
    for (std::size_t i = 0; i < requests.size(); ++i) {
      requests[i].on_token = [&got, i](const TokenEvent& event) {
        if (event.token >= 0) got[i].push_back(event.token);
      };
      EXPECT_TRUE(batch.submit(std::move(requests[i])).has_value());
    }
    while (batch.step()) {
    }
    if (all != nullptr) *all = got;
    return got.front();
  }

  const testing::RandomCheckpoint checkpoint_{{.layers = 2, .vocab = kVocab, .seed = 8}};
  testing::TemporaryDirectory directory_;
  std::unique_ptr<Model> model_;
};

TEST_F(Screened, RefinedLogitsAreTheTrueOnesAndMarginsHoldForAllOthers) {
  const Tokens tokens = prompt(40, 1);
  const Logits exact = logits_of(tokens, false);
  Logits near = logits_of(tokens, true);
  EXPECT_TRUE(exact.inputs.empty());
  double furthest = 0;  // in parts of the margin
  for (int row = 0; row < near.rows(); ++row) {
    const auto truth = exact.row(row);
    ScreenedLogits logits = model_->screened(near, row);
    Tokens some;
    for (TokenId token = row; token < kVocab; token += kVocab / 16) some.push_back(token);
    some.push_back(kVocab - 1);
    logits.refine(some);
    ASSERT_GE(logits.true_panels().size(), 16u);
    for (const int panel : logits.true_panels()) {
      for (int i = panel * kPanelRows; i < std::min(kVocab, (panel + 1) * kPanelRows); ++i)
        ASSERT_EQ(logits.values()[i], truth[i]) << row << " " << i;
    }
    int differ = 0;
    for (int i = 0; i < kVocab; ++i) {
      const double margin = logits.deviation() * logits.doubts()[i];
      differ += logits.values()[i] != truth[i];
      furthest = std::max(furthest, std::abs(logits.values()[i] - truth[i]) / margin);
    }
    ASSERT_GT(differ, kVocab / 2);  // near ones they are
  }
  EXPECT_LT(furthest, 0.85);  // of 400,000
  EXPECT_GT(furthest, 0.3);   // and the margin is not idle
}

// Whatever the row's company in the step.
TEST_F(Screened, NearAndTrueRowsOfOneStepAreWhatTheyAreAlone) {
  const std::vector<Tokens> prompts = {prompt(7, 1), prompt(30, 2), prompt(3, 3), prompt(12, 4)};
  std::vector<std::unique_ptr<KvCache>> caches;
  std::vector<SequenceStep> steps;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    caches.push_back(std::make_unique<KvCache>(model_->config(), model_->kv_type()));
    steps.push_back({prompts[i], caches.back().get(), i == 2 ? LogitsOf::kAll : LogitsOf::kLast, i % 2 == 0});
  }
  Logits together;
  ASSERT_TRUE(model_->step(steps, together).has_value());
  ASSERT_EQ(together.rows(), 6);
  int row = 0;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const Logits alone = logits_of(prompts[i], i % 2 == 0);
    for (int r = i == 2 ? 0 : alone.rows() - 1; r < alone.rows(); ++r, ++row)
      ASSERT_TRUE(std::ranges::equal(alone.row(r), together.row(row))) << i;
  }
}

TEST_F(Screened, GreedyRequestsGetTheLargestTrueLogit) {
  const Tokens tokens = prompt(60, 5);
  const Logits exact = logits_of(tokens, false);
  Logits near = logits_of(tokens, true);
  const std::vector<Sampling> samplings = {
      {.temperature = 0}, {.temperature = 0, .logit_bias = {{17, 3.0f}, {9'999, 50.0f}, {4'000, -100.0f}}}};
  int misled = 0;
  for (int row = 0; row < near.rows(); ++row) {
    misled += argmax(near.row(row)) != argmax(exact.row(row));
    for (const bool constrained : {false, true}) {
      OnlyEvery constraint(7);
      Logits copy = near;  // refining writes into it
      for (const Sampling& sampling : samplings) {
        ScreenedLogits logits = model_->screened(copy, row);
        TokenConstraint* asked = constrained ? &constraint : nullptr;
        ASSERT_EQ(Sampler(sampling).sample(logits, asked), Sampler(sampling).sample(exact.row(row), asked)) << row;
        EXPECT_LT(logits.true_panels().size(), 120u);  // of 625
        copy = near;
      }
    }
  }
  EXPECT_GT(misled, 2);  // near logits alone would be wrong
}

TEST_F(Screened, RequestsAreTheSameWithAndWithoutAScreen) {
  const auto without = load({.screen = false});
  EXPECT_FALSE(without->screens());
  EXPECT_FALSE(load({.dense = PackedType::kInt8})->screens());
  std::vector<GenerationRequest> requests;
  for (int i = 0; i < 8; ++i) {
    GenerationRequest request{.prompt = prompt(3 + 5 * i, i), .sampling = {.temperature = 0}, .tokens_max = 25};
    if (i % 3 == 1) request.sampling.frequency_penalty = 0.7f;
    if (i % 3 == 2) request.sampling.presence_penalty = -0.5f;
    if (i == 5) request.logprobs = true;
    if (i == 6) request.sampling = {.temperature = 1, .top_p = 0.9f, .seed = 3};
    requests.push_back(std::move(request));
  }
  std::vector<Tokens> screened, plain;
  run(*model_, requests, &screened);
  run(*without, requests, &plain);
  EXPECT_EQ(screened, plain);
  EXPECT_EQ(screened[3].size(), 25u);
}

TEST_F(Screened, SampledRequestsDependOnTheirSeedAndNotOnTheBatch) {
  std::vector<GenerationRequest> requests;
  for (int i = 0; i < 6; ++i)
    requests.push_back({.prompt = prompt(4 + i, i), .sampling = {.seed = static_cast<std::uint64_t>(i)}, .tokens_max = 12});
  std::vector<Tokens> together;
  run(*model_, requests, &together);
  for (std::size_t i = 0; i < requests.size(); ++i) EXPECT_EQ(run(*model_, {requests[i]}), together[i]) << i;
  requests[0].sampling.seed = 99;
  EXPECT_NE(run(*model_, {requests[0]}), together[0]);
}

// A row whose largest tokens stand in a few panels and have half of the weight; the others are only near ones when they are
// drawn, off to either side. Draws must follow the true ones.
// Groups of tokens with the same error and about the same logit are counted together.
TEST(ScreenedSampling, FrequenciesFollowTheTrueLogits) {
  constexpr int kTokens = 60 * kPanelRows, kDraws = 30'000, kGroups = 9;
  Prng prng(4);
  std::vector<float> truth, near;
  std::vector<int> group;
  for (int i = 0; i < kTokens; ++i) {
    truth.push_back(static_cast<float>(prng.below(i < 10 * kPanelRows ? 3'000 : 2'000)) / 1'000.0f);
    near.push_back(truth.back() + (i % 3 == 0 ? 0.1f : i % 3 == 1 ? -0.1f : 0.02f));
    group.push_back(i % 3 * 3 + static_cast<int>(truth.back()));
  }
  const std::vector<float> doubts(kTokens, 1.0f);
  std::size_t refined = 0;
  const auto compute = [&](std::span<const int> panels, float* out) {
    for (const int panel : panels) out = std::copy_n(truth.begin() + panel * kPanelRows, kPanelRows, out);
  };
  for (const Sampling& sampling : {Sampling{.temperature = 1, .seed = 1}, Sampling{.temperature = 2, .seed = 2},
                                   Sampling{.temperature = 1, .min_p = 0.2f, .seed = 3}}) {
    Sampler sampler(sampling);
    const float best = *std::ranges::max_element(truth);
    std::vector<double> shares(kGroups);
    double total = 0;
    for (int i = 0; i < kTokens; ++i) {
      const double weight = std::exp((truth[i] - best) / sampling.temperature);
      if (weight < sampling.min_p) continue;
      shares[group[i]] += weight;
      total += weight;
    }
    std::vector<int> counts(kGroups);
    for (int i = 0; i < kDraws; ++i) {
      std::vector<float> values = near;
      ScreenedLogits logits(values, doubts, compute);
      ++counts[static_cast<std::size_t>(group[static_cast<std::size_t>(sampler.sample(logits))])];
      refined += logits.true_panels().size();
    }
    for (int i = 0; i < kGroups; ++i) {
      const double p = shares[i] / total;
      EXPECT_NEAR(counts[i] / static_cast<double>(kDraws), p, 5 * std::sqrt(p * (1 - p) / kDraws)) << i;
    }
  }
  EXPECT_LT(refined / (3 * kDraws), 20u);  // of 60 panels
}

}  // namespace
}  // namespace capstan::engine
