// Goal: a hit has the bits of a recomputation, whatever was shared, cut, dropped or copied; memory stays within its bound and all
// of it comes back. Method: random families of prompts that part anywhere, against the twin that computes everything anew.
#include "engine/batching/prefix_cache.h"

#include <gtest/gtest.h>

#include "base/prng.h"
#include "base/token_chain.h"
#include "engine/model/model.h"
#include "engine/testing/random_checkpoint.h"

namespace capstan::engine {
namespace {

using Tokens = std::vector<TokenId>;

class PrefixCacheTest : public ::testing::Test {
 protected:
  void SetUp() override {
    checkpoint_.write(directory_.path());
    auto model = Model::load(directory_.path(), {.threads = 1});
    ASSERT_TRUE(model.has_value()) << model.error().message;
    model_ = std::move(*model);
  }
  KvPool pool_of(int pairs) const {
    const KvPool sizes(model_->config(), KvType::kF16);
    return KvPool(model_->config(), KvType::kF16,
                  {.bytes_max = static_cast<std::uint64_t>(pairs) *
                                (sizes.block_bytes(KvKind::kFull) + sizes.block_bytes(KvKind::kSliding))});
  }
  // Runs `tokens` through `kv` as a Batch does and returns the last logits.
  std::vector<float> run(PrefixCache& cache, KvCache& kv, const Tokens& tokens, int prompt, int chunk) {
    auto cursor = cache.resume(tokens, static_cast<int>(tokens.size()) - 1, kv, {});
    resumed_ = kv.length();
    std::vector<float> last;
    while (kv.length() < static_cast<int>(tokens.size())) {
      const int count = std::min<int>(chunk, static_cast<int>(tokens.size()) - kv.length());
      const auto need = kv.need(count);
      EXPECT_TRUE(cache.make_room(need.full, need.sliding));
      EXPECT_TRUE(kv.reserve(count));
      last = model_->forward(std::span(tokens).subspan(kv.length(), count), kv)->values;
      cursor = cache.publish(cursor, tokens, prompt, kv);
    }
    cache.finish(cursor, tokens, kv);
    return last;
  }
  std::vector<float> alone(const Tokens& tokens) {
    KvCache kv(model_->config(), KvType::kF16);
    return model_->forward(tokens, kv)->values;
  }
  static Tokens with(Tokens a, const Tokens& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  }

