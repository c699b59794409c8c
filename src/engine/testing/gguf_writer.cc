// Numbers are appended as they lie in memory: little-endian, as the format wants them.
#include "engine/testing/gguf_writer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>

#include "base/assert.h"

namespace capstan::engine::testing {
namespace {

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_string(std::string& out, std::string_view text) {
  put<std::uint64_t>(out, text.size());
  out += text;
}

float number_at(const StoredTensor& tensor, std::size_t index) {
  std::uint16_t half = 0;
  float value = 0;
  if (tensor.dtype == "F32") {
    std::memcpy(&value, tensor.bytes.data() + index * 4, 4);
    return value;
  }
  std::memcpy(&half, tensor.bytes.data() + index * 2, 2);
  if (tensor.dtype == "BF16") return std::bit_cast<float>(static_cast<std::uint32_t>(half) << 16);
  CAPSTAN_ASSERT(tensor.dtype == "F16");
  _Float16 small;
  std::memcpy(&small, &half, 2);
  return static_cast<float>(small);
}

struct Encoded {
  std::uint32_t type;
  std::string bytes;
};

// Numbers `index(0)`, `index(1)`, … of a tensor.
using Order = std::function<std::size_t(std::size_t)>;

Encoded encode(const StoredTensor& tensor, std::size_t count, const Order& index, const std::string& as) {
  std::string out;
  if (as == "F32") {
    for (std::size_t i = 0; i < count; ++i) put(out, number_at(tensor, index(i)));
    return {kGgufF32, out};
  }
  if (as == "Q8_0") {
    CAPSTAN_ASSERT(count % 32 == 0);
    for (std::size_t i = 0; i < count; i += 32) {
      float most = 0;
      for (std::size_t j = 0; j < 32; ++j) most = std::max(most, std::fabs(number_at(tensor, index(i + j))));
      put(out, static_cast<_Float16>(most / 127));
      for (std::size_t j = 0; j < 32; ++j)
        put(out, static_cast<std::int8_t>(most > 0 ? std::lround(number_at(tensor, index(i + j)) * (127 / most)) : 0));
    }
    return {kGgufQ8_0, out};
  }
  const std::size_t size = tensor.dtype == "F32" ? 4 : 2;
  for (std::size_t i = 0; i < count; ++i) out.append(tensor.bytes.substr(index(i) * size, size));
  return {tensor.dtype == "F32" ? kGgufF32 : tensor.dtype == "F16" ? kGgufF16 : kGgufBf16, out};
}

std::size_t size_of(const StoredTensor& tensor) {
  std::size_t count = 1;
  for (const std::uint64_t size : tensor.shape) count *= size;
  return count;
}

class Exporter {
 public:
  Exporter(const std::map<std::string, StoredTensor>& tensors, const GgufExport& how) : tensors_(tensors), how_(how) {}

  std::vector<GgufBuilder> files;

  void all(int layers) {
    files.resize(static_cast<std::size_t>(how_.parts));
    matrix("model.embed_tokens.weight", "token_embd.weight");
    if (tensors_.contains("lm_head.weight")) matrix("lm_head.weight", "output.weight");
    vector("model.norm.weight", "output_norm.weight");
    for (int i = 0; i < layers; ++i) layer("model.layers." + std::to_string(i) + ".", "blk." + std::to_string(i) + ".");
  }

 private:
  void layer(const std::string& from, const std::string& to) {
    vector(from + "input_layernorm.weight", to + "attn_norm.weight");
    vector(from + "post_attention_layernorm.weight", to + "post_attention_norm.weight");
    vector(from + "self_attn.sinks", to + "attn_sinks.weight");
    for (const auto& [hf, gg] : {std::pair("q_proj", "attn_q"), {"k_proj", "attn_k"}, {"v_proj", "attn_v"},
                                 {"o_proj", "attn_output"}}) {
      matrix(from + "self_attn." + hf + ".weight", to + gg + ".weight");
      vector(from + "self_attn." + hf + ".bias", to + gg + ".bias");
    }
    vector(from + "mlp.router.weight", to + "ffn_gate_inp.weight");
    vector(from + "mlp.router.bias", to + "ffn_gate_inp.bias");
    const std::string mlp = from + "mlp.experts.";
    bias(mlp + "gate_up_proj_bias", to + "ffn_gate_exps.bias", 0, 2);
    bias(mlp + "gate_up_proj_bias", to + "ffn_up_exps.bias", 1, 2);
    bias(mlp + "down_proj_bias", to + "ffn_down_exps.bias", 0, 1);
    experts(mlp + "gate_up_proj", to + "ffn_gate_exps.weight", 0, 2);
    experts(mlp + "gate_up_proj", to + "ffn_up_exps.weight", 1, 2);
    experts(mlp + "down_proj", to + "ffn_down_exps.weight", 0, 1);
  }

