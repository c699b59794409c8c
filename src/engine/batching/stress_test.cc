// Goal: a thousand mixed requests from many threads, with constraints, priorities, tenants and clients that leave at any
// moment, in little memory: each ends exactly once, nobody gets another's tokens, nothing is left over. Method: every
// request's tokens are compared with those of the same request alone, without cache, guesses or preemption; who left early
// got a prefix of them.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <thread>

#include "base/prng.h"
#include "engine/batching/generator.h"
#include "engine/testing/random_checkpoint.h"

namespace capstan::engine {
namespace {

using Tokens = std::vector<TokenId>;

// A call with two fields, as a grammar would bind it: fixed marks, between them some tokens of one class.
class FieldsConstraint : public TokenConstraint {
 public:
  explicit FieldsConstraint(int period) : period_(period) {}
  bool mask(std::span<std::uint64_t> allowed) override {
    if (count_ % period_ == 0) return false;
    for (std::uint64_t& word : allowed) word &= 0xAAAAAAAAAAAAAAAAu;
    return true;
  }
  void accept(TokenId) override { ++count_; }
  TokenId forced() override { return count_ % 5 >= 3 ? 10 + count_ % 5 : -1; }

 private:
  int period_;
  int count_ = 0;
};

struct Plan {
  GenerationRequest request;  // without callback and constraint
  int constraint = 0;         // its period; 0: none
  int leave_after = -1;       // events; -1: stays
};

// Without a screen, in f32; and with the large vocabulary that has one, where two fifths of the requests choose from near logits.
class Stress : public ::testing::TestWithParam<bool> {
 protected:
  static constexpr int kRequests = 1000;
  static constexpr int kThreads = 8;

  void SetUp() override {
    checkpoint_.write(directory_.path());
    const Arithmetic arithmetic = GetParam() ? Arithmetic::kInteger : Arithmetic::kF32;
    auto model = Model::load(directory_.path(), {.threads = 1, .arithmetic = arithmetic});
    ASSERT_TRUE(model.has_value()) << model.error().message;
    model_ = std::move(*model);
    ASSERT_EQ(model_->screens(), GetParam());
  }
  Plan plan(int number) const {
    Prng prng(static_cast<std::uint64_t>(number) + 1);
    // Conversations: a few system prompts, turns that continue them, own endings.
    Tokens prompt = checkpoint_.random_tokens(100 + 40 * static_cast<int>(prng.below(3)), prng.below(5));
    prompt.resize(1 + prng.below(prompt.size()));
    const Tokens own = checkpoint_.random_tokens(1 + static_cast<int>(prng.below(60)), 1000 + prng.below(200));
    prompt.insert(prompt.end(), own.begin(), own.end());
    Plan plan{.request = {.prompt = std::move(prompt),
                          .sampling = {.temperature = prng.below(3) == 0 ? 0.0f : 1.0f,
                                       .top_p = prng.below(2) == 0 ? 0.9f : 1.0f,
                                       .presence_penalty = prng.below(4) == 0 ? 0.5f : 0.0f,
                                       .seed = prng.below(4)},
                          .tokens_max = 1 + static_cast<int>(prng.below(40)),
                          .tenant = std::string(1, static_cast<char>('a' + prng.below(3))),
                          .priority = static_cast<int>(prng.below(3)),
                          .logprobs = prng.below(5) == 0}};
    if (prng.below(4) == 0) plan.request.stop_tokens = {static_cast<TokenId>(prng.below(50))};
    if (prng.below(3) == 0) plan.constraint = 2 + static_cast<int>(prng.below(4));
    if (prng.below(4) == 0) plan.leave_after = static_cast<int>(prng.below(10));
    return plan;
  }
  static GenerationRequest bind(const Plan& plan) {
    GenerationRequest request = plan.request;
    if (plan.constraint > 0) request.constraint = std::make_shared<FieldsConstraint>(plan.constraint);
    return request;
  }
  Tokens alone(const Plan& plan) {
    Batch batch(*model_, {.prefix_cache = false, .speculation_tokens_max = 0});
    Tokens tokens;
    GenerationRequest request = bind(plan);
    request.on_token = [&](const TokenEvent& event) { tokens.push_back(event.token); };
    EXPECT_TRUE(batch.submit(std::move(request)).has_value());
    while (batch.step()) {
    }
    return tokens;
  }

