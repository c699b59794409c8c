// Goal: valid checkpoints read as written; every hostile header and every wrong field is refused with a
// message that says what is wrong. Method: files built byte by byte and tables of wrong ones (mutation_test.cc has the
// random ones).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "engine/tensor/model_config.h"
#include "engine/tensor/safetensors.h"
#include "engine/testing/random_checkpoint.h"

namespace capstan::engine {
namespace {

using ::testing::HasSubstr;

std::string file_of(std::string_view header, std::size_t data_bytes) {
  std::string file;
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<char>(header.size() >> (8 * i)));
  return file + std::string(header) + std::string(data_bytes, '\1');
}

Result<TensorMap> parse(std::string_view file) {
  return parse_safetensors({reinterpret_cast<const std::uint8_t*>(file.data()), file.size()},
                           "x.safetensors");
}

TEST(Safetensors, AValidFileReadsAsWritten) {
  const auto file = file_of(R"({"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},
      "__metadata__":{"format":"pt"},"b":{"dtype":"U8","shape":[],"data_offsets":[12,13]}} )",
                            13);
  const auto tensors = parse(file);
  ASSERT_TRUE(tensors.has_value()) << tensors.error().message;
  EXPECT_EQ(tensors->size(), 2u);
  const TensorView& a = tensors->at("a");
  EXPECT_EQ(a.dtype, DType::kBf16);
  EXPECT_EQ(a.shape_text(), "[2, 3]");
  EXPECT_EQ(a.elements(), 6u);
  EXPECT_EQ(reinterpret_cast<const char*>(a.bytes.data()), file.data() + file.size() - 13);
  EXPECT_EQ(tensors->at("b").bytes.size(), 1u);
}

TEST(Safetensors, HostileHeadersAreRefusedByName) {
  const auto entry = [](std::string_view body) { return fmt::format(R"({{"a":{{{}}}}})", body); };
  const struct {
    std::string file;
    std::string_view message;
  } cases[] = {
      {"abc", "too few"},
      {std::string(8, '\xff') + "{}", "the header's length"},
      {file_of("{", 0).substr(0, 8), "the header's length"},
      {file_of("not json", 0), "is no JSON"},
      {file_of("[]", 0), "must be a JSON object"},
      {file_of(R"({"a":7})", 0), "tensor 'a' must be a JSON object"},
      {file_of(entry(R"("shape":[1],"data_offsets":[0,1])"), 1), "no dtype"},
      {file_of(entry(R"("dtype":"F31","shape":[1],"data_offsets":[0,4])"), 4), "unknown dtype 'F31'"},
      {file_of(entry(R"("dtype":"U8","data_offsets":[0,1])"), 1), "shape must be"},
      {file_of(entry(R"("dtype":"U8","shape":[-1],"data_offsets":[0,1])"), 1), "whole numbers >= 0"},
      {file_of(entry(R"("dtype":"U8","shape":[1.5],"data_offsets":[0,1])"), 1), "whole numbers >= 0"},
      {file_of(entry(R"("dtype":"U8","shape":[1],"data_offsets":[0])"), 1), "[begin, end]"},
      {file_of(entry(R"("dtype":"U8","shape":[1],"data_offsets":[1,0])"), 1), "leave the file's"},
      {file_of(entry(R"("dtype":"U8","shape":[9],"data_offsets":[0,9])"), 8), "cut short"},
      {file_of(entry(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), 4), "needs 8 bytes"},
      {file_of(entry(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0])"), 0),
       "overflows"},
      {file_of(entry(R"("dtype":"U8","shape":[1],"data_offsets":[0,1])"), 2), "belong to no tensor"},
      {file_of(
           R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
           R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
           3),
       "overlaps"},
  };
  for (const auto& c : cases) {
    const auto result = parse(c.file);
    ASSERT_FALSE(result.has_value()) << c.message;
    EXPECT_EQ(result.error().code, Code::kCorrupt);
    EXPECT_THAT(result.error().message, HasSubstr(std::string(c.message)));
    EXPECT_THAT(result.error().message, HasSubstr("x.safetensors"));
  }
}

TEST(Safetensors, AnIndexMayOnlyNameShardsBesideIt) {
  testing::TemporaryDirectory directory;
  EXPECT_THAT(Safetensors::open_directory(directory.path()).error().message, HasSubstr("holds neither"));
  const auto index = directory.path() / "model.safetensors.index.json";
  std::ofstream(index) << R"({"weight_map":{"a":"../../etc/passwd"}})";
  EXPECT_THAT(Safetensors::open_directory(directory.path()).error().message,
              HasSubstr("file of the same directory"));
  std::ofstream(index) << R"({"weight_map":{"a":"one.safetensors"}})";
  EXPECT_EQ(Safetensors::open_directory(directory.path()).error().code, Code::kNotFound);
  std::ofstream(directory.path() / "one.safetensors") << file_of("{}", 0);
  EXPECT_THAT(Safetensors::open_directory(directory.path()).error().message,
              HasSubstr("'a' is not in one.safetensors"));
}

