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

class Binder {
 public:
  Binder(Weights& weights, const ModelConfig& config) : weights_(weights), config_(config) {}

  Result<void> run() {
    const std::uint64_t vocab = config_.vocab, hidden = config_.hidden;
    CAPSTAN_TRY(weights_.embedding, matrix("model.embed_tokens.weight", vocab, hidden));
    CAPSTAN_TRY(weights_.final_norm, vector("model.norm.weight", {hidden}));
    if (config_.tie_word_embeddings) {
      weights_.head = weights_.embedding;
    } else {
      CAPSTAN_TRY(weights_.head, matrix("lm_head.weight", vocab, hidden));
    }
    weights_.layers.resize(config_.layers);
    for (int i = 0; i < config_.layers; ++i) {
      weights_.layers[i].type = config_.layer_types[i];
      CAPSTAN_CHECK(layer(weights_.layers[i], "model.layers." + std::to_string(i) + "."));
    }
    return {};
  }

 private:
  Result<void> layer(LayerWeights& layer, const std::string& prefix) {
    const std::uint64_t hidden = config_.hidden, q_dim = config_.q_dim(), kv_dim = config_.kv_dim();
    const std::uint64_t experts = config_.experts;
    CAPSTAN_TRY(layer.input_norm, vector(prefix + "input_layernorm.weight", {hidden}));
    CAPSTAN_TRY(layer.post_norm, vector(prefix + "post_attention_layernorm.weight", {hidden}));
    CAPSTAN_TRY(layer.sinks, vector(prefix + "self_attn.sinks", {static_cast<std::uint64_t>(config_.heads)}));
    const bool bias = config_.attention_bias;
    CAPSTAN_TRY(layer.q, linear(prefix + "self_attn.q_proj", q_dim, hidden, bias));
    CAPSTAN_TRY(layer.k, linear(prefix + "self_attn.k_proj", kv_dim, hidden, bias));
    CAPSTAN_TRY(layer.v, linear(prefix + "self_attn.v_proj", kv_dim, hidden, bias));
    CAPSTAN_TRY(layer.o, linear(prefix + "self_attn.o_proj", hidden, q_dim, bias));
    CAPSTAN_TRY(layer.router, linear(prefix + "mlp.router", experts, hidden, true));
    const std::string mlp = prefix + "mlp.experts.";
    const std::uint64_t inner = config_.intermediate;
    CAPSTAN_TRY(layer.gate_up, expert_matrices(mlp + "gate_up_proj", 2 * inner, hidden));
    CAPSTAN_TRY(layer.down, expert_matrices(mlp + "down_proj", hidden, inner));
    CAPSTAN_TRY(layer.gate_up_bias, vector(mlp + "gate_up_proj_bias", {experts, 2 * inner}));
    CAPSTAN_TRY(layer.down_bias, vector(mlp + "down_proj_bias", {experts, hidden}));
    return {};
  }

  Result<const TensorView*> tensor(const std::string& name, const Shape& shape) {
    const TensorView* view = weights_.tensors.find(name);
    if (view == nullptr)
      return fail(Code::kCorrupt, "the checkpoint has no tensor '{}' (shape {})", name, shape_text(shape));
    if (view->shape != shape) {
      return fail(Code::kCorrupt, "tensor '{}' has shape {}, config.json asks for {}", name,
                  view->shape_text(), shape_text(shape));
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
    return WeightView{.type = *type, .data = aligned(*view, bytes_per_element(*type))};
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
    if (weights_.tensors.find(name + "_blocks") != nullptr) return mxfp4_matrices(name, rows, cols);
    if (weights_.tensors.find(name) == nullptr) {
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
};

}  // namespace

Result<Weights> bind_weights(Safetensors tensors, const ModelConfig& config) {
  Weights weights;
  weights.tensors = std::move(tensors);
  CAPSTAN_CHECK(Binder(weights, config).run());
  return weights;
}

}  // namespace capstan::engine
