// How it works: each tensor of the layout becomes one entry (or two, blocks and scales) whose bytes are made
// when its turn to be written comes, so memory stays at one tensor.
#include "trainer/export.h"

#include <fcntl.h>

#include <cerrno>
#include <cstdio>

#include "base/file.h"
#include "trainer/mxfp4.h"
#include "trainer/safetensors_writer.h"

namespace capstan::trainer {
namespace {

using Bytes = std::vector<std::uint8_t>;

void append_bf16(Bytes& out, float value) {
  const std::uint16_t bits = bf16_of(value);
  out.push_back(static_cast<std::uint8_t>(bits));
  out.push_back(static_cast<std::uint8_t>(bits >> 8));
}

Bytes bf16_bytes(std::span<const float> values) {
  Bytes out;
  out.reserve(values.size() * 2);
  for (const float value : values) append_bf16(out, value);
  return out;
}

// [E, rows, columns] to [E, columns, rows].
Bytes bf16_transposed(std::span<const float> values, std::size_t rows, std::size_t columns) {
  Bytes out;
  out.reserve(values.size() * 2);
  for (std::size_t expert = 0; expert < values.size(); expert += rows * columns) {
    for (std::size_t column = 0; column < columns; ++column) {
      for (std::size_t row = 0; row < rows; ++row) append_bf16(out, values[expert + row * columns + column]);
    }
  }
  return out;
}

Bytes mxfp4_part(std::span<const float> values, bool scales) {
  Bytes out;
  for (std::size_t at = 0; at < values.size(); at += kMxfp4BlockValues) {
    const Mxfp4Block block =
        quantize_mxfp4(std::span<const float, kMxfp4BlockValues>(values.data() + at, kMxfp4BlockValues));
    if (scales) {
      out.push_back(block.scale);
    } else {
      out.insert(out.end(), block.nibbles.begin(), block.nibbles.end());
    }
  }
  return out;
}

bool is_expert_matrix(const ParameterInfo& info) {
  return info.name.ends_with("mlp.experts.gate_up_proj") || info.name.ends_with("mlp.experts.down_proj");
}

void append_expert_entries(std::vector<SafetensorsEntry>& entries, const ParameterInfo& info,
                           std::span<const float> values, ExportType type) {
  const auto experts = static_cast<std::uint64_t>(info.shape[0]);
  const auto rows = static_cast<std::uint64_t>(info.shape[1]);
  const auto columns = static_cast<std::uint64_t>(info.shape[2]);
  if (type == ExportType::kBf16) {
    entries.push_back({info.name, TensorType::kBf16, {experts, columns, rows}, [=] {
                         return bf16_transposed(values, rows, columns);
                       }});
    return;
  }
  const std::uint64_t blocks = columns / kMxfp4BlockValues;
  entries.push_back({info.name + "_blocks", TensorType::kU8, {experts, rows, blocks, kMxfp4BlockBytes}, [=] {
                       return mxfp4_part(values, false);
                     }});
  entries.push_back({info.name + "_scales", TensorType::kU8, {experts, rows, blocks}, [=] {
                       return mxfp4_part(values, true);
                     }});
}

std::vector<SafetensorsEntry> entries_of(const ParameterLayout& layout, std::span<const float> parameters,
                                         ExportType type) {
  std::vector<SafetensorsEntry> entries;
  for (const ParameterInfo& info : layout.all()) {
    const std::span<const float> values = parameters.subspan(info.offset, info.count);
    if (is_expert_matrix(info)) {
      append_expert_entries(entries, info, values, type);
      continue;
    }
    const std::vector<std::uint64_t> shape(info.shape.begin(), info.shape.end());
    entries.push_back({info.name, TensorType::kBf16, shape, [=] { return bf16_bytes(values); }});
  }
  return entries;
}

Result<void> write_directory(const std::filesystem::path& directory, const TrainConfig& config,
                             std::span<const float> parameters, const DataSource* source) {
  CAPSTAN_CHECK(make_directories(directory));
  const ParameterLayout layout(config.model);
  CAPSTAN_CHECK(
      write_safetensors(directory / "model.safetensors", entries_of(layout, parameters, config.export_type)));
  CAPSTAN_CHECK(write_file_atomic(directory / "config.json", model_config_json(config).pretty() + "\n"));
  if (source != nullptr) CAPSTAN_CHECK(source->write_tokenizer(directory));
  return {};
}

// A folder is replaced only if it is empty or an earlier export: a mistyped --out must not cost anybody a
// home.
Result<void> check_replaceable(const std::filesystem::path& directory) {
  std::error_code error;
  if (!std::filesystem::exists(directory, error)) return {};
  if (std::filesystem::is_directory(directory, error) &&
      (std::filesystem::is_empty(directory, error) ||
       std::filesystem::exists(directory / "model.safetensors", error))) {
    return {};
  }
  return fail(Code::kConflict, "{} exists and is no exported model; choose another folder",
              directory.string());
}

// Exchanges the two in one step where the file system can, so that a reader never finds the name missing.
Result<void> replace_directory(const std::filesystem::path& fresh, const std::filesystem::path& directory) {
  std::error_code error;
  if (::renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, directory.c_str(), RENAME_EXCHANGE) == 0) {
    std::filesystem::remove_all(fresh, error);
    return {};
  }
  std::filesystem::remove_all(directory, error);
  std::filesystem::rename(fresh, directory, error);
  if (error) return fail_errno(fmt::format("cannot rename {}", fresh.string()), error.value());
  return {};
}

}  // namespace