  struct Outcome {
    Tokens tokens;
    std::vector<FinishReason> ends;
    int events_after_end = 0;
  };
  void run(Generator& generator, int number, std::atomic<int>& open) {
    const Plan plan = this->plan(number);
    GenerationRequest request = bind(plan);
    ++open;
    Outcome& outcome = outcomes_[static_cast<std::size_t>(number)];
    request.on_token = [&, leave = plan.leave_after](const TokenEvent& event) {
      // Only the generator's thread is here, until `open` says that it is done.
      if (!outcome.ends.empty()) ++outcome.events_after_end;
      if (event.token >= 0) outcome.tokens.push_back(event.token);
      if (event.index == leave) generator.cancel(event.id);
      if (!event.finish) return;
      outcome.ends.push_back(*event.finish);
      --open;
    };
    for (;;) {
      const auto id = generator.submit(request);
      if (id && plan.leave_after == 0) generator.cancel(*id);
      if (id) return;
      ASSERT_EQ(id.error().code, Code::kExhausted);
      std::this_thread::yield();
    }
  }

  const testing::RandomCheckpoint checkpoint_{
      {.layers = 2, .hidden = 32, .intermediate = 32, .heads = 2, .kv_heads = 1, .experts = 2, .experts_per_token = 1,
       .vocab = GetParam() ? 9'000 : 50, .window = 70}};
  testing::TemporaryDirectory directory_;
  std::unique_ptr<Model> model_;
  std::vector<Outcome> outcomes_ = std::vector<Outcome>(kRequests);
};

TEST_P(Stress, AThousandRequestsWithDisconnectsAndConstraintsLoseNothingAndDoNotCross) {
  const KvPool sizes(model_->config(), model_->kv_type());
  const std::uint64_t pair = sizes.block_bytes(KvKind::kFull) + sizes.block_bytes(KvKind::kSliding);
  const auto generator = Generator::start(
      *model_, {.sequences_max = 6, .queue_max = 64, .tokens_per_step_max = 96, .kv_bytes_max = 40 * pair, .boundary_token = 7});
  std::atomic<int> open = 0;
  std::vector<std::thread> clients;
  for (int thread = 0; thread < kThreads; ++thread) {
    clients.emplace_back([&, thread] {
      for (int number = thread; number < kRequests; number += kThreads) run(*generator, number, open);
    });
  }
  for (std::thread& client : clients) client.join();
  while (open > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  BatchStats stats = generator->stats();
  while (stats.running > 0) stats = generator->stats();  // the last step's end
  EXPECT_EQ(stats.waiting, 0);
  EXPECT_EQ(stats.kv_bytes_pinned, 0u);
  EXPECT_LE(stats.kv_bytes, stats.kv_bytes_max);
  EXPECT_EQ(stats.requests_finished, static_cast<std::uint64_t>(kRequests));
  EXPECT_GT(stats.preemptions, 0u);
  EXPECT_GT(stats.prefix.hit_tokens, 0u);
  EXPECT_GT(stats.prefix.evicted_blocks, 0u);
  int cancelled = 0;
  for (int number = 0; number < kRequests; ++number) {
    const Outcome& outcome = outcomes_[static_cast<std::size_t>(number)];
    ASSERT_EQ(outcome.ends.size(), 1u) << number;
    ASSERT_EQ(outcome.events_after_end, 0) << number;
    ASSERT_NE(outcome.ends[0], FinishReason::kFailed) << number;
    const Tokens expected = alone(plan(number));
    if (outcome.ends[0] == FinishReason::kCancelled) {
      ++cancelled;
      ASSERT_LE(outcome.tokens.size(), expected.size()) << number;
      ASSERT_TRUE(std::equal(outcome.tokens.begin(), outcome.tokens.end(), expected.begin())) << number;
    } else {
      ASSERT_EQ(outcome.tokens, expected) << number;
    }
  }
  EXPECT_GT(cancelled, 20);
  EXPECT_LT(cancelled, kRequests / 2);
}  // ~Generator and ~KvPool assert that every block came back

INSTANTIATE_TEST_SUITE_P(Screens, Stress, ::testing::Bool());

}  // namespace
}  // namespace capstan::engine