  void add(const std::string& name, const std::vector<std::uint64_t>& shape, Encoded encoded) {
    files[next_++ % files.size()].tensor(name, shape, encoded.type, std::move(encoded.bytes));
  }
  void matrix(const std::string& from, const std::string& to) {
    const StoredTensor& tensor = tensors_.at(from);
    add(to, tensor.shape, encode(tensor, size_of(tensor), std::identity(), how_.dense));
  }
  void vector(const std::string& from, const std::string& to) {
    const StoredTensor& tensor = tensors_.at(from);
    add(to, tensor.shape, encode(tensor, size_of(tensor), std::identity(), "F32"));
  }
  // Every `step`-th output from `first` on.
  void bias(const std::string& from, const std::string& to, std::size_t first, std::size_t step) {
    const StoredTensor& tensor = tensors_.at(from);
    add(to, {tensor.shape[0], tensor.shape[1] / step},
        encode(tensor, size_of(tensor) / step, [=](std::size_t i) { return i * step + first; }, "F32"));
  }
  void experts(const std::string& from, const std::string& to, std::size_t first, std::size_t step) {
    if (tensors_.contains(from)) {  // [experts, inputs, outputs]
      const StoredTensor& tensor = tensors_.at(from);
      const std::size_t inputs = tensor.shape[1], outputs = tensor.shape[2], rows = outputs / step;
      const auto index = [=](std::size_t i) {
        const std::size_t expert = i / (rows * inputs), row = i / inputs % rows, input = i % inputs;
        return (expert * inputs + input) * outputs + row * step + first;
      };
      return add(to, {tensor.shape[0], rows, inputs}, encode(tensor, size_of(tensor) / step, index, ""));
    }
    const StoredTensor& blocks = tensors_.at(from + "_blocks");
    const StoredTensor& scales = tensors_.at(from + "_scales");
    const std::size_t rows = blocks.shape[1] / step, per_row = blocks.shape[2];
    std::string out;
    for (std::size_t row = 0; row < blocks.shape[0] * rows; ++row) {
      for (std::size_t block = 0; block < per_row; ++block) {
        const std::size_t at = (row * step + first) * per_row + block;
        out.push_back(scales.bytes[at]);
        const auto nibble = [&](std::size_t i) {
          const auto byte = static_cast<std::uint8_t>(blocks.bytes[at * 16 + i / 2]);
          return i % 2 == 0 ? byte & 15 : byte >> 4;
        };
        for (std::size_t i = 0; i < 16; ++i) out.push_back(static_cast<char>(nibble(i) | nibble(i + 16) << 4));
      }
    }
    add(to, {blocks.shape[0], rows, per_row * 32}, {kGgufMxfp4, std::move(out)});
  }

