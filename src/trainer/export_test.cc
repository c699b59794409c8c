// Goal: what is exported is what was trained, under the names, types, shapes and orientation that readers of
// gpt-oss checkpoints expect. Method: the files are parsed again and every value compared with its parameter.
#include "trainer/export.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "base/file.h"
#include "trainer/mxfp4.h"
#include "trainer/safetensors_writer.h"

namespace capstan::trainer {
namespace {

namespace fs = std::filesystem;

class ExportTest : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = fs::temp_directory_path() / ("capstan-export-" + std::to_string(::getpid()));
    config_.model = {.layers = 2,
                     .hidden = 64,
                     .intermediate = 32,
                     .heads = 4,
                     .kv_heads = 2,
                     .head_dim = 16,
                     .experts = 3,
                     .experts_per_token = 2,
                     .vocab = 50};
    config_.eos_token_id = 7;
  }
  void TearDown() override { fs::remove_all(directory_); }

  void write(ExportType type) {
    config_.export_type = type;
    const ParameterLayout layout(config_.model);
    parameters_.resize(layout.size());
    initialise(layout, 3, parameters_);
    const Result<void> exported = export_model(directory_, config_, parameters_, nullptr);
    ASSERT_TRUE(exported) << exported.error().message;
    bytes_ = read_file(directory_ / "model.safetensors").value();
    std::uint64_t length = 0;
    std::memcpy(&length, bytes_.data(), 8);
    header_ = Json::parse(std::string_view(bytes_).substr(8, length)).value();
    data_ = bytes_.data() + 8 + length;
  }
  std::string shape_of(const std::string& name) {
    const Json* entry = header_.find(name);
    return entry == nullptr ? "absent" : *entry->get_string("dtype") + entry->find("shape")->dump();
  }
  const std::uint8_t* tensor(const std::string& name) {
    const std::int64_t begin = header_.find(name)->find("data_offsets")->items()[0].as_int();
    return reinterpret_cast<const std::uint8_t*>(data_ + begin);
  }
  float bf16_at(const std::string& name, std::size_t index) {
    const std::uint8_t* at = tensor(name) + 2 * index;
    return std::bit_cast<float>(static_cast<std::uint32_t>(at[0] | at[1] << 8) << 16);
  }
  float rounded(float value) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bf16_of(value)) << 16);
  }
  const float* parameter(std::string_view name) {
    return parameters_.data() + ParameterLayout(config_.model).find(name).offset;
  }

  fs::path directory_;
  TrainConfig config_;
  std::vector<float> parameters_;
  std::string bytes_;
  Json header_;
  const char* data_ = nullptr;
};

TEST_F(ExportTest, Bf16HasTheNamesShapesAndInputMajorExpertsOfTransformers) {
  write(ExportType::kBf16);
  EXPECT_EQ(shape_of("model.embed_tokens.weight"), "BF16[50,64]");
  EXPECT_EQ(shape_of("lm_head.weight"), "BF16[50,64]");
  EXPECT_EQ(shape_of("model.norm.weight"), "BF16[64]");
  EXPECT_EQ(shape_of("model.layers.1.self_attn.k_proj.weight"), "BF16[32,64]");
  EXPECT_EQ(shape_of("model.layers.1.self_attn.sinks"), "BF16[4]");
  EXPECT_EQ(shape_of("model.layers.1.mlp.router.weight"), "BF16[3,64]");
  EXPECT_EQ(shape_of("model.layers.1.mlp.experts.gate_up_proj"), "BF16[3,64,64]");
  EXPECT_EQ(shape_of("model.layers.1.mlp.experts.gate_up_proj_bias"), "BF16[3,64]");
  EXPECT_EQ(shape_of("model.layers.1.mlp.experts.down_proj"), "BF16[3,32,64]");
  EXPECT_EQ(header_.size(), 2 * 17 + 3 + 1u);  // tensors and __metadata__
  const ParameterLayout layout(config_.model);
  for (const ParameterInfo& info : layout.all()) {
    const bool expert = info.name.ends_with("up_proj") || info.name.ends_with("down_proj");
    const auto rows = expert ? static_cast<std::size_t>(info.shape[1]) : 1;
    const auto columns = expert ? static_cast<std::size_t>(info.shape[2]) : 1;
    for (std::size_t i = 0; i < info.count; ++i) {
      // Value (expert, row, column) inside the trainer stands at (expert, column, row) in the file.
      const std::size_t expert_at = i / (rows * columns), row = i / columns % rows, column = i % columns;
      const std::size_t at = expert ? (expert_at * columns + column) * rows + row : i;
      ASSERT_EQ(bf16_at(info.name, at), rounded(parameters_[info.offset + i])) << info.name << " " << i;
    }
  }
}

