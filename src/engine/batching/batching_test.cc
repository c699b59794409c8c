// Goal: a request's tokens do not depend on its company, every request ends exactly once, bounds hold.
// Method: a small random checkpoint; each request is compared with the same request run alone, and with a
// loop over Model::forward that samples greedily.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>
#include <thread>

#include "engine/batching/generator.h"
#include "engine/testing/random_checkpoint.h"

namespace capstan::engine {
namespace {

using ::testing::HasSubstr;

class Batching : public ::testing::Test {
 protected:
  void SetUp() override {
    checkpoint_.write(directory_.path());
    auto model = Model::load(directory_.path(), {.threads = 2});
    ASSERT_TRUE(model.has_value()) << model.error().message;
    model_ = std::move(*model);
  }

  GenerationRequest request(int number, float temperature = 0) {
    return {
        .prompt = checkpoint_.random_tokens(1 + 13 * number, 100 + number),
        .sampling = {.temperature = temperature, .top_p = 0.9f, .seed = static_cast<std::uint64_t>(number)},
        .tokens_max = 5 + 3 * number};
  }

  std::vector<TokenId> greedy_alone(const GenerationRequest& request) {
    KvCache kv(model_->config());
    std::vector<TokenId> tokens;
    std::vector<TokenId> input = request.prompt;
    while (static_cast<int>(tokens.size()) < request.tokens_max) {
      const auto logits = model_->forward(input, kv);
      EXPECT_TRUE(logits.has_value());
      tokens.push_back(argmax(logits->row(0)));
      input = {tokens.back()};
    }
    return tokens;
  }

  std::vector<TokenId> run_alone(GenerationRequest request) {
    std::vector<TokenId> tokens;
    request.on_token = [&](const TokenEvent& event) { tokens.push_back(event.token); };
    Batch batch(*model_, {});
    EXPECT_TRUE(batch.submit(std::move(request)).has_value());
    while (batch.step()) {
    }
    return tokens;
  }