Json valid_config() { return *Json::parse(testing::RandomCheckpoint({}).config_json()); }

TEST(ModelConfig, FieldsAndDefaultsAreRead) {
  Json json = valid_config();
  json.erase("num_experts_per_tok");
  json["experts_per_token"] = 3;
  json.erase("layer_types");
  json["eos_token_id"] = Json::array({5, 6});
  const auto config = parse_model_config(json);
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->experts_per_token, 3);
  EXPECT_EQ(config->layer_types[0], LayerType::kSlidingAttention);
  EXPECT_EQ(config->layer_types[1], LayerType::kFullAttention);
  EXPECT_EQ(config->eos_token_ids, (std::vector<TokenId>{5, 6}));
  EXPECT_TRUE(config->rope.yarn);
  EXPECT_FALSE(config->rope.scaling.truncate);
}

TEST(ModelConfig, WrongFieldsAreNamedWithWhatWouldBeRight) {
  const struct {
    std::string_view field;
    Json value;
    std::string_view message;
  } cases[] = {
      {"hidden_size", nullptr, "hidden_size is missing"},
      {"hidden_size", 0, "hidden_size must be a whole number in 1.."},
      {"hidden_size", "64", "hidden_size must be a whole number"},
      {"head_dim", 48, "head_dim must be a multiple of 32"},
      {"num_key_value_heads", 3, "must divide num_attention_heads"},
      {"num_experts_per_tok", 9, "exceeds num_local_experts"},
      {"layer_types", Json::array({"full_attention"}), "num_hidden_layers (3) names"},
      {"layer_types", Json::array({"full_attention", "x", "x"}), "layer_types[1] must be"},
      {"rope_scaling", Json::object({{"rope_type", "linear"}}), "rope_type 'linear'"},
      {"rope_scaling", Json::object({{"rope_type", "yarn"}}), "rope_scaling.factor is missing"},
      {"model_type", "llama", "model_type 'llama' is not supported"},
      {"tie_word_embeddings", 1, "must be true or false"},
      {"eos_token_id", "end", "eos_token_id must be a token id"},
  };
  for (const auto& c : cases) {
    Json json = valid_config();
    json[c.field] = c.value;
    const auto config = parse_model_config(json);
    ASSERT_FALSE(config.has_value()) << c.message;
    EXPECT_THAT(config.error().message, HasSubstr(std::string(c.message)));
  }
}

TEST(ModelConfig, GenerationConfigGivesTheEndTokens) {
  testing::TemporaryDirectory directory;
  EXPECT_THAT(read_model_config(directory.path()).error().message, HasSubstr("no config.json"));
  testing::RandomCheckpoint({}).write(directory.path());
  EXPECT_EQ(read_model_config(directory.path())->eos_token_ids, (std::vector<TokenId>{49}));
  std::ofstream(directory.path() / "generation_config.json") << R"({"eos_token_id":[3,4]})";
  EXPECT_EQ(read_model_config(directory.path())->eos_token_ids, (std::vector<TokenId>{3, 4}));
}

// The published values for gpt-oss (head_dim 64, theta 150000, factor 32, truncate false).
TEST(ModelConfig, YarnFrequenciesAreThoseOfThePublishedModel) {
  RopeConfig rope{.theta = 150000, .yarn = true, .scaling = {.factor = 32, .truncate = false}};
  const auto exact = rope_frequencies(rope, 64);
  EXPECT_NEAR(exact.concentration, 1.3465735903, 1e-9);
  EXPECT_NEAR(exact.inverse[8], .050813275, 1e-9);
  EXPECT_NEAR(exact.inverse[9], .031705696, 1e-9);
  EXPECT_NEAR(exact.inverse[12], .006794959, 1e-9);
  EXPECT_NEAR(exact.inverse[16], 4.5648392e-4, 1e-11);
  EXPECT_NEAR(exact.inverse[17], 1.2931870e-4, 1e-11);
  EXPECT_NEAR(exact.inverse[18], 3.8308812e-5, 1e-12);
  rope.scaling.truncate = true;
  EXPECT_GT(std::fabs(rope_frequencies(rope, 64).inverse[16] - exact.inverse[16]), 1e-6);
  const auto plain = rope_frequencies({.theta = 150000}, 64);
  EXPECT_EQ(plain.concentration, 1);
  EXPECT_NEAR(plain.inverse[16], std::pow(150000.0, -0.5), 1e-12);
}

}  // namespace
}  // namespace capstan::engine
