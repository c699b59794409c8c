// One Binder walks the roles; every tensor is looked up by name and must have the shape that config.json
// implies.
#include "engine/model/weights.h"

#include <cstring>
#include <optional>
#include <string>

namespace capstan::engine {
namespace {

using Shape = std::vector<std::uint64_t>;

std::string shape_text(const Shape& shape) {
  TensorView view;
  view.shape = shape;
  return view.shape_text();
}

// Of a module's name in Hugging Face's layout (behind "model.layers.N."), llama.cpp's.
constexpr std::pair<std::string_view, std::string_view> kGgufModules[] = {
    {"input_layernorm", "attn_norm"},   {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},     {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"}, {"mlp.router", "ffn_gate_inp"}};

class Binder {
 public:
  explicit Binder(Weights& weights)
      : weights_(weights), config_(weights.checkpoint.config()), gguf_(weights.checkpoint.files().is_gguf()) {}

  Result<void> run() {
    const std::uint64_t vocab = config_.vocab, hidden = config_.hidden;
    CAPSTAN_TRY(weights_.embedding, matrix(gguf_ ? "token_embd.weight" : "model.embed_tokens.weight", vocab, hidden));
    CAPSTAN_TRY(weights_.final_norm, vector(gguf_ ? "output_norm.weight" : "model.norm.weight", {hidden}));
    if (config_.tie_word_embeddings) {
      weights_.head = weights_.embedding;
    } else {
      CAPSTAN_TRY(weights_.head, matrix(gguf_ ? "output.weight" : "lm_head.weight", vocab, hidden));
    }
    weights_.layers.resize(config_.layers);
    for (int i = 0; i < config_.layers; ++i) {
      weights_.layers[i].type = config_.layer_types[i];
      CAPSTAN_CHECK(layer(weights_.layers[i], fmt::format("{}.{}.", gguf_ ? "blk" : "model.layers", i)));
    }
    return {};
  }

 private:
  Result<void> layer(LayerWeights& layer, const std::string& prefix) {
    const std::uint64_t hidden = config_.hidden, q_dim = config_.q_dim(), kv_dim = config_.kv_dim();
    const std::uint64_t experts = config_.experts;
    CAPSTAN_TRY(layer.input_norm, vector(module(prefix, "input_layernorm") + ".weight", {hidden}));
    CAPSTAN_TRY(layer.post_norm, vector(post_norm_name(prefix), {hidden}));
    CAPSTAN_TRY(layer.sinks, vector(prefix + (gguf_ ? "attn_sinks.weight" : "self_attn.sinks"),
                                    {static_cast<std::uint64_t>(config_.heads)}));
    const bool bias = config_.attention_bias;
    CAPSTAN_TRY(layer.q, linear(module(prefix, "self_attn.q_proj"), q_dim, hidden, bias));
    CAPSTAN_TRY(layer.k, linear(module(prefix, "self_attn.k_proj"), kv_dim, hidden, bias));
    CAPSTAN_TRY(layer.v, linear(module(prefix, "self_attn.v_proj"), kv_dim, hidden, bias));
    CAPSTAN_TRY(layer.o, linear(module(prefix, "self_attn.o_proj"), hidden, q_dim, bias));
    CAPSTAN_TRY(layer.router, linear(module(prefix, "mlp.router"), experts, hidden, true));
    if (gguf_) return gguf_experts(layer, prefix);
    const std::string mlp = prefix + "mlp.experts.";
    const std::uint64_t inner = config_.intermediate;
    CAPSTAN_TRY(layer.gate_up, expert_matrices(mlp + "gate_up_proj", 2 * inner, hidden));
    CAPSTAN_TRY(layer.down, expert_matrices(mlp + "down_proj", hidden, inner));
    CAPSTAN_TRY(layer.gate_up_bias, vector(mlp + "gate_up_proj_bias", {experts, 2 * inner}));
    CAPSTAN_TRY(layer.down_bias, vector(mlp + "down_proj_bias", {experts, hidden}));
    return {};
  }

  std::string module(const std::string& prefix, std::string_view name) const {
    if (gguf_) {
      for (const auto& [from, to] : kGgufModules) {
        if (from == name) return fmt::format("{}{}", prefix, to);
      }
    }
    return fmt::format("{}{}", prefix, name);
  }

  // Older GGUF files call it ffn_norm.
  std::string post_norm_name(const std::string& prefix) const {
    if (!gguf_) return prefix + "post_attention_layernorm.weight";
    const std::string name = prefix + "post_attention_norm.weight";
    return find(name) == nullptr && find(prefix + "ffn_norm.weight") != nullptr ? prefix + "ffn_norm.weight" : name;
  }

  const TensorView* find(std::string_view name) const {
    const TensorMap& tensors = weights_.checkpoint.tensors();
    const auto found = tensors.find(name);
    return found == tensors.end() ? nullptr : &found->second;
  }

  // Gate and up have tensors of their own: expert e's rows are met as gate 0, up 0, gate 1, up 1, …
  Result<void> gguf_experts(LayerWeights& layer, const std::string& prefix) {
    const std::uint64_t experts = config_.experts, inner = config_.intermediate, hidden = config_.hidden;
    CAPSTAN_TRY(layer.gate_up, gguf_matrices(prefix + "ffn_gate_exps.weight", inner, hidden));
    CAPSTAN_TRY(const auto up, gguf_matrices(prefix + "ffn_up_exps.weight", inner, hidden));
    for (std::uint64_t e = 0; e < experts; ++e) {
      if (up[e].type != layer.gate_up[e].type)
        return fail(Code::kCorrupt, "tensors '{0}ffn_gate_exps.weight' and '{0}ffn_up_exps.weight' must be of one type",
                    prefix);
      layer.gate_up[e].odd_rows = up[e].data;
      layer.gate_up[e].rows = static_cast<int>(2 * inner);
    }
    CAPSTAN_TRY(layer.down, gguf_matrices(prefix + "ffn_down_exps.weight", hidden, inner));
    CAPSTAN_TRY(const auto gate_bias, vector(prefix + "ffn_gate_exps.bias", {experts, inner}));
    CAPSTAN_TRY(const auto up_bias, vector(prefix + "ffn_up_exps.bias", {experts, inner}));
    for (std::size_t i = 0; i < gate_bias.size(); ++i) {
      layer.gate_up_bias.push_back(gate_bias[i]);
      layer.gate_up_bias.push_back(up_bias[i]);
    }
    CAPSTAN_TRY(layer.down_bias, vector(prefix + "ffn_down_exps.bias", {experts, hidden}));
    return {};
  }

  Result<std::vector<WeightView>> gguf_matrices(const std::string& name, std::uint64_t rows, std::uint64_t cols) {
    CAPSTAN_TRY(WeightView view, numbers(name, {static_cast<std::uint64_t>(config_.experts), rows, cols}));
    view.rows = static_cast<int>(rows);
    view.cols = static_cast<int>(cols);
    std::vector<WeightView> result(config_.experts, view);
    for (std::size_t e = 0; e < result.size(); ++e) result[e].data += e * rows * row_bytes(view.type, view.cols);
    return result;
  }

  Result<const TensorView*> tensor(const std::string& name, const Shape& shape) {
    const TensorView* view = find(name);
    if (view == nullptr)
      return fail(Code::kCorrupt, "the checkpoint has no tensor '{}' (shape {})", name, shape_text(shape));
    if (view->shape != shape) {
      return fail(Code::kCorrupt, "tensor '{}' has shape {}, {} for {}", name, view->shape_text(),
                  gguf_ ? "the file's metadata asks" : "config.json asks", shape_text(shape));
    }
    return view;
  }

  // The tensor's first byte, at an address that is a multiple of `alignment`.
  const std::uint8_t* aligned(const TensorView& view, std::size_t alignment) {
    if (reinterpret_cast<std::uintptr_t>(view.bytes.data()) % alignment == 0) return view.bytes.data();
    auto copy = std::make_unique<std::uint64_t[]>(view.bytes.size() / 8 + 1);
    std::memcpy(copy.get(), view.bytes.data(), view.bytes.size());
    weights_.copies.push_back(std::move(copy));
    return reinterpret_cast<const std::uint8_t*>(weights_.copies.back().get());
  }

  static std::optional<WeightType> weight_type(DType type) {
    if (type == DType::kBf16) return WeightType::kBf16;
    if (type == DType::kF16) return WeightType::kF16;
    if (type == DType::kF32) return WeightType::kF32;
    if (type == DType::kMxfp4) return WeightType::kGgufMxfp4;
    if (type == DType::kQ8_0) return WeightType::kQ8_0;
    return std::nullopt;
  }

  // A view of all the tensor's numbers, as one row.
  Result<WeightView> numbers(const std::string& name, const Shape& shape) {
    CAPSTAN_TRY(const TensorView* view, tensor(name, shape));
    const auto type = weight_type(view->dtype);
    if (!type) {
      return fail(Code::kCorrupt, "tensor '{}' is {}; it must be BF16, F16 or F32", name,
                  dtype_name(view->dtype));
    }
    const bool blocks = dtype_block(view->dtype) > 1;
    return WeightView{.type = *type, .data = aligned(*view, blocks ? 1 : bytes_per_element(*type))};
  }

  Result<WeightView> matrix(const std::string& name, std::uint64_t rows, std::uint64_t cols) {
    CAPSTAN_TRY(WeightView view, numbers(name, {rows, cols}));
    view.rows = static_cast<int>(rows);
    view.cols = static_cast<int>(cols);
    return view;
  }

  Result<std::vector<float>> vector(const std::string& name, const Shape& shape) {
    CAPSTAN_TRY(WeightView view, numbers(name, shape));
    std::uint64_t count = 1;
    for (std::uint64_t size : shape) count *= size;
    if (view.type == WeightType::kGgufMxfp4 || view.type == WeightType::kQ8_0)
      return fail(Code::kCorrupt, "tensor '{}' is in blocks; it must be F32, F16 or BF16", name);
    std::vector<float> values(count);
    view.rows = 1;
    view.cols = static_cast<int>(count);
    for (std::uint64_t i = 0; i < count; ++i) values[i] = weight_at(view, 0, static_cast<int>(i));
    return values;
  }

  Result<Linear> linear(const std::string& name, std::uint64_t rows, std::uint64_t cols, bool with_bias) {
    Linear result;
    CAPSTAN_TRY(result.weight, matrix(name + ".weight", rows, cols));
    if (with_bias) {
      CAPSTAN_TRY(result.bias, vector(name + ".bias", {rows}));
    }
    return result;
  }

  Result<std::vector<WeightView>> expert_matrices(const std::string& name, std::uint64_t rows,
                                                  std::uint64_t cols) {
    if (find(name + "_blocks") != nullptr) return mxfp4_matrices(name, rows, cols);
    if (find(name) == nullptr) {
      return fail(Code::kCorrupt, "the checkpoint has neither tensor '{}_blocks' (MXFP4) nor '{}' (BF16)",
                  name, name);
    }
    const std::uint64_t experts = config_.experts;
    CAPSTAN_TRY(const WeightView all, numbers(name, {experts, cols, rows}));
    std::vector<WeightView> result(experts, all);
    for (std::uint64_t e = 0; e < experts; ++e) {
      result[e].input_major = true;
      result[e].rows = static_cast<int>(rows);
      result[e].cols = static_cast<int>(cols);
      result[e].data += e * rows * cols * bytes_per_element(all.type);
    }
    return result;
  }

  Result<std::vector<WeightView>> mxfp4_matrices(const std::string& name, std::uint64_t rows,
                                                 std::uint64_t cols) {
    if (cols % kMxfp4Block != 0) {
      return fail(Code::kCorrupt,
                  "tensor '{}_blocks': MXFP4 needs a multiple of 32 inputs, config.json gives {}", name,
                  cols);
    }
    const std::uint64_t experts = config_.experts, blocks = cols / kMxfp4Block;
    CAPSTAN_TRY(const TensorView* data, tensor(name + "_blocks", {experts, rows, blocks, 16}));
    CAPSTAN_TRY(const TensorView* scales, tensor(name + "_scales", {experts, rows, blocks}));
    for (const TensorView* view : {data, scales}) {
      if (view->dtype != DType::kU8) {
        return fail(Code::kCorrupt, "tensor '{}{}' is {}; MXFP4 is stored as U8", name,
                    view == data ? "_blocks" : "_scales", dtype_name(view->dtype));
      }
    }
    std::vector<WeightView> result(experts);
    for (std::uint64_t e = 0; e < experts; ++e) {
      result[e] = {.type = WeightType::kMxfp4,
                   .rows = static_cast<int>(rows),
                   .cols = static_cast<int>(cols),
                   .data = data->bytes.data() + e * rows * blocks * 16,
                   .scales = scales->bytes.data() + e * rows * blocks};
    }
    return result;
  }

  Weights& weights_;
  const ModelConfig& config_;
  const bool gguf_;
};

}  // namespace

Result<Weights> bind_weights(Checkpoint checkpoint) {
  Weights weights;
  weights.checkpoint = std::move(checkpoint);
  CAPSTAN_CHECK(Binder(weights).run());
  return weights;
}

}  // namespace capstan::engine