  const testing::RandomCheckpoint checkpoint_{{.layers = 2, .hidden = 32, .seed = 3}};
  testing::TemporaryDirectory directory_;
  std::unique_ptr<Model> model_;
};

TEST_F(Batching, GreedyRequestsTogetherEqualEachAlone) {
  Batch batch(*model_, {.sequences_max = 3, .tokens_per_step_max = 20});
  std::map<RequestId, std::vector<TokenId>> got;
  std::map<RequestId, int> number_of;
  for (int i = 0; i < 8; ++i) {
    auto r = request(i);
    r.on_token = [&](const TokenEvent& event) {
      EXPECT_EQ(event.index, static_cast<int>(got[event.id].size()));
      got[event.id].push_back(event.token);
    };
    number_of[*batch.submit(std::move(r))] = i;
  }
  while (batch.step()) EXPECT_LE(batch.stats().running, 3);
  ASSERT_EQ(got.size(), 8u);
  for (const auto& [id, tokens] : got)
    EXPECT_EQ(tokens, greedy_alone(request(number_of[id]))) << number_of[id];
  EXPECT_EQ(batch.stats().requests_finished, 8u);
}

TEST_F(Batching, SampledRequestsDependOnTheirSeedAndNotOnTheBatch) {
  Batch batch(*model_, {.sequences_max = 6, .tokens_per_step_max = 9});
  std::vector<std::vector<TokenId>> got(6);
  for (int i = 0; i < 6; ++i) {
    auto r = request(i, 1.0f);
    r.on_token = [&got, i](const TokenEvent& event) { got[i].push_back(event.token); };
    ASSERT_TRUE(batch.submit(std::move(r)).has_value());
  }
  while (batch.step()) {
  }
  for (int i = 0; i < 6; ++i) EXPECT_EQ(got[i], run_alone(request(i, 1.0f))) << i;
  auto other = request(5, 1.0f);
  other.sampling.seed = 77;
  EXPECT_NE(run_alone(std::move(other)), got[5]);
}

TEST_F(Batching, AStopTokenEndsARequestAndIsItsLastToken) {
  auto r = request(4);
  const auto tokens = run_alone(request(4));
  r.stop_tokens = {tokens[2]};
  std::vector<TokenEvent> events;
  r.on_token = [&](const TokenEvent& event) { events.push_back(event); };
  Batch batch(*model_, {});
  ASSERT_TRUE(batch.submit(std::move(r)).has_value());
  while (batch.step()) {
  }
  ASSERT_LE(events.size(), 3u);
  EXPECT_EQ(events.back().token, tokens[2]);
  EXPECT_EQ(events.back().finish, FinishReason::kStop);
}

TEST_F(Batching, TheContextBoundsPromptAndAnswer) {
  Batch batch(*model_, {.context_max = 20});
  GenerationRequest r{.prompt = checkpoint_.random_tokens(15, 1), .sampling = {.temperature = 0}};
  int count = 0;
  std::optional<FinishReason> finish;
  r.on_token = [&](const TokenEvent& event) { ++count, finish = event.finish; };
  ASSERT_TRUE(batch.submit(r).has_value());
  while (batch.step()) {
  }
  EXPECT_EQ(count, 5);
  EXPECT_EQ(finish, FinishReason::kLength);
  r.prompt = checkpoint_.random_tokens(20, 1);
  EXPECT_THAT(batch.submit(r).error().message, HasSubstr("the context holds 20"));
}

TEST_F(Batching, WrongRequestsAreRefused) {
  Batch batch(*model_, {});
  EXPECT_THAT(batch.submit({}).error().message, HasSubstr("prompt is empty"));
  EXPECT_THAT(batch.submit({.prompt = {50}}).error().message, HasSubstr("outside the vocabulary"));
  EXPECT_EQ(batch.submit({.prompt = {1}, .sampling = {.temperature = -1}}).error().field, "temperature");
  EXPECT_EQ(batch.submit({.prompt = {1}, .sampling = {.temperature = NAN}}).error().field, "temperature");
  EXPECT_EQ(batch.submit({.prompt = {1}, .sampling = {.top_p = 0}}).error().field, "top_p");
  EXPECT_FALSE(batch.submit({.prompt = {1}, .top_logprobs = 21}).has_value());
}

TEST_F(Batching, AFullQueueRefusesAndCancelledRequestsEndOnce) {
  Batch batch(*model_, {.sequences_max = 1, .queue_max = 2});
  std::map<RequestId, std::vector<FinishReason>> ends;
  const auto make = [&] {
    auto r = request(9);
    r.on_token = [&](const TokenEvent& event) {
      if (event.finish) ends[event.id].push_back(*event.finish);
    };
    return r;
  };
  const RequestId first = *batch.submit(make());
  ASSERT_TRUE(batch.step());  // the first runs now
  const RequestId second = *batch.submit(make());
  const RequestId third = *batch.submit(make());
  EXPECT_EQ(batch.submit(make()).error().code, Code::kExhausted);
  batch.cancel(second);  // waiting
  batch.cancel(first);   // running
  batch.cancel(first);   // ended: no effect
  while (batch.step()) {
  }
  EXPECT_EQ(ends[first], std::vector{FinishReason::kCancelled});
  EXPECT_EQ(ends[second], std::vector{FinishReason::kCancelled});
  EXPECT_EQ(ends[third], std::vector{FinishReason::kLength});
}

TEST_F(Batching, LogprobsAreThoseOfTheLogits) {
  auto r = request(3);
  r.logprobs = true;
  r.top_logprobs = 5;
  std::vector<TokenEvent> events;
  r.on_token = [&](const TokenEvent& event) { events.push_back(event); };
  const auto prompt = r.prompt;
  Batch batch(*model_, {});
  ASSERT_TRUE(batch.submit(std::move(r)).has_value());
  while (batch.step()) {
  }
  const auto expected = checkpoint_.logits(prompt);
  const double* row = &expected[expected.size() - 50];
  double total = 0;
  for (int i = 0; i < 50; ++i) total += std::exp(row[i]);
  EXPECT_NEAR(events[0].logprob, row[events[0].token] - std::log(total), 1e-4);
  ASSERT_EQ(events[0].top.size(), 5u);
  EXPECT_EQ(events[0].top[0].token, events[0].token);  // greedy
  for (int i = 1; i < 5; ++i) EXPECT_GE(events[0].top[i - 1].logprob, events[0].top[i].logprob);
}

TEST_F(Batching, TheGeneratorServesManyThreadsAndEndsEveryRequestOnce) {
  std::atomic<int> ends = 0, cancelled = 0;
  {
    const auto generator = Generator::start(*model_, {.sequences_max = 4});
    std::vector<std::thread> clients;
    for (int c = 0; c < 4; ++c) {
      clients.emplace_back([&, c] {
        const auto generation = generator->generate(request(c));
        ASSERT_TRUE(generation.has_value());
        EXPECT_EQ(static_cast<int>(generation->tokens.size()), request(c).tokens_max);
        EXPECT_EQ(generation->finish, FinishReason::kLength);
      });
    }
    for (std::thread& client : clients) client.join();
    for (int i = 0; i < 6; ++i) {
      auto endless = request(1);
      endless.tokens_max = 0;
      endless.on_token = [&](const TokenEvent& event) {
        if (!event.finish) return;
        ++ends;
        cancelled += event.finish == FinishReason::kCancelled;
      };
      const auto id = generator->submit(std::move(endless));
      ASSERT_TRUE(id.has_value());
      if (i < 2) generator->cancel(*id);
    }
  }
  EXPECT_EQ(ends, 6);
  EXPECT_EQ(cancelled, 6);
}

// Digits of a fixed text are forced; between them any even token may come.
class EvenTokens : public TokenConstraint {
 public:
  explicit EvenTokens(std::vector<TokenId> ending = {}) : ending_(std::move(ending)) {}
  bool mask(std::span<std::uint64_t> allowed) override {
    if (accepted.size() < 2) return false;
    for (std::uint64_t& word : allowed) word &= 0x5555555555555555u;
    return true;
  }
  void accept(TokenId token) override { accepted.push_back(token); }
  TokenId forced() override {
    const std::size_t at = accepted.size() - 6;
    return accepted.size() >= 6 && at < ending_.size() ? ending_[at] : -1;
  }
  std::vector<TokenId> accepted;

