// Goal: sharing, preemption, guessing, priorities and fairness change when tokens come, never which. Method: the same requests in
// a batch of each kind and alone without any of it.
#include <gtest/gtest.h>

#include <map>

#include "engine/batching/batch.h"
#include "engine/testing/random_checkpoint.h"

namespace capstan::engine {
namespace {

using Tokens = std::vector<TokenId>;

class BatchMemory : public ::testing::Test {
 protected:
  void SetUp() override {
    checkpoint_.write(directory_.path());
    auto model = Model::load(directory_.path(), {.threads = 1});
    ASSERT_TRUE(model.has_value()) << model.error().message;
    model_ = std::move(*model);
  }
  GenerationRequest request(int prompt, int answer, std::uint64_t seed, float temperature = 0) {
    return {.prompt = checkpoint_.random_tokens(prompt, seed),
            .sampling = {.temperature = temperature, .seed = seed},
            .tokens_max = answer};
  }
  Tokens alone(GenerationRequest request) {
    Batch batch(*model_, {.prefix_cache = false, .speculation_tokens_max = 0});
    Tokens tokens;
    request.on_token = [&](const TokenEvent& event) { tokens.push_back(event.token); };
    EXPECT_TRUE(batch.submit(std::move(request)).has_value());
    while (batch.step()) {
    }
    return tokens;
  }
  // Submits; tokens and the order of endings are gathered.
  RequestId submit(Batch& batch, GenerationRequest request) {
    request.on_token = [this](const TokenEvent& event) {
      if (event.token >= 0) got_[event.id].push_back(event.token);
      if (event.index == 0) cached_[event.id] = event.cached_tokens;
      if (event.finish) ended_.push_back(event.id);
      if (event.index == 0) begun_.push_back(event.id);
    };
    const auto id = batch.submit(std::move(request));
    EXPECT_TRUE(id.has_value());
    return id.value_or(0);
  }
  std::uint64_t bytes_for(int tokens) const {
    const KvPool sizes(model_->config(), model_->kv_type());
    return static_cast<std::uint64_t>(tokens / 64) * sizes.block_bytes(KvKind::kFull) +
           11 * sizes.block_bytes(KvKind::kSliding);
  }