Json model_config_json(const TrainConfig& config) {
  const ModelConfig& m = config.model;
  Json layer_types = Json::array();
  for (int layer = 0; layer < m.layers; ++layer) {
    layer_types.push_back(layer % 2 == 0 ? "sliding_attention" : "full_attention");
  }
  Json rope_scaling;
  if (m.yarn_factor > 0) {
    rope_scaling = Json::object({{"rope_type", "yarn"},
                                 {"factor", m.yarn_factor},
                                 {"beta_fast", m.beta_fast},
                                 {"beta_slow", m.beta_slow},
                                 {"original_max_position_embeddings", m.original_context},
                                 {"truncate", m.yarn_truncate}});
  }
  Json json = Json::object({{"architectures", Json::array({"GptOssForCausalLM"})},
                            {"model_type", "gpt_oss"},
                            {"attention_bias", true},
                            {"attention_dropout", 0.0},
                            {"experts_per_token", m.experts_per_token},
                            {"head_dim", m.head_dim},
                            {"hidden_act", "silu"},
                            {"hidden_size", m.hidden},
                            {"initial_context_length", m.original_context},
                            {"initializer_range", 0.02},
                            {"intermediate_size", m.intermediate},
                            {"layer_types", std::move(layer_types)},
                            {"max_position_embeddings", m.context_max},
                            {"num_attention_heads", m.heads},
                            {"num_experts_per_tok", m.experts_per_token},
                            {"num_hidden_layers", m.layers},
                            {"num_key_value_heads", m.kv_heads},
                            {"num_local_experts", m.experts},
                            {"output_router_logits", false},
                            {"rms_norm_eps", m.rms_eps},
                            {"rope_scaling", std::move(rope_scaling)},
                            {"rope_theta", m.rope_theta},
                            {"router_aux_loss_coef", m.aux_loss_coefficient},
                            {"sliding_window", m.sliding_window},
                            {"swiglu_limit", m.swiglu_limit},
                            {"tie_word_embeddings", false},
                            {"torch_dtype", "bfloat16"},
                            {"use_cache", true},
                            {"vocab_size", m.vocab}});
  if (config.eos_token_id >= 0) json["eos_token_id"] = config.eos_token_id;
  if (config.pad_token_id >= 0) json["pad_token_id"] = config.pad_token_id;
  if (config.export_type == ExportType::kMxfp4) {
    json["quantization_config"] = Json::object(
        {{"quant_method", "mxfp4"},
         {"modules_to_not_convert", Json::array({"model.layers.*.self_attn", "model.layers.*.mlp.router",
                                                 "model.embed_tokens", "lm_head"})}});
  }
  return json;
}

Result<void> export_model(const std::filesystem::path& directory, const TrainConfig& config,
                          std::span<const float> parameters, const DataSource* source) {
  if (config.export_type == ExportType::kMxfp4 &&
      (config.model.hidden % 32 != 0 || config.model.intermediate % 32 != 0)) {
    return fail(Code::kInvalid, "mxfp4 needs hidden ({}) and intermediate ({}) in multiples of 32",
                config.model.hidden, config.model.intermediate);
  }
  CAPSTAN_CHECK(check_replaceable(directory));
  const std::filesystem::path unfinished = directory.string() + ".tmp";
  std::error_code error;
  std::filesystem::remove_all(unfinished, error);
  CAPSTAN_CHECK(write_directory(unfinished, config, parameters, source));
  return replace_directory(unfinished, directory);
}

}  // namespace capstan::trainer