 private:
  std::vector<TokenId> ending_;
};

TEST_F(Batching, AConstraintMasksForcesAndSeesEveryTokenAndForcedTokensChangeNothingElse) {
  const std::vector<TokenId> ending = {7, 9, 11, 13};
  std::vector<std::vector<TokenId>> texts;
  for (const bool one_by_one : {false, true}) {  // with log-probabilities, forced tokens take a step each
    auto r = request(6, 1.0f);
    r.tokens_max = 14;
    r.logprobs = one_by_one;
    const auto constraint = std::make_shared<EvenTokens>(ending);
    r.constraint = constraint;
    std::vector<TokenId> tokens;
    r.on_token = [&](const TokenEvent& event) { tokens.push_back(event.token); };
    Batch batch(*model_, {});
    ASSERT_TRUE(batch.submit(std::move(r)).has_value());
    while (batch.step()) {
    }
    ASSERT_EQ(tokens.size(), 14u);
    EXPECT_EQ(constraint->accepted, tokens);
    for (int i : {2, 3, 4, 5, 10, 11, 12, 13}) EXPECT_EQ(tokens[i] % 2, 0) << i;
    EXPECT_EQ(std::vector(tokens.begin() + 6, tokens.begin() + 10), ending);
    texts.push_back(tokens);
  }
  EXPECT_EQ(texts[0], texts[1]);
}

TEST_F(Batching, AConstraintThatAllowsNothingFailsItsRequestAlone) {
  class Nothing : public TokenConstraint {
    bool mask(std::span<std::uint64_t> allowed) override { return std::ranges::fill(allowed, 0), true; }
    void accept(TokenId) override {}
  };
  auto r = request(2);
  r.constraint = std::make_shared<Nothing>();
  std::vector<FinishReason> ends;
  r.on_token = [&](const TokenEvent& event) {
    EXPECT_THAT(std::string(event.error), HasSubstr("allows no token"));
    ends.push_back(*event.finish);
  };
  auto other = request(3);
  int others = 0;
  other.on_token = [&](const TokenEvent&) { ++others; };
  Batch batch(*model_, {});
  ASSERT_TRUE(batch.submit(std::move(r)).has_value());
  ASSERT_TRUE(batch.submit(std::move(other)).has_value());
  while (batch.step()) {
  }
  EXPECT_EQ(ends, std::vector{FinishReason::kFailed});
  EXPECT_EQ(others, request(3).tokens_max);
}

TEST(Sampler, BiasPenaltiesAndMinPChangeWhatIsDrawn) {
  const std::vector<float> logits = {0, 1, 2, 3};
  EXPECT_EQ(Sampler({.temperature = 0, .logit_bias = {{0, 5.0f}}}).sample(logits), 0);
  EXPECT_EQ(Sampler({.temperature = 0, .logit_bias = {{3, -100.0f}}}).sample(logits), 2);
  Sampler penalised({.temperature = 0, .presence_penalty = 0.5f, .frequency_penalty = 0.6f});
  EXPECT_EQ(penalised.sample(logits), 3);
  penalised.accept(3);
  EXPECT_EQ(penalised.sample(logits), 2);  // 3 - 0.5 - 0.6 < 2
  penalised.accept(2);
  EXPECT_EQ(penalised.sample(logits), 3);  // 1.9 against 0.9
  Sampler likely({.min_p = 0.3f, .seed = 1});
  std::set<TokenId> drawn;
  for (int i = 0; i < 2000; ++i) drawn.insert(likely.sample(logits));
  EXPECT_EQ(drawn, (std::set<TokenId>{2, 3}));  // e^-1 = 0.37, e^-2 = 0.14
  EXPECT_EQ(check_sampling({.logit_bias = {{4, 1.0f}}}, 4).error().field, "logit_bias");
  EXPECT_EQ(check_sampling({.presence_penalty = 3}, 4).error().field, "presence_penalty");
}

TEST(Sampler, GreedyTakesTheLowestOfEqualLogits) {
  const std::vector<float> logits = {1, 4, 4, 2};
  EXPECT_EQ(argmax(logits), 1);
  EXPECT_EQ(Sampler({.temperature = 0}).sample(logits), 1);
}

// Goal: frequencies follow softmax(logits / temperature). Method: 40,000 draws, within five standard
// deviations.
TEST(Sampler, FrequenciesFollowTheDistributionAtItsTemperature) {
  const std::vector<float> logits = {0, 1, 2, -1};
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    Sampler sampler({.temperature = temperature, .seed = 5});
    constexpr int kDraws = 40000;
    std::vector<int> counts(4);
    for (int i = 0; i < kDraws; ++i) ++counts[sampler.sample(logits)];
    double total = 0;
    for (float logit : logits) total += std::exp(logit / temperature);
    for (int i = 0; i < 4; ++i) {
      const double p = std::exp(logits[i] / temperature) / total;
      EXPECT_NEAR(counts[i] / static_cast<double>(kDraws), p, 5 * std::sqrt(p * (1 - p) / kDraws)) << i;
    }
  }
}

TEST(Sampler, TopKAndTopPKeepTheMostLikely) {
  const std::vector<float> logits = {0, 3, 1, 2.9f, 3};  // by likelihood: 1, 4, 3, 2, 0
  const auto drawn = [&](Sampling sampling) {
    Sampler sampler(sampling);
    std::set<TokenId> tokens;
    for (int i = 0; i < 2000; ++i) tokens.insert(sampler.sample(logits));
    return tokens;
  };
  EXPECT_EQ(drawn({.top_k = 1}), (std::set<TokenId>{1}));
  EXPECT_EQ(drawn({.top_k = 3}), (std::set<TokenId>{1, 3, 4}));
  EXPECT_EQ(drawn({.top_p = 0.01f}), (std::set<TokenId>{1}));
  EXPECT_EQ(drawn({.top_p = 0.5f}), (std::set<TokenId>{1, 4}));
  EXPECT_EQ(drawn({}), (std::set<TokenId>{0, 1, 2, 3, 4}));
  EXPECT_EQ(drawn({.top_p = 0.9f, .top_k = 2}), (std::set<TokenId>{1, 4}));
}

}  // namespace
}  // namespace capstan::engine
