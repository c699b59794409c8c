// Goal: shared blocks are never seen: a sequence that resumes from another's blocks has the bits of one that computed
// everything, and the other one is not disturbed. Method: a random checkpoint, logits compared bit by bit.
#include "engine/model/kv_cache.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/model/model.h"
#include "engine/testing/random_checkpoint.h"

namespace capstan::engine {
namespace {

class KvCacheTest : public ::testing::TestWithParam<KvType> {
 protected:
  void SetUp() override {
    checkpoint_.write(directory_.path());
    auto model = Model::load(directory_.path(), {.threads = 2});
    ASSERT_TRUE(model.has_value()) << model.error().message;
    model_ = std::move(*model);
  }
  std::vector<float> last_logits(const std::vector<TokenId>& tokens, KvCache& kv) {
    const auto logits = model_->forward(std::span(tokens).subspan(kv.length()), kv);
    EXPECT_TRUE(logits.has_value());
    return logits ? logits->values : std::vector<float>();
  }
  // What a prefix cache does: the first `length` positions of `from` become those of `to`.
  static void share(const KvCache& from, KvCache& to, int length) {
    for (int i = 0; i * KvCache::kPageTokens < length; ++i) {
      to.attach(KvKind::kFull, i, from.block(KvKind::kFull, i));
      if (i >= to.window_begin_block(length)) to.attach(KvKind::kSliding, i, from.block(KvKind::kSliding, i));
    }
    to.resume(length);
  }

  const testing::RandomCheckpoint checkpoint_{{.layers = 2, .hidden = 32, .window = 70, .seed = 3}};
  testing::TemporaryDirectory directory_;
  std::unique_ptr<Model> model_;
};

TEST_P(KvCacheTest, SequencesThatShareBlocksHaveTheBitsOfThoseThatDoNot) {
  KvPool pool(model_->config(), GetParam());
  const auto common = checkpoint_.random_tokens(300, 1);
  for (const int length : {1, 63, 64, 65, 128, 200, 299}) {
    KvCache first(pool), second(pool), alone(model_->config(), GetParam());
    const std::vector<TokenId> start(common.begin(), common.begin() + length);
    last_logits(start, first);
    share(first, second, length);
    std::vector<TokenId> one = start, two = start;
    one.push_back(7);
    two.insert(two.end(), {9, 11, 13});
    // Both write behind the shared positions, into what was one block.
    const auto first_logits = last_logits(one, first), second_logits = last_logits(two, second);
    EXPECT_EQ(second_logits, last_logits(two, alone)) << length;
    alone.reset();
    EXPECT_EQ(first_logits, last_logits(one, alone)) << length;
  }
  EXPECT_EQ(pool.live(KvKind::kFull), 0);
  EXPECT_EQ(pool.live(KvKind::kSliding), 0);
}

TEST_P(KvCacheTest, TokensThatAreTakenBackLeaveNoTrace) {
  const auto tokens = checkpoint_.random_tokens(260, 2);
  KvCache kv(model_->config(), GetParam()), alone(model_->config(), GetParam());
  const std::vector<TokenId> start(tokens.begin(), tokens.begin() + 250);
  last_logits(start, kv);
  std::vector<TokenId> tried = start;
  tried.insert(tried.end(), {1, 2, 3, 4, 5, 6, 7, 8});  // across the end of a block
  last_logits(tried, kv);
  kv.truncate(251);
  std::vector<TokenId> right = start;
  right.insert(right.end(), {1, 20, 21});
  EXPECT_EQ(last_logits(right, kv), last_logits(right, alone));
}

TEST_P(KvCacheTest, AFullPoolRefusesAndTakesBackWhatIsFreed) {
  const KvPool size(model_->config(), GetParam());
  const std::uint64_t block = size.block_bytes(KvKind::kFull) + size.block_bytes(KvKind::kSliding);
  KvPool pool(model_->config(), GetParam(), {.bytes_max = 3 * block});
  KvCache a(pool), b(pool);
  EXPECT_EQ(a.need(65).full, 2);
  ASSERT_TRUE(a.reserve(65));
  EXPECT_EQ(a.need(65).full, 0);
  EXPECT_FALSE(pool.has_room(2, 2));
  EXPECT_FALSE(b.reserve(100));
  const std::vector<TokenId> tokens = checkpoint_.random_tokens(100, 3);
  EXPECT_EQ(model_->forward(tokens, b).error().code, Code::kExhausted);
  a.reset();
  EXPECT_TRUE(model_->forward(tokens, b).has_value());
  b.reset();
  EXPECT_EQ(pool.bytes(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Types, KvCacheTest, ::testing::Values(KvType::kF32, KvType::kF16),
                         [](const auto& info) { return info.param == KvType::kF32 ? "f32" : "f16"; });

// f16 halves the memory, and logits stay close: a random checkpoint amplifies what rounding changes, by a few per cent; wrong
// keys would change all of it.
TEST(KvTypes, HalfKeysAndValuesChangeLogitsLittle) {
  const testing::RandomCheckpoint checkpoint({.layers = 4, .hidden = 64, .window = 70, .seed = 5});
  testing::TemporaryDirectory directory;
  checkpoint.write(directory.path());
  const auto model = Model::load(directory.path(), {.threads = 2});
  ASSERT_TRUE(model.has_value());
  KvCache exact((*model)->config(), KvType::kF32), half((*model)->config(), KvType::kF16);
  const auto tokens = checkpoint.random_tokens(400, 1);
  const auto a = (*model)->forward(tokens, exact, LogitsOf::kAll), b = (*model)->forward(tokens, half, LogitsOf::kAll);
  double squares = 0, power = 0;
  for (std::size_t i = 0; i < a->values.size(); ++i) {
    squares += (a->values[i] - b->values[i]) * (a->values[i] - b->values[i]);
    power += a->values[i] * a->values[i];
  }
  EXPECT_GT(squares, 0);
  EXPECT_LT(std::sqrt(squares / power), 0.15);
  EXPECT_EQ(2 * half.bytes(), exact.bytes());
}

}  // namespace
}  // namespace capstan::engine
