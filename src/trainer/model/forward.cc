// Forward: embedding, layers, and the head, which also starts the backward pass.
//
// The head runs only on rows that have a target, in pieces, so that logits of the whole batch never exist at
// once. Because the loss is the last thing, the gradient of each piece is formed while its logits are in
// cache.
#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "trainer/model/passes.h"

namespace capstan::trainer {
namespace {

constexpr int kHeadRows = 1024;               // rows of logits at once
constexpr int kSpareRows = 2 * kRowMultiple;  // a document's last block may reach this far beyond the batch

}  // namespace

template <class T>
Passes<T>::Passes(const ModelConfig& config)
    : config_(config),
      layout_(config),
      hidden_(config.hidden),
      query_width_(config.heads * config.head_dim),
      key_width_(config.kv_heads * config.head_dim),
      qkv_width_(query_width_ + 2 * key_width_),
      k_(kernels<T>()),
      rope_(rope_table(config, config.context_max)),
      layers_(static_cast<std::size_t>(config.layers)) {
  auto offset = [&](const std::string& name) { return layout_.find(name).offset; };
  for (int i = 0; i < config.layers; ++i) {
    const std::string name = "model.layers." + std::to_string(i) + ".";
    Layer& layer = layers_[static_cast<std::size_t>(i)];
    layer.at = {.norm1 = offset(name + "input_layernorm.weight"),
                .qkv = offset(name + "self_attn.q_proj.weight"),
                .qkv_bias = offset(name + "self_attn.q_proj.bias"),
                .sinks = offset(name + "self_attn.sinks"),
                .o = offset(name + "self_attn.o_proj.weight"),
                .o_bias = offset(name + "self_attn.o_proj.bias"),
                .norm2 = offset(name + "post_attention_layernorm.weight"),
                .router = offset(name + "mlp.router.weight"),
                .router_bias = offset(name + "mlp.router.bias"),
                .gate_up = offset(name + "mlp.experts.gate_up_proj"),
                .gate_up_bias = offset(name + "mlp.experts.gate_up_proj_bias"),
                .down = offset(name + "mlp.experts.down_proj"),
                .down_bias = offset(name + "mlp.experts.down_proj_bias")};
    layer.window = i % 2 == 0 ? config.sliding_window : config.context_max;
  }
  embed_at_ = offset("model.embed_tokens.weight");
  norm_at_ = offset("model.norm.weight");
  head_at_ = offset("lm_head.weight");
}

template <class T>
void Passes<T>::begin(std::span<const float> params, const Batch& batch) {
  CAPSTAN_ASSERT(params.size() == layout_.size());
  params_ = params.data();
  if constexpr (std::is_same_v<T, float>) {
    weights_ = params.data();
  } else {
    weight_copy_.reserve(params.size());
    k_.cast(params.data(), weight_copy_.data(), params.size());
    weights_ = weight_copy_.data();
  }
  tokens_ = static_cast<int>(batch.tokens.size());
  starts_.assign(batch.document_starts.begin(), batch.document_starts.end());
  CAPSTAN_ASSERT(!starts_.empty() && starts_[0] == 0);
  starts_.push_back(tokens_);
  position_.resize(batch.tokens.size());
  for (std::size_t d = 0; d + 1 < starts_.size(); ++d) {
    CAPSTAN_ASSERT(starts_[d] < starts_[d + 1] && starts_[d + 1] - starts_[d] <= config_.context_max);
    for (int t = starts_[d]; t < starts_[d + 1]; ++t) position_[static_cast<std::size_t>(t)] = t - starts_[d];
  }
  const int rows = padded_ = tokens_ + kSpareRows;
  for (Layer& layer : layers_) {
    layer.x.reserve(rows, hidden_), layer.middle.reserve(rows, hidden_);
    layer.normed1.reserve(rows, hidden_), layer.normed2.reserve(rows, hidden_);
    layer.qkv.reserve(rows, qkv_width_), layer.attended.reserve(rows, query_width_);
    layer.lse.reserve(rows, config_.heads), layer.inverse1.reserve(rows, 1), layer.inverse2.reserve(rows, 1);
  }
  x_.reserve(rows, hidden_), dx_.reserve(rows, hidden_);
  t_hidden_.reserve(rows, hidden_), t_wide_.reserve(rows, std::max(qkv_width_, hidden_));
  router_logits_.reserve(rows, config_.experts), drouter_.reserve(rows, config_.experts);
  heads_.reserve(rows, query_width_);
  t_small_.reserve(rows, config_.experts), dot_.reserve(rows, config_.heads);
  Buffer<float>& x = layers_[0].x;
  for (int t = 0; t < tokens_; ++t) {
    const std::int32_t token = batch.tokens[static_cast<std::size_t>(t)];
    CAPSTAN_ASSERT(token >= 0 && token < config_.vocab);
    std::memcpy(x.row(t, hidden_), params_ + embed_at_ + static_cast<std::size_t>(token) * hidden_,
                static_cast<std::size_t>(hidden_) * sizeof(float));
  }
}

template <class T>
void Passes<T>::forward_layers() {
  const float eps = static_cast<float>(config_.rms_eps);
  k_.norm(layers_[0].x.data(), nullptr, params_ + layers_[0].at.norm1, eps, tokens_, hidden_,
          layers_[0].normed1.data(), layers_[0].inverse1.data());
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    Layer& layer = layers_[i];
    forward_attention(layer);
    forward_experts(layer);
    Layer* next = i + 1 < layers_.size() ? &layers_[i + 1] : nullptr;
    k_.combine_norm(layer.middle.data(), t_rows_.data(), layer.routing.slot.data(),
                    layer.routing.share.data(), config_.experts_per_token,
                    next ? params_ + next->at.norm1 : nullptr, eps, tokens_, hidden_,
                    next ? next->x.data() : x_.data(), next ? next->normed1.data() : nullptr,
                    next ? next->inverse1.data() : nullptr);
  }
}

