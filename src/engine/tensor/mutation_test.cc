// Goal: whatever is damaged in a checkpoint's files, opening it ends in an error or in a configuration within its bounds
// and views inside the files; never in a crash. Method: thousands of random mutations of valid files (gguf_test.cc has
// those of GGUF).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/model_config.h"
#include "engine/tensor/safetensors.h"
#include "engine/testing/mutate.h"
#include "engine/testing/random_checkpoint.h"

namespace capstan::engine {
namespace {

using testing::RandomCheckpoint;

TEST(Safetensors, RandomMutationsNeverCrashAndNeverLeaveTheFile) {
  const std::string valid =
      RandomCheckpoint({.layers = 1, .hidden = 32, .experts = 1, .experts_per_token = 1, .vocab = 2}).safetensors();
  Prng prng(9);
  int accepted = 0;
  for (int round = 0; round < 6000; ++round) {
    const std::string bytes = testing::mutated(valid, prng, 2200);
    const auto tensors =
        parse_safetensors({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}, "x.safetensors");
    if (!tensors) {
      EXPECT_THAT(tensors.error().message, ::testing::HasSubstr("x.safetensors"));
      continue;
    }
    ++accepted;
    for (const auto& [name, view] : *tensors) {
      EXPECT_GE(reinterpret_cast<const char*>(view.bytes.data()), bytes.data());
      EXPECT_LE(reinterpret_cast<const char*>(view.bytes.data() + view.bytes.size()), bytes.data() + bytes.size());
    }
  }
  EXPECT_GT(accepted, 0);
  EXPECT_LT(accepted, 6000);
}

TEST(ModelConfig, RandomMutationsGiveAnErrorOrNumbersWithinBounds) {
  const std::string valid = RandomCheckpoint({}).config_json();
  Prng prng(11);
  int accepted = 0, refused = 0;
  for (int round = 0; round < 6000; ++round) {
    const auto json = Json::parse(testing::mutated(valid, prng, valid.size()));
    if (!json) continue;
    const auto config = parse_model_config(*json);
    if (!config) {
      ++refused;
      continue;
    }
    ++accepted;
    EXPECT_EQ(config->layer_types.size(), static_cast<std::size_t>(config->layers));
    EXPECT_LE(config->layers, kLayersMax);
    EXPECT_LE(config->hidden, kWidthMax);
    EXPECT_LE(config->intermediate, kWidthMax);
    EXPECT_LE(config->experts, kExpertsMax);
    EXPECT_LE(config->vocab, kVocabMax);
    EXPECT_EQ(config->heads % config->kv_heads, 0);
    EXPECT_LE(config->experts_per_token, config->experts);
    const auto rope = rope_frequencies(config->rope, config->head_dim);
    for (const double inverse : rope.inverse) EXPECT_TRUE(inverse >= 0 && inverse <= 1) << inverse;
  }
  EXPECT_GT(accepted, 100);
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace capstan::engine