  const testing::RandomCheckpoint checkpoint_{{.layers = 3, .hidden = 32, .experts = 2, .window = 70, .seed = 3}};
  testing::TemporaryDirectory directory_;
  std::unique_ptr<Model> model_;
  int resumed_ = 0;
};

TEST_F(PrefixCacheTest, RandomFamiliesOfPromptsHaveTheBitsOfRecomputationUnderEviction) {
  for (const int pairs : {14, 60}) {
    KvPool pool = pool_of(pairs);
    KvReport report(1);
    PrefixCache cache(pool, &report, 7);
    Prng prng(static_cast<std::uint64_t>(pairs));
    std::vector<Tokens> history = {checkpoint_.random_tokens(200, 1)};
    std::uint64_t hits = 0;
    for (int round = 0; round < 120; ++round) {
      const Tokens& base = history[prng.below(history.size())];
      Tokens tokens(base.begin(), base.begin() + static_cast<std::ptrdiff_t>(prng.below(base.size() + 1)));
      tokens = with(tokens, checkpoint_.random_tokens(1 + static_cast<int>(prng.below(130)), 100 + round));
      if (tokens.size() > 400) tokens.resize(400);
      KvCache kv(pool);
      ASSERT_EQ(run(cache, kv, tokens, 1 + static_cast<int>(prng.below(tokens.size())), 1 + static_cast<int>(prng.below(200))),
                alone(tokens))
          << "round " << round << " resumed at " << resumed_ << " of " << tokens.size();
      hits += static_cast<std::uint64_t>(resumed_);
      EXPECT_LE(pool.bytes(), pool.bytes_max());
      history.push_back(std::move(tokens));
    }
    EXPECT_GT(hits, pairs == 60 ? 3000u : 300u);
    EXPECT_GT(cache.stats().evicted_blocks, 0u);
    EXPECT_EQ(cache.evictable_bytes(), pool.bytes());
    cache.clear();
    EXPECT_EQ(pool.bytes(), 0u);
    EXPECT_EQ(cache.stats().blocks, 0);
    EXPECT_TRUE(report.since(0, 0, 10).changes.empty());
  }
}

// The next turn's prompt leaves the turn before at the end of its prompt, because the analysis that followed is dropped.
TEST_F(PrefixCacheTest, APromptResumesAtTheVeryTokenWhereAnalysisWasDroppedEvenWhenMemoryIsShort) {
  const Tokens prompt = checkpoint_.random_tokens(777, 1);
  const Tokens turn = with(prompt, checkpoint_.random_tokens(300, 2));
  for (const bool memory_short : {false, true}) {
    KvPool pool = pool_of(60);
    PrefixCache cache(pool);
    {
      KvCache kv(pool);
      run(cache, kv, turn, 777, 256);
    }
    if (memory_short) {
      for (int blocks = 1; cache.stats().evicted_blocks == 0; ++blocks) ASSERT_TRUE(cache.make_room(blocks, blocks));
    }
    const Tokens next = with(prompt, checkpoint_.random_tokens(40, 3));
    KvCache kv(pool);
    EXPECT_EQ(run(cache, kv, next, 817, 512), alone(next));
    EXPECT_GE(resumed_, 777);  // the random continuation may agree for a token
    EXPECT_LE(resumed_, 780);
  }
}

TEST_F(PrefixCacheTest, MessageBoundariesAreKeptWhenMemoryIsShort) {
  Tokens shared = checkpoint_.random_tokens(500, 1);
  for (TokenId& token : shared) token = token == 7 ? 8 : token;  // 7 begins a message
  const Tokens first = with(with(shared, {7}), checkpoint_.random_tokens(600, 2));
  for (const TokenId boundary : {7, -1}) {
    KvPool pool = pool_of(60);
    PrefixCache cache(pool, nullptr, boundary);
    {
      KvCache kv(pool);
      run(cache, kv, first, 1101, 512);
    }
    for (int blocks = 1; cache.stats().evicted_blocks == 0; ++blocks) ASSERT_TRUE(cache.make_room(blocks, blocks));
    const Tokens second = with(with(shared, {7}), checkpoint_.random_tokens(80, 3));
    KvCache kv(pool);
    EXPECT_EQ(run(cache, kv, second, 581, 512), alone(second));
    if (boundary == 7) {
      EXPECT_GE(resumed_, 501);
    } else {
      EXPECT_LT(resumed_, 501);
    }
  }
}

TEST_F(PrefixCacheTest, EqualSequencesThatRanTogetherTakeMemoryOnce) {
  KvPool pool = pool_of(60);
  PrefixCache cache(pool);
  const Tokens tokens = checkpoint_.random_tokens(300, 1);
  KvCache a(pool), b(pool);
  for (KvCache* kv : {&a, &b}) ASSERT_TRUE(model_->forward(tokens, *kv).has_value());
  EXPECT_EQ(pool.live(KvKind::kFull), 10);
  for (KvCache* kv : {&a, &b}) cache.publish({}, tokens, 300, *kv);
  EXPECT_EQ(pool.live(KvKind::kFull), 6);  // four shared ones, two unfinished
  EXPECT_FALSE(cache.make_room(1000, 0));  // what runs is not taken
  EXPECT_EQ(pool.live(KvKind::kFull), 6);
}

TEST_F(PrefixCacheTest, TheReportHoldsTheNamesThatARouterComputes) {
  KvPool pool = pool_of(12);
  KvReport report(5);
  PrefixCache cache(pool, &report);
  const Tokens tokens = checkpoint_.random_tokens(200, 1);
  KvCache kv(pool);
  run(cache, kv, tokens, 200, 200);
  const auto chain = token_chain(tokens, KvPool::kBlockTokens);
  ASSERT_EQ(chain.size(), 3u);
  auto page = report.since(5, 0, 2);
  EXPECT_FALSE(page.reset);
  EXPECT_TRUE(page.more);
  ASSERT_EQ(page.changes.size(), 2u);
  EXPECT_EQ(page.changes[0].name, chain[0]);
  EXPECT_EQ(page.changes[0].before, kTokenChainStart);
  EXPECT_EQ(page.changes[1].before, chain[0]);
  page = report.since(5, page.sequence, 2);
  EXPECT_FALSE(page.more);
  ASSERT_EQ(page.changes.size(), 1u);
  EXPECT_EQ(page.changes[0].name, chain[2]);
  kv.reset();
  cache.clear();
  page = report.since(5, page.sequence, 10);
  ASSERT_EQ(page.changes.size(), 3u);
  EXPECT_FALSE(page.changes[0].added);
  EXPECT_EQ(page.changes[0].name, chain[2]);  // from the end
  EXPECT_TRUE(report.since(4, page.sequence, 10).reset);
}

TEST(KvReport, WhoLagsTooFarBehindGetsEverythingAnew) {
  KvReport report(9);
  for (std::uint64_t i = 1; i <= KvReport::kChangesMax + 10; ++i) report.added(i, i - 1);
  for (std::uint64_t i = 1; i <= 20; ++i) report.removed(i);
  const auto page = report.since(9, 5, 100);
  EXPECT_TRUE(page.reset);
  EXPECT_EQ(page.changes.size(), KvReport::kChangesMax + 10 - 20);
  EXPECT_EQ(page.sequence, KvReport::kChangesMax + 30);
  const auto next = report.since(9, page.sequence - 3, 100);
  EXPECT_FALSE(next.reset);
  EXPECT_EQ(next.changes.size(), 3u);
  EXPECT_TRUE(report.since(9, page.sequence + 1, 100).reset);  // from a future that never was
}

TEST(TokenChain, NamesAreFixedForAllTime) {
  std::vector<std::int32_t> tokens(130);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(i * i);
  const auto chain = token_chain(tokens, 64);
  EXPECT_EQ(chain, (std::vector<std::uint64_t>{12027004940477603441u, 7015267493424572621u}));
  tokens[3] = 1;
  EXPECT_NE(token_chain(tokens, 64)[1], chain[1]);
}

}  // namespace
}  // namespace capstan::engine