template <class T>
void Passes<T>::forward_experts(Layer& layer) {
  linear(tokens_, config_.experts, hidden_, layer.normed2.data(), weights_ + layer.at.router,
         params_ + layer.at.router_bias, router_logits_.data());
  Routing& routing = layer.routing;
  routing.route(config_, router_logits_.data(), tokens_);
  const int inner = config_.intermediate, rows = routing.rows();
  layer.gathered.reserve(rows, hidden_), layer.inner.reserve(rows, 2 * inner);
  t_inner_.reserve(rows, inner), t_rows_.reserve(rows, hidden_);
  for (int e = 0; e < config_.experts; ++e) {
    const std::size_t expert = static_cast<std::size_t>(e);
    const T* gate_up = weights_ + layer.at.gate_up + expert * 2 * inner * hidden_;
    const T* down = weights_ + layer.at.down + expert * hidden_ * inner;
    const float* gate_up_bias = params_ + layer.at.gate_up_bias + expert * 2 * inner;
    const float* down_bias = params_ + layer.at.down_bias + expert * hidden_;
    for_pieces(routing.first_row[e + 1] - routing.first_row[e], [&](int piece, int count) {
      const int first = routing.first_row[e] + piece;
      T* x = layer.gathered.row(first, hidden_);
      T* u = layer.inner.row(first, 2 * inner);
      T* a = t_inner_.row(first, inner);
      k_.gather(layer.normed2.data(), routing.token.data() + first, count, hidden_, x);
      linear(count, 2 * inner, hidden_, x, gate_up, gate_up_bias, u);
      k_.swiglu(u, count, inner, static_cast<float>(config_.swiglu_limit), a);
      linear(count, hidden_, inner, a, down, down_bias, t_rows_.row(first, hidden_));
    });
  }
}

