// Goal: the engine's logits are those of the published architecture. Method: small random checkpoints in
// every storage and shape that matters, against a float64 twin that shares no code with the engine.
#include "engine/model/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>

#include "base/prng.h"
#include "engine/testing/random_checkpoint.h"

namespace capstan::engine {
namespace {

using testing::CheckpointOptions;
using ::testing::HasSubstr;
using testing::RandomCheckpoint;
using testing::TemporaryDirectory;

constexpr double kTolerance = 1e-4;  // the gate is 1e-3; logits are of the order of 10

std::unique_ptr<Model> load(const std::filesystem::path& directory, int threads = 2) {
  auto model = Model::load(directory, {.threads = threads});
  if (!model) {
    ADD_FAILURE() << model.error().message;
    std::abort();
  }
  return std::move(*model);
}

std::vector<float> run_in_chunks(Model& model, const std::vector<TokenId>& tokens, std::size_t chunk) {
  KvCache kv(model.config());
  std::vector<float> all;
  for (std::size_t done = 0; done < tokens.size(); done += chunk) {
    const auto part = std::span(tokens).subspan(done, std::min(chunk, tokens.size() - done));
    auto logits = model.forward(part, kv, LogitsOf::kAll);
    EXPECT_TRUE(logits.has_value());
    all.insert(all.end(), logits->values.begin(), logits->values.end());
  }
  return all;
}

double largest_difference(const std::vector<float>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::fabs(a[i] - b[i]);
    largest = difference > largest || std::isnan(difference) ? difference : largest;
  }
  return largest;
}

void check_against_twin(const CheckpointOptions& options, int length = 150) {
  const RandomCheckpoint checkpoint(options);
  TemporaryDirectory directory;
  checkpoint.write(directory.path());
  const auto model = load(directory.path());
  const auto tokens = checkpoint.random_tokens(length, 11);
  EXPECT_LT(largest_difference(run_in_chunks(*model, tokens, tokens.size()), checkpoint.logits(tokens)),
            kTolerance);
}

TEST(Model, Mxfp4ExpertsAgreeWithTheTwin) { check_against_twin({}); }
TEST(Model, Bf16ExpertsAgreeWithTheTwin) { check_against_twin({.experts_storage = "BF16", .seed = 2}); }
TEST(Model, F16AndF32StorageAgreeWithTheTwin) {
  check_against_twin({.experts_storage = "F16", .dense_storage = "F32", .seed = 3});
  check_against_twin({.experts_storage = "F32", .dense_storage = "F16", .seed = 4});
}
TEST(Model, PlainRopeAgreesWithTheTwin) { check_against_twin({.yarn = false, .seed = 5}); }
TEST(Model, TruncatedYarnAgreesWithTheTwin) { check_against_twin({.truncate = true, .seed = 6}); }
TEST(Model, TiedEmbeddingsAgreeWithTheTwin) { check_against_twin({.tied = true, .seed = 7}); }
TEST(Model, ShardsAgreeWithTheTwin) { check_against_twin({.shards = 3, .seed = 8}); }
TEST(Model, AbsentLayerTypesAlternate) { check_against_twin({.layer_types = false, .seed = 9}); }
TEST(Model, HeadDimensionsAndGroupsOfAllSizesAgreeWithTheTwin) {
  check_against_twin({.head_dim = 64, .heads = 6, .kv_heads = 2, .seed = 10}, 80);
  check_against_twin({.head_dim = 128, .heads = 3, .kv_heads = 3, .seed = 11}, 80);
  check_against_twin({.head_dim = 32, .heads = 5, .kv_heads = 1, .seed = 12}, 80);
}
TEST(Model, OddWidthsAgreeWithTheTwin) {
  check_against_twin({.hidden = 51,
                      .intermediate = 27,
                      .experts = 3,
                      .experts_per_token = 3,
                      .vocab = 37,
                      .window = 70,
                      .experts_storage = "BF16",
                      .seed = 13});
}
TEST(Model, AWindowThatFillsTheRingSeveralTimesAgreesWithTheTwin) {
  check_against_twin({.layers = 1, .hidden = 32, .experts = 2, .window = 130, .seed = 14}, 1500);
}

TEST(Model, TruncateChangesTheLogits) {
  const RandomCheckpoint exact({.truncate = false, .seed = 6}), rounded({.truncate = true, .seed = 6});
  const auto tokens = exact.random_tokens(100, 1);
  TemporaryDirectory directory;
  exact.write(directory.path());
  const auto model = load(directory.path());
  EXPECT_GT(largest_difference(run_in_chunks(*model, tokens, 100), rounded.logits(tokens)), 10 * kTolerance);
}

TEST(Model, EveryChunkingAndThreadCountGivesTheSameBits) {
  const RandomCheckpoint checkpoint({.seed = 20});
  TemporaryDirectory directory;
  checkpoint.write(directory.path());
  const auto model = load(directory.path(), 3);
  const auto tokens = checkpoint.random_tokens(700, 12);
  const auto whole = run_in_chunks(*model, tokens, tokens.size());
  for (std::size_t chunk : {1, 7, 64, 300, 513}) {
    const auto chunked = run_in_chunks(*model, tokens, chunk);
    ASSERT_EQ(whole.size(), chunked.size());
    EXPECT_EQ(0, std::memcmp(whole.data(), chunked.data(), whole.size() * sizeof(float)))
        << "chunk " << chunk;
  }
  const auto single = run_in_chunks(*load(directory.path(), 1), tokens, tokens.size());
  EXPECT_EQ(0, std::memcmp(whole.data(), single.data(), whole.size() * sizeof(float)));
}

TEST(Model, ASequenceHasTheSameBitsAloneAndAmongOthers) {
  const RandomCheckpoint checkpoint({.experts_storage = "BF16", .seed = 21});
  TemporaryDirectory directory;
  checkpoint.write(directory.path());
  const auto model = load(directory.path());
  std::vector<std::vector<TokenId>> prompts;
  std::vector<std::unique_ptr<KvCache>> caches;
  std::vector<SequenceStep> steps;
  for (int i = 0; i < 9; ++i) prompts.push_back(checkpoint.random_tokens(1 + 37 * i, 30 + i));
  for (const auto& prompt : prompts) {
    caches.push_back(std::make_unique<KvCache>(model->config()));
    steps.push_back({.tokens = prompt, .kv = caches.back().get()});
  }
  Logits together;
  ASSERT_TRUE(model->step(steps, together).has_value());
  ASSERT_EQ(together.rows(), 9);
  for (int i = 0; i < 9; ++i) {
    KvCache kv(model->config());
    const auto alone = model->forward(prompts[i], kv);
    ASSERT_TRUE(alone.has_value());
    EXPECT_EQ(0,
              std::memcmp(alone->values.data(), together.row(i).data(), alone->values.size() * sizeof(float)))
        << i;
  }
}

// The last layer computes only what is wanted of it; what is wanted, and what comes later, must not differ by that.
TEST(Model, LogitsAreTheSameWhateverElseIsWanted) {
  const RandomCheckpoint checkpoint({.seed = 23});
  TemporaryDirectory directory;
  checkpoint.write(directory.path());
  const auto model = load(directory.path());
  const auto tokens = checkpoint.random_tokens(700, 13);
  const std::size_t vocab = static_cast<std::size_t>(model->config().vocab);
  const auto all = run_in_chunks(*model, tokens, tokens.size());
  const auto same = [&](std::span<const float> row, std::size_t token) {
    return std::memcmp(row.data(), &all[token * vocab], vocab * sizeof(float)) == 0;
  };
  KvCache a(model->config()), b(model->config()), c(model->config());
  const std::span<const TokenId> text = tokens;
  Logits logits;
  const SequenceStep first[] = {{.tokens = text.first(600), .kv = &a, .logits = LogitsOf::kNone},
                                {.tokens = text.first(40), .kv = &b, .logits = LogitsOf::kAll},
                                {.tokens = text.first(130), .kv = &c, .logits = LogitsOf::kLast}};
  ASSERT_TRUE(model->step(first, logits).has_value());
  ASSERT_EQ(logits.rows(), 41);
  for (int t = 0; t < 40; ++t) EXPECT_TRUE(same(logits.row(t), t)) << t;
  EXPECT_TRUE(same(logits.row(40), 129));
  const SequenceStep then[] = {{.tokens = text.subspan(130, 7), .kv = &c, .logits = LogitsOf::kNone},
                               {.tokens = text.subspan(600, 100), .kv = &a, .logits = LogitsOf::kLast},
                               {.tokens = text.subspan(40, 3), .kv = &b, .logits = LogitsOf::kAll}};
  ASSERT_TRUE(model->step(then, logits).has_value());
  ASSERT_EQ(logits.rows(), 4);
  EXPECT_TRUE(same(logits.row(0), 699));
  for (int t = 0; t < 3; ++t) EXPECT_TRUE(same(logits.row(1 + t), 40 + t)) << t;
}

TEST(Model, AResetCacheForgetsTheSequenceBefore) {
  const RandomCheckpoint checkpoint({.seed = 22});
  TemporaryDirectory directory;
  checkpoint.write(directory.path());
  const auto model = load(directory.path());
  KvCache kv(model->config());
  const auto tokens = checkpoint.random_tokens(90, 1);
  const auto first = model->forward(tokens, kv);
  ASSERT_TRUE(model->forward(checkpoint.random_tokens(500, 2), kv).has_value());
  kv.reset();
  EXPECT_EQ(model->forward(tokens, kv)->values, first->values);
}

TEST(Model, SlidingLayersKeepOnlyTheWindow) {
  const RandomCheckpoint checkpoint({.layers = 1, .hidden = 32, .experts = 2});  // one sliding layer
  TemporaryDirectory directory;
  checkpoint.write(directory.path());
  const auto model = load(directory.path());
  KvCache kv(model->config());
  ASSERT_TRUE(model->forward(checkpoint.random_tokens(1000, 1), kv).has_value());
  const auto bytes = kv.bytes();
  ASSERT_TRUE(model->forward(checkpoint.random_tokens(3000, 1), kv).has_value());
  EXPECT_LE(kv.bytes(), bytes);
  EXPECT_EQ(kv.length(), 4000);
}

TEST(Model, BadTokensAndTooManyPositionsAreRefusedAndChangeNothing) {
  const RandomCheckpoint checkpoint({});
  TemporaryDirectory directory;
  checkpoint.write(directory.path());
  const auto model = load(directory.path());
  KvCache kv(model->config());
  const std::vector<TokenId> outside = {1, 50}, negative = {-1}, none = {};
  EXPECT_THAT(model->forward(outside, kv).error().message,
              HasSubstr("token 50 is outside the vocabulary of 50"));
  EXPECT_FALSE(model->forward(negative, kv).has_value());
  EXPECT_FALSE(model->forward(none, kv).has_value());
  const std::vector<TokenId> many(131073, 1);
  EXPECT_THAT(model->forward(many, kv).error().message, HasSubstr("131072 positions"));
  EXPECT_EQ(kv.length(), 0);
}

TEST(Model, AMissingOrMisshapenTensorIsNamed) {
  TemporaryDirectory directory;
  RandomCheckpoint({.layers = 1}).write(directory.path());
  std::ofstream(directory.path() / "config.json") << RandomCheckpoint({.layers = 2}).config_json();
  EXPECT_THAT(Model::load(directory.path()).error().message,
              HasSubstr("no tensor 'model.layers.1.input_layernorm.weight'"));
  std::ofstream(directory.path() / "config.json")
      << RandomCheckpoint({.layers = 1, .vocab = 60}).config_json();
  EXPECT_THAT(Model::load(directory.path()).error().message,
              HasSubstr("'model.embed_tokens.weight' has shape [50, 64], config.json asks for [60, 64]"));
}

// A hostile file ends in an error or in a model that runs; never in a crash.
TEST(Model, MutatedCheckpointsNeverCrash) {
  const RandomCheckpoint checkpoint(
      {.layers = 1, .hidden = 32, .intermediate = 32, .experts = 2, .vocab = 5});
  TemporaryDirectory directory;
  checkpoint.write(directory.path());
  const std::string valid = checkpoint.safetensors();
  const std::string config = checkpoint.config_json();
  const std::size_t header = valid.rfind('}', 4096) == std::string::npos ? 2000 : valid.find("\"}", 8) + 2000;
  Prng prng(5);
  int loaded = 0;
  for (int round = 0; round < 200; ++round) {
    std::string bytes = valid, text = config;
    for (std::uint64_t i = prng.below(4); i < 4; ++i) {
      bytes[prng.below(std::min(header, bytes.size()))] = static_cast<char>(prng.next());
    }
    if (round % 3 == 0) text[prng.below(text.size())] = static_cast<char>('0' + prng.below(10));
    if (round % 7 == 0) bytes.resize(prng.below(bytes.size()));
    std::ofstream(directory.path() / "model.safetensors", std::ios::binary)
        << (round % 3 == 0 ? valid : bytes);
    std::ofstream(directory.path() / "config.json") << text;
    auto model = Model::load(directory.path(), {.threads = 1});
    if (!model) continue;
    ++loaded;
    KvCache kv((*model)->config());
    const TokenId token = 0;
    EXPECT_TRUE((*model)->forward(std::span(&token, 1), kv).has_value());
  }
  EXPECT_GT(loaded, 0);
  EXPECT_LT(loaded, 200);
}

}  // namespace
}  // namespace capstan::engine