  const std::map<std::string, StoredTensor>& tensors_;
  const GgufExport& how_;
  std::size_t next_ = 0;
};

void add_config(const Json& config, GgufBuilder& file) {
  const auto u32 = [&](std::string_view field, std::string_view key) {
    file.u32("gpt-oss." + std::string(key), static_cast<std::uint32_t>(*config.get_int(field)));
  };
  file.string("general.architecture", "gpt-oss");
  u32("num_hidden_layers", "block_count");
  u32("max_position_embeddings", "context_length");
  u32("hidden_size", "embedding_length");
  u32("intermediate_size", "feed_forward_length");
  u32("intermediate_size", "expert_feed_forward_length");
  u32("num_attention_heads", "attention.head_count");
  u32("num_key_value_heads", "attention.head_count_kv");
  u32("head_dim", "attention.key_length");
  u32("head_dim", "attention.value_length");
  u32("sliding_window", "attention.sliding_window");
  u32("num_local_experts", "expert_count");
  u32("num_experts_per_tok", "expert_used_count");
  file.f32("gpt-oss.attention.layer_norm_rms_epsilon", static_cast<float>(*config.get_double("rms_norm_eps")));
  file.f32("gpt-oss.rope.freq_base", static_cast<float>(*config.get_double("rope_theta")));
  if (const Json* rope = config.find("rope_scaling"); rope != nullptr && rope->is_object()) {
    file.string("gpt-oss.rope.scaling.type", "yarn");
    file.f32("gpt-oss.rope.scaling.factor", static_cast<float>(*rope->get_double("factor")));
    file.u32("gpt-oss.rope.scaling.original_context_length",
             static_cast<std::uint32_t>(*rope->get_int("original_max_position_embeddings")));
  }
  if (const auto eos = config.get_int("eos_token_id"))
    file.u32("tokenizer.ggml.eos_token_id", static_cast<std::uint32_t>(*eos));
}

}  // namespace

void GgufBuilder::key(std::string_view name, std::uint32_t type) {
  ++count_;
  put_string(keys_, name);
  put(keys_, type);
}
void GgufBuilder::raw(std::string_view name, std::uint32_t type, std::string_view bytes) {
  key(name, type);
  keys_ += bytes;
}
void GgufBuilder::string(std::string_view name, std::string_view value) {
  key(name, 8);
  put_string(keys_, value);
}
void GgufBuilder::u32(std::string_view name, std::uint32_t value) {
  key(name, 4);
  put(keys_, value);
}
void GgufBuilder::f32(std::string_view name, float value) {
  key(name, 6);
  put(keys_, value);
}
void GgufBuilder::boolean(std::string_view name, bool value) {
  key(name, 7);
  put(keys_, value);
}
void GgufBuilder::strings(std::string_view name, const std::vector<std::string>& values) {
  key(name, 9);
  put<std::uint32_t>(keys_, 8);
  put<std::uint64_t>(keys_, values.size());
  for (const std::string& value : values) put_string(keys_, value);
}
void GgufBuilder::i32s(std::string_view name, const std::vector<std::int32_t>& values) {
  key(name, 9);
  put<std::uint32_t>(keys_, 5);
  put<std::uint64_t>(keys_, values.size());
  for (const std::int32_t value : values) put(keys_, value);
}

void GgufBuilder::tensor(std::string_view name, const std::vector<std::uint64_t>& shape, std::uint32_t type,
                         std::string bytes) {
  Tensor tensor;
  put_string(tensor.head, name);
  put(tensor.head, static_cast<std::uint32_t>(shape.size()));
  for (auto size = shape.rbegin(); size != shape.rend(); ++size) put(tensor.head, *size);
  put(tensor.head, type);
  tensor.bytes = std::move(bytes);
  tensors_.push_back(std::move(tensor));
}

std::string GgufBuilder::build(std::uint64_t alignment) const {
  std::string out = "GGUF";
  put<std::uint32_t>(out, 3);
  put<std::uint64_t>(out, tensors_.size());
  put<std::uint64_t>(out, count_);
  out += keys_;
  const auto padded = [&](std::uint64_t size) { return (size + alignment - 1) / alignment * alignment; };
  std::uint64_t at = 0;
  for (const Tensor& tensor : tensors_) {
    out += tensor.head;
    put(out, at);
    at = padded(at + tensor.bytes.size());
  }
  for (const Tensor& tensor : tensors_) {
    out.resize(padded(out.size()), '\0');
    out += tensor.bytes;
  }
  return out;
}

std::vector<std::string> gguf_of(const Json& config, const std::map<std::string, StoredTensor>& tensors,
                                 const GgufExport& how) {
  Exporter exporter(tensors, how);
  exporter.all(static_cast<int>(*config.get_int("num_hidden_layers")));
  std::vector<std::string> out;
  for (std::size_t i = 0; i < exporter.files.size(); ++i) {
    GgufBuilder file = i == 0 ? how.start : GgufBuilder();
    if (i == 0) add_config(config, file);
    if (how.parts > 1) {
      file.u32("split.no", static_cast<std::uint32_t>(i));
      file.u32("split.count", static_cast<std::uint32_t>(how.parts));
    }
    file.append_tensors(exporter.files[i]);
    out.push_back(file.build());
  }
  return out;
}

}  // namespace capstan::engine::testing