TEST_F(ExportTest, Mxfp4HasOutputMajorBlocksThatDecodeToNearlyTheParameters) {
  write(ExportType::kMxfp4);
  EXPECT_EQ(shape_of("model.layers.0.mlp.experts.gate_up_proj_blocks"), "U8[3,64,2,16]");
  EXPECT_EQ(shape_of("model.layers.0.mlp.experts.gate_up_proj_scales"), "U8[3,64,2]");
  EXPECT_EQ(shape_of("model.layers.0.mlp.experts.down_proj_blocks"), "U8[3,64,1,16]");
  EXPECT_EQ(shape_of("model.layers.0.mlp.experts.gate_up_proj"), "absent");
  EXPECT_EQ(shape_of("model.layers.0.mlp.experts.down_proj_bias"), "BF16[3,64]");
  const std::string name = "model.layers.1.mlp.experts.gate_up_proj";
  const float* trained = parameter(name);
  double squared_error = 0, squared = 0;
  for (std::size_t block = 0; block < 3 * 64 * 2; ++block) {
    Mxfp4Block stored;
    std::memcpy(stored.nibbles.data(), tensor(name + "_blocks") + 16 * block, 16);
    stored.scale = tensor(name + "_scales")[block];
    const auto values = dequantize_mxfp4(stored);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double expected = trained[block * 32 + i];
      squared_error += (values[i] - expected) * (values[i] - expected);
      squared += expected * expected;
    }
  }
  EXPECT_LT(std::sqrt(squared_error / squared), 0.13);  // four bits of a normal distribution
  EXPECT_EQ(model_config_json(config_).find("quantization_config")->get_string("quant_method"), "mxfp4");
}

TEST_F(ExportTest, TheConfigHoldsEveryFieldThatAReaderOfGptOssNeeds) {
  write(ExportType::kBf16);
  const Json json = Json::parse(read_file(directory_ / "config.json").value()).value();
  EXPECT_EQ(json.get_string("model_type"), "gpt_oss");
  EXPECT_EQ(json.get_int("hidden_size"), 64);
  EXPECT_EQ(json.get_int("num_local_experts"), 3);
  EXPECT_EQ(json.get_int("num_experts_per_tok"), 2);
  EXPECT_EQ(json.get_int("eos_token_id"), 7);
  EXPECT_EQ(json.find("layer_types")->dump(), R"(["sliding_attention","full_attention"])");
  EXPECT_TRUE(json.find("rope_scaling")->is_null());
  EXPECT_FALSE(json.contains("quantization_config"));
  config_.model.yarn_factor = 8;
  EXPECT_EQ(model_config_json(config_).find("rope_scaling")->get_string("rope_type"), "yarn");
}

TEST_F(ExportTest, AnExportReplacesTheOlderOneAsAWholeAndRefusesOddShapes) {
  write(ExportType::kBf16);
  ASSERT_TRUE(write_file_atomic(directory_ / "left-over", "x"));
  write(ExportType::kMxfp4);
  EXPECT_FALSE(fs::exists(directory_ / "left-over"));
  fs::remove(directory_ / "model.safetensors");
  EXPECT_EQ(export_model(directory_, config_, parameters_, nullptr).error().code, Code::kConflict);
  EXPECT_TRUE(fs::exists(directory_ / "config.json"));  // somebody's folder is left alone
  config_.model.hidden = 48;
  EXPECT_EQ(export_model(directory_, config_, parameters_, nullptr).error().code, Code::kInvalid);
}

}  // namespace
}  // namespace capstan::trainer
