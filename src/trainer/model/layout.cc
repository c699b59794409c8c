// The order of the tensors in the flat vector, and their first values.
//
// q, k and v stand next to each other, weights and then biases, so that the three projections are one matrix
// product. Initial values are the sum of four uniform 16-bit integers (Irwin-Hall), scaled: close to normal,
// and exact in integers, so that every machine starts from the same bits.
#include <algorithm>
#include <cmath>

#include "base/assert.h"
#include "base/prng.h"
#include "trainer/model/model.h"

namespace capstan::trainer {

ParameterLayout::ParameterLayout(const ModelConfig& c) {
  auto add = [this](std::string name, std::vector<std::int64_t> shape, bool decay) {
    std::size_t count = 1;
    for (std::int64_t extent : shape) count *= static_cast<std::size_t>(extent);
    infos_.push_back({std::move(name), std::move(shape), size_, count, decay});
    size_ += count;
  };
  const std::int64_t hidden = c.hidden, experts = c.experts, inner = c.intermediate;
  const std::int64_t query = c.heads * c.head_dim, key = c.kv_heads * c.head_dim;
  add("model.embed_tokens.weight", {c.vocab, hidden}, true);
  for (int i = 0; i < c.layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    add(layer + "input_layernorm.weight", {hidden}, false);
    add(layer + "self_attn.q_proj.weight", {query, hidden}, true);
    add(layer + "self_attn.k_proj.weight", {key, hidden}, true);
    add(layer + "self_attn.v_proj.weight", {key, hidden}, true);
    add(layer + "self_attn.q_proj.bias", {query}, false);
    add(layer + "self_attn.k_proj.bias", {key}, false);
    add(layer + "self_attn.v_proj.bias", {key}, false);
    add(layer + "self_attn.sinks", {c.heads}, false);
    add(layer + "self_attn.o_proj.weight", {hidden, query}, true);
    add(layer + "self_attn.o_proj.bias", {hidden}, false);
    add(layer + "post_attention_layernorm.weight", {hidden}, false);
    add(layer + "mlp.router.weight", {experts, hidden}, true);
    add(layer + "mlp.router.bias", {experts}, false);
    add(layer + "mlp.experts.gate_up_proj", {experts, 2 * inner, hidden}, true);
    add(layer + "mlp.experts.gate_up_proj_bias", {experts, 2 * inner}, false);
    add(layer + "mlp.experts.down_proj", {experts, hidden, inner}, true);
    add(layer + "mlp.experts.down_proj_bias", {experts, hidden}, false);
  }
  add("model.norm.weight", {hidden}, false);
  add("lm_head.weight", {c.vocab, hidden}, true);
}

const ParameterInfo& ParameterLayout::find(std::string_view name) const {
  auto found = std::ranges::find(infos_, name, &ParameterInfo::name);
  CAPSTAN_ASSERT(found != infos_.end());
  return *found;
}

void initialise(const ParameterLayout& layout, std::uint64_t seed, std::span<float> params) {
  CAPSTAN_ASSERT(params.size() == layout.size());
  const auto infos = layout.all();
  const double layers = static_cast<double>((infos.size() - 3) / 17);
  // Four uniform values in [-32768, 32767] have a standard deviation of sqrt(4/12) * 65536.
  const double unit = 1.0 / (std::sqrt(1.0 / 3.0) * 65536.0);
  for (std::size_t t = 0; t < infos.size(); ++t) {
    const ParameterInfo& info = infos[t];
    std::span<float> out = params.subspan(info.offset, info.count);
    if (!info.decay) {
      std::ranges::fill(out, info.name.ends_with("norm.weight") ? 1.0f : 0.0f);
      continue;
    }
    const bool residual = info.name.ends_with("o_proj.weight") || info.name.ends_with("down_proj");
    const double scale = unit * 0.02 / (residual ? std::sqrt(2.0 * layers) : 1.0);
    Prng prng(Prng::at(seed, t));
    for (float& value : out) {
      const std::uint64_t bits = prng.next();
      std::int64_t sum = 2;  // the mean of four values over [-32768, 32767] is -2
      for (int part = 0; part < 64; part += 16)
        sum += static_cast<std::int64_t>((bits >> part) & 0xFFFF) - 32768;
      value = static_cast<float>(static_cast<double>(sum) * scale);
    }
  }
}

}  // namespace capstan::trainer
