// Goal: a GGUF file gives the logits of the safetensors checkpoint with the same weights, bit for bit, in every
// arithmetic; what Q8_0 loses is small and bounded; what does not fit together is refused by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "engine/model/model.h"
#include "engine/testing/mutate.h"
#include "engine/testing/random_checkpoint.h"

namespace capstan::engine {
namespace {

namespace fs = std::filesystem;
using testing::CheckpointOptions;
using ::testing::HasSubstr;
using testing::RandomCheckpoint;
using testing::TemporaryDirectory;

std::unique_ptr<Model> load(const fs::path& path, std::string_view arithmetic) {
  auto how = model_options(arithmetic, 2);
  auto model = Model::load(path, *how);
  if (!model) {
    ADD_FAILURE() << model.error().message;
    std::abort();
  }
  return std::move(*model);
}

std::vector<float> logits_of(Model& model, const std::vector<TokenId>& tokens, std::size_t chunk = 512) {
  KvCache kv(model.config(), model.kv_type());
  std::vector<float> all;
  for (std::size_t done = 0; done < tokens.size(); done += chunk) {
    const auto part = std::span(tokens).subspan(done, std::min(chunk, tokens.size() - done));
    const auto logits = model.forward(part, kv, LogitsOf::kAll);
    EXPECT_TRUE(logits.has_value());
    all.insert(all.end(), logits->values.begin(), logits->values.end());
  }
  return all;
}

double rms(const std::vector<float>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

// The median of the tokens' rms errors. A token that wants two experts almost equally may get the other one from any
// rounding; its logits are then another token's business (rms 1 and more), and of few tokens it would be most of a mean.
double typical_rms(const std::vector<float>& a, const std::vector<double>& b, std::size_t tokens) {
  const std::size_t vocab = a.size() / tokens;
  std::vector<double> errors;
  for (std::size_t t = 0; t < tokens; ++t) {
    const auto at = static_cast<std::ptrdiff_t>(t * vocab), end = at + static_cast<std::ptrdiff_t>(vocab);
    errors.push_back(rms({a.begin() + at, a.begin() + end}, {b.begin() + at, b.begin() + end}));
  }
  std::ranges::nth_element(errors, errors.begin() + static_cast<std::ptrdiff_t>(tokens / 2));
  return errors[tokens / 2];
}

void expect_equal_bits(const CheckpointOptions& options, const testing::GgufExport& how = {}) {
  const RandomCheckpoint checkpoint(options);
  TemporaryDirectory stored, gguf;
  checkpoint.write(stored.path());
  const fs::path file = checkpoint.write_gguf(gguf.path(), how);
  const auto tokens = checkpoint.random_tokens(90, 3);
  for (const std::string_view arithmetic : {"f32", "int12", "int8"}) {
    const auto expected = logits_of(*load(stored.path(), arithmetic), tokens);
    EXPECT_EQ(logits_of(*load(file, arithmetic), tokens), expected) << arithmetic;
    EXPECT_EQ(logits_of(*load(gguf.path(), arithmetic), tokens, 7), expected) << arithmetic << ", found in its directory";
  }
}

TEST(GgufModel, LogitsHaveTheBitsOfTheSafetensorsCheckpoint) { expect_equal_bits({.seed = 31}); }
TEST(GgufModel, SoDoThoseOfASplitFile) { expect_equal_bits({.seed = 32}, {.parts = 3}); }
TEST(GgufModel, SoDoThoseOfOtherStoragesAndTiedEmbeddings) {
  expect_equal_bits({.dense_storage = "F16", .tied = true, .seed = 33});
  expect_equal_bits({.dense_storage = "F32", .yarn = false, .seed = 34});
}
TEST(GgufModel, SoDoThoseWithManyExpertsAndWideHeads) {
  expect_equal_bits({.hidden = 96, .intermediate = 64, .head_dim = 64, .experts = 8, .experts_per_token = 4, .seed = 35});
}

// Their sums run in another order than over safetensors' input-major experts.
TEST(GgufModel, ExpertsOf16BitsAgreeWithTheTwin) {
  for (const char* storage : {"BF16", "F16", "F32"}) {
    const RandomCheckpoint checkpoint({.experts_storage = storage, .seed = 36});
    TemporaryDirectory directory;
    const auto file = checkpoint.write_gguf(directory.path());
    const auto tokens = checkpoint.random_tokens(60, 3);
    const auto model = load(file, "default");
    EXPECT_EQ(model->arithmetic(), "f32");
    EXPECT_LT(rms(logits_of(*model, tokens), checkpoint.logits(tokens)), 1e-5) << storage;
  }
}

// Numbers that Q8_0 keeps: reading it adds no error, and int8, the default there, keeps its bits.
TEST(GgufModel, Q8_0IsReadExactlyAndKeptInInt8) {
  const CheckpointOptions options{.dense_storage = "F32", .q8_0_grid = true, .seed = 37};
  expect_equal_bits(options, {.dense = "Q8_0"});
  const RandomCheckpoint checkpoint(options);
  TemporaryDirectory directory;
  const auto model = load(checkpoint.write_gguf(directory.path(), {.dense = "Q8_0"}), "default");
  EXPECT_EQ(model->arithmetic(), "int8");
  const auto tokens = checkpoint.random_tokens(90, 4);
  // What is left is the error of activations of 15 and 8 bits.
  EXPECT_LT(typical_rms(logits_of(*model, tokens), checkpoint.logits(tokens), tokens.size()), 0.03);
}

TEST(GgufModel, YarnIsNotRoundedUnlessAskedFor) {
  const RandomCheckpoint exact({.truncate = false, .seed = 38}), rounded({.truncate = true, .seed = 38});
  TemporaryDirectory directory;
  const auto file = exact.write_gguf(directory.path());
  const auto tokens = exact.random_tokens(60, 4);
  EXPECT_LT(rms(logits_of(*load(file, "f32"), tokens), exact.logits(tokens)), 1e-5);
  auto model = Model::load(file, {.threads = 1, .yarn_truncate = true});
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_LT(rms(logits_of(**model, tokens), rounded.logits(tokens)), 1e-5);
  EXPECT_GT(rms(logits_of(**model, tokens), exact.logits(tokens)), 1e-5);
}

TEST(GgufModel, PackedWeightsOfSeveralFilesLieSideBySide) {
  const RandomCheckpoint one({.seed = 39}), two({.seed = 40});
  TemporaryDirectory directory;
  const auto a = one.write_gguf(directory.path(), {}, "a"), b = two.write_gguf(directory.path(), {}, "b");
  const auto tokens = one.random_tokens(20, 1);
  EXPECT_THAT(Model::load(directory.path()).error().message, HasSubstr("several GGUF files; name one of them: a.gguf, b.gguf"));
  for (int round = 0; round < 2; ++round) {
    int packed = 0;
    auto how = model_options("int10", 1);
    how->progress = [&](std::uint64_t, std::uint64_t) { ++packed; };
    for (const auto& [file, checkpoint] : {std::pair(a, &one), {b, &two}}) {
      auto model = Model::load(file, *how);
      ASSERT_TRUE(model) << model.error().message;
      EXPECT_LT(typical_rms(logits_of(**model, tokens), checkpoint->logits(tokens), tokens.size()), 0.05);
    }
    EXPECT_EQ(packed > 0, round == 0);
  }
}

// Damage anywhere, weights included (NaN, infinities): an error, or logits of some kind.
TEST(GgufModel, DamagedFilesNeverCrashLoadingOrTheFirstTokens) {
  const RandomCheckpoint checkpoint({.layers = 2, .hidden = 32, .vocab = 32, .seed = 42});
  TemporaryDirectory directory;
  const std::string valid = checkpoint.gguf({}).front();
  const std::size_t header = valid.find("blk.1.ffn_down_exps.weight") + 100;
  Prng prng(13);
  int loaded = 0;
  for (int round = 0; round < 200; ++round) {
    const fs::path path = directory.path() / "m.gguf";
    testing::write_bytes(path, testing::mutated(valid, prng, round % 2 == 0 ? header : valid.size()));
    auto how = model_options(round % 4 < 2 ? "f32" : "default", 1);
    how->pack.cache = directory.path() / "cache";
    auto model = Model::load(path, *how);
    if (!model) {
      EXPECT_THAT(model.error().message, HasSubstr("m.gguf"));
      continue;
    }
    ++loaded;
    KvCache kv((*model)->config(), (*model)->kv_type());
    const auto logits = (*model)->forward(std::vector<TokenId>{1, 2, 3}, kv);
    EXPECT_TRUE(logits || logits.error().code == Code::kInvalid) << logits.error().message;
    fs::remove_all(directory.path() / "cache");
  }
  EXPECT_GT(loaded, 20);
}

TEST(GgufModel, WhatDoesNotFitTogetherIsRefusedByName) {
  const RandomCheckpoint checkpoint({.seed = 41});
  TemporaryDirectory directory;
  const auto error = [&](const fs::path& path) {
    const auto model = Model::load(path);
    return model ? std::string("accepted") : model.error().message;
  };
  EXPECT_THAT(error(directory.path()), HasSubstr("holds no model: neither model.safetensors"));
  EXPECT_THAT(error(directory.path() / "nowhere"), HasSubstr("does not exist; a model is a directory"));
  std::ofstream(directory.path() / "model.bin") << "x";
  EXPECT_THAT(error(directory.path() / "model.bin"), HasSubstr("neither a directory nor a .gguf file"));
  const auto file = checkpoint.write_gguf(directory.path(), {.parts = 2});
  EXPECT_EQ(error(file), "accepted");
  fs::remove(directory.path() / "model-00002-of-00002.gguf");
  EXPECT_THAT(error(file), HasSubstr("model-00002-of-00002.gguf is missing"));
  fs::copy_file(file, directory.path() / "model-00002-of-00002.gguf");
  EXPECT_THAT(error(file), HasSubstr("split.no and split.count say part 1 of 2; the name says 2 of 2"));
}

}  // namespace
}  // namespace capstan::engine