  const testing::RandomCheckpoint checkpoint_{{.layers = 2, .hidden = 32, .experts = 2, .window = 70, .seed = 3}};
  testing::TemporaryDirectory directory_;
  std::unique_ptr<Model> model_;
  std::map<RequestId, Tokens> got_;
  std::map<RequestId, int> cached_;
  std::vector<RequestId> begun_, ended_;
};

TEST_F(BatchMemory, SequencesThatLoseTheirMemoryEndWithTheSameTokens) {
  for (const bool cache : {true, false}) {
    got_.clear();
    Batch batch(*model_, {.sequences_max = 8,
                          .tokens_per_step_max = 64,
                          .kv_bytes_max = bytes_for(64 * 8),
                          .prefix_cache = cache});
    std::map<RequestId, GenerationRequest> requests;
    for (int i = 0; i < 10; ++i) {
      auto r = request(30 + 61 * (i % 3), 250, 50 + i, i % 2 == 0 ? 0.0f : 1.0f);
      requests[submit(batch, r)] = r;
    }
    while (batch.step()) EXPECT_LE(batch.stats().kv_bytes, batch.stats().kv_bytes_max);
    for (const auto& [id, r] : requests) EXPECT_EQ(got_[id], alone(r)) << id;
    EXPECT_GT(batch.stats().preemptions, 0u);
    EXPECT_EQ(batch.stats().requests_finished, 10u);
    batch.drop_cache();
    EXPECT_EQ(batch.stats().kv_bytes, 0u);
  }
}

TEST_F(BatchMemory, ARequestThatCannotFitIsRefusedWithWhatWouldFit) {
  Batch batch(*model_, {.kv_bytes_max = bytes_for(64 * 6)});
  const auto error = batch.submit(request(400, 1, 1));
  ASSERT_FALSE(error.has_value());
  EXPECT_NE(error.error().message.find("the context holds"), std::string::npos);
  submit(batch, request(100, 0, 1));  // until the context is full
  while (batch.step()) {
  }
  EXPECT_EQ(ended_.size(), 1u);
}

TEST_F(BatchMemory, ASharedPrefixIsComputedOnce) {
  Batch batch(*model_, {});
  const auto prefix = checkpoint_.random_tokens(500, 9);
  std::map<RequestId, GenerationRequest> requests;
  const auto add = [&](int i) {
    auto r = request(10, 12, 70 + i, 1.0f);
    r.prompt.insert(r.prompt.begin(), prefix.begin(), prefix.end());
    const RequestId id = submit(batch, r);
    requests[id] = r;
    return id;
  };
  for (int i = 0; i < 5; ++i) add(i);  // at once: four wait for what the first computes
  while (batch.step()) {
  }
  EXPECT_LT(batch.stats().prompt_tokens, 510u + 4 * (10 + 64));
  const RequestId late = add(6);
  while (batch.step()) {
  }
  EXPECT_GE(cached_[late], 500);
  for (const auto& [id, r] : requests) EXPECT_EQ(got_[id], alone(r)) << id;
  // The same prompt again: all but its last token is there.
  auto again = requests[late];
  const RequestId same = submit(batch, again);
  while (batch.step()) {
  }
  EXPECT_EQ(cached_[same], 509);
  EXPECT_EQ(got_[same], got_[late]);
  EXPECT_EQ(batch.stats().prefix.query_tokens, 7u * 510u);
}

TEST_F(BatchMemory, GuessedTokensChangeNothingAndRepetitionPays) {
  for (const float temperature : {0.0f, 1.0f}) {
    Batch batch(*model_, {.speculation_tokens_max = 6});
    auto r = request(90, 200, 5, temperature);
    if (temperature > 0) r.sampling.logit_bias = {{3, 9.0f}, {4, 9.0f}};  // so that something is worth guessing
    const auto expected = alone(r);
    const RequestId id = submit(batch, r);
    int steps = 0;
    while (batch.step()) ++steps;
    EXPECT_EQ(got_[id], expected);
    EXPECT_GT(batch.stats().accepted_tokens, 0u);
    EXPECT_GE(batch.stats().drafted_tokens, batch.stats().accepted_tokens);
    EXPECT_LT(steps, 200);
    got_.clear();
  }
}

TEST_F(BatchMemory, ATenantWithManyRequestsDoesNotHoldUpAnother) {
  Batch batch(*model_, {.sequences_max = 1});
  std::vector<RequestId> many;
  for (int i = 0; i < 6; ++i) {
    auto r = request(50, 10, 20 + i);
    r.tenant = "many";
    many.push_back(submit(batch, r));
  }
  ASSERT_TRUE(batch.step());
  auto r = request(50, 10, 30);
  r.tenant = "few";
  const RequestId few = submit(batch, r);
  while (batch.step()) {
  }
  EXPECT_EQ(ended_, (std::vector<RequestId>{many[0], few, many[1], many[2], many[3], many[4], many[5]}));
}

TEST_F(BatchMemory, AHigherPriorityTakesThePlaceOfALowerOneWhichEndsAllTheSame) {
  Batch batch(*model_, {.sequences_max = 2});
  std::vector<GenerationRequest> requests = {request(50, 30, 1), request(50, 30, 2), request(50, 5, 3)};
  requests[2].priority = 1;
  const RequestId a = submit(batch, requests[0]), b = submit(batch, requests[1]);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(batch.step());
  const RequestId urgent = submit(batch, requests[2]);
  while (batch.step()) {
  }
  EXPECT_EQ(ended_.front(), urgent);
  EXPECT_EQ(batch.stats().preemptions, 1u);
  EXPECT_EQ(got_[a], alone(requests[0]));
  EXPECT_EQ(got_[b], alone(requests[1]));
}

// Goal: the prompt's log-probabilities are those of a pass over it, in any company, with and without preemption, each told once.
TEST_F(BatchMemory, APromptsTokensAreScored) {
  std::vector<GenerationRequest> requests;
  for (const int size : {200, 65, 64, 2, 1}) {
    GenerationRequest r = request(size, 7, 300);  // each is the beginning of the one before
    r.logprobs = true;
    r.top_logprobs = 2;
    requests.push_back(r);
  }
  requests.push_back(requests.front());  // the same again: nothing is found in the cache, or half of it would not be told
  for (const int together : {1, 4}) {
    Batch batch(*model_, {.sequences_max = together, .kv_bytes_max = bytes_for(64 * 6)});
    std::vector<std::vector<TokenEvent>> told(requests.size());
    std::vector<int> made(requests.size());
    for (std::size_t i = 0; i < requests.size(); ++i) {
      GenerationRequest r = requests[i];
      r.on_prompt_token = [&told, &made, i](const TokenEvent& event) {
        EXPECT_EQ(made[i], 0);
        told[i].push_back(event);
      };
      r.on_token = [&made, i](const TokenEvent& event) { made[i] += event.token >= 0; };
      ASSERT_TRUE(batch.submit(std::move(r)).has_value());
    }
    for (std::size_t i = 0; i < requests.size(); ++i) {  // others come in between, and take their places
      batch.step();
      batch.step();
      GenerationRequest other = request(150, 40, 400 + i);
      other.priority = 1;
      ASSERT_TRUE(batch.submit(std::move(other)).has_value());
    }
    while (batch.step()) {
    }
    if (together == 1) EXPECT_GT(batch.stats().preemptions, 0u);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const std::vector<TokenId>& prompt = requests[i].prompt;
      ASSERT_EQ(told[i].size(), prompt.size() - 1);
      EXPECT_EQ(made[i], requests[i].tokens_max);
      KvCache kv(model_->config());
      const auto logits = model_->forward(prompt, kv, LogitsOf::kAll);
      for (std::size_t k = 0; k < told[i].size(); ++k) {
        EXPECT_EQ(told[i][k].index, static_cast<int>(k) + 1);
        EXPECT_EQ(told[i][k].token, prompt[k + 1]);
        EXPECT_EQ(told[i][k].logprob, logprob_of(logits->row(static_cast<int>(k)), prompt[k + 1]));
        EXPECT_EQ(told[i][k].top.size(), 2u);
      }
    }
  }
}

}  // namespace
}  // namespace capstan::engine