template <class T>
void Passes<T>::head(const Batch& batch, double normaliser, float* grads, StepResult& result) {
  CAPSTAN_ASSERT(batch.targets.size() == batch.tokens.size());
  target_row_.clear(), target_.clear();
  for (int t = 0; t < tokens_; ++t) {
    const std::int32_t target = batch.targets[static_cast<std::size_t>(t)];
    if (target < 0) continue;
    CAPSTAN_ASSERT(target < config_.vocab);
    target_row_.push_back(t), target_.push_back(target);
  }
  const int rows = static_cast<int>(target_row_.size()), vocab = config_.vocab;
  result.target_count = rows;
  inverse_.reserve(rows + kRowMultiple, 1);
  head_normed_.reserve(rows + kRowMultiple, hidden_), head_rows_.reserve(kHeadRows, vocab);
  logits_.reserve(kHeadRows, vocab);
  const T* weight = weights_ + head_at_;
  for (int first = 0; first < rows; first += kHeadRows) {
    const int count = std::min(kHeadRows, rows - first);
    T* normed = t_hidden_.row(first, hidden_);
    k_.norm(x_.data(), target_row_.data() + first, params_ + norm_at_, static_cast<float>(config_.rms_eps),
            count, hidden_, normed, inverse_.data() + first);
    linear(count, vocab, hidden_, normed, weight, nullptr, logits_.data());
    k_.cross_entropy(logits_.data(), target_.data() + first, count, vocab,
                     static_cast<float>(1.0 / normaliser), grads ? head_rows_.data() : nullptr,
                     &result.loss_sum, &result.correct);
    if (grads == nullptr) continue;
    zero_tail(head_rows_.data(), count, vocab);
    weight_gradient(count, vocab, hidden_, head_rows_.data(), normed, grads + head_at_);
    input_gradient(count, vocab, hidden_, head_rows_.data(), weight, head_normed_.row(first, hidden_));
  }
}

template <class T>
StepResult Passes<T>::step(std::span<const float> params, const Batch& batch, double normaliser,
                           float* grads) {
  StepResult result;
  result.expert_load.assign(static_cast<std::size_t>(config_.layers * config_.experts), 0);
  if (batch.tokens.empty()) return result;
  begin(params, batch);
  forward_layers();
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const Routing& routing = layers_[i].routing;
    result.aux_loss += routing.balance_loss(tokens_) / config_.layers;
    std::ranges::copy(routing.load,
                      result.expert_load.begin() + static_cast<std::ptrdiff_t>(i) * config_.experts);
  }
  head(batch, normaliser, grads, result);
  if (grads == nullptr) return result;
  backward_head(grads);
  const double aux_factor = config_.aux_loss_coefficient * batch.aux_weight / config_.layers;
  for (std::size_t i = layers_.size(); i-- > 0;) {
    backward_experts(layers_[i], aux_factor, grads);
    backward_attention(layers_[i], grads);
  }
  backward_embedding(batch, grads);
  return result;
}

template <class T>
void Passes<T>::logits(std::span<const float> params, std::span<const std::int32_t> tokens, float* out) {
  if (tokens.empty()) return;
  const std::int32_t start = 0;
  begin(params, {.tokens = tokens, .targets = {}, .document_starts = {&start, 1}});
  forward_layers();
  inverse_.reserve(tokens_, 1), logits_.reserve(kHeadRows, config_.vocab);
  k_.norm(x_.data(), nullptr, params_ + norm_at_, static_cast<float>(config_.rms_eps), tokens_, hidden_,
          t_hidden_.data(), inverse_.data());
  for (int first = 0; first < tokens_; first += kHeadRows) {
    const int count = std::min(kHeadRows, tokens_ - first);
    linear(count, config_.vocab, hidden_, t_hidden_.row(first, hidden_), weights_ + head_at_, nullptr,
           logits_.data());
    std::copy_n(logits_.data(), static_cast<std::size_t>(count) * config_.vocab,
                out + static_cast<std::size_t>(first) * config_.vocab);
  }
}

template class Passes<float>;
template class Passes<Bf16>;

}  // namespace capstan::trainer
