// Backward of the head's norm, of the experts and of the embedding. dx_ is the gradient of the residual
// stream.
//
// The gradient of a share needs the expert's output; instead of keeping it, share_bias and swiglu_backward
// use
//   dx . (W2 a + b2) = (W2^T dx) . a + dx . b2,
// where W2^T dx is computed anyway.
#include <algorithm>
#include <cstring>

#include "trainer/model/passes.h"

namespace capstan::trainer {

template <class T>
void Passes<T>::backward_head(float* grads) {
  std::memset(dx_.data(), 0, static_cast<std::size_t>(tokens_) * hidden_ * sizeof(float));
  k_.norm_backward(head_normed_.data(), nullptr, nullptr, 0, x_.data(), target_row_.data(), inverse_.data(),
                   params_ + norm_at_, static_cast<int>(target_row_.size()), hidden_, dx_.data(),
                   grads + norm_at_, nullptr, nullptr);
}

template <class T>
void Passes<T>::backward_experts(Layer& layer, double aux_factor, float* grads) {
  const Routing& routing = layer.routing;
  const int inner = config_.intermediate, total = routing.rows(), experts = config_.experts;
  t_gate_up_.reserve(total, 2 * inner), t_activation_.reserve(total, inner), dshare_.reserve(total, 1);
  for (int e = 0; e < experts; ++e) {
    const std::size_t expert = static_cast<std::size_t>(e);
    const std::size_t gate_up = layer.at.gate_up + expert * 2 * inner * hidden_;
    const std::size_t gate_up_bias = layer.at.gate_up_bias + expert * 2 * inner;
    const std::size_t down = layer.at.down + expert * hidden_ * inner;
    const std::size_t down_bias = layer.at.down_bias + expert * hidden_;
    for_pieces(routing.first_row[e + 1] - routing.first_row[e], [&](int piece, int rows) {
      const int first = routing.first_row[e] + piece;
      const float* share = routing.slot_share.data() + first;
      float* dshare = dshare_.data() + first;
      T* dy = t_rows_.row(first, hidden_);
      T* du = t_gate_up_.row(first, 2 * inner);
      T* activation = t_activation_.row(first, inner);
      k_.gather_cast(dx_.data(), routing.token.data() + first, rows, hidden_, dy);
      k_.share_bias(dy, params_ + down_bias, share, rows, hidden_, dshare, grads + down_bias);
      input_gradient(rows, hidden_, inner, dy, weights_ + down, t_inner_.row(first, inner));
      k_.swiglu_backward(layer.inner.row(first, 2 * inner), t_inner_.row(first, inner), share, rows, inner,
                         static_cast<float>(config_.swiglu_limit), activation, du, dshare,
                         grads + gate_up_bias);
      weight_gradient(rows, hidden_, inner, dy, activation, grads + down);
      weight_gradient(rows, 2 * inner, hidden_, du, layer.gathered.row(first, hidden_), grads + gate_up);
      input_gradient(rows, 2 * inner, hidden_, du, weights_ + gate_up, dy);
    });
  }
  routing.backward(config_, dshare_.data(), tokens_, aux_factor,
                   {drouter_.data(), static_cast<std::size_t>(tokens_) * experts});
  k_.cast(drouter_.data(), t_small_.data(), static_cast<std::size_t>(tokens_) * experts);
  zero_tail(t_small_.data(), tokens_, experts);
  k_.column_sum(t_small_.data(), tokens_, experts, grads + layer.at.router_bias);
  for_pieces(tokens_, [&](int first, int count) {
    const T* dlogits = t_small_.row(first, experts);
    T* dnormed = t_wide_.row(first, hidden_);
    weight_gradient(count, experts, hidden_, dlogits, layer.normed2.row(first, hidden_),
                    grads + layer.at.router);
    input_gradient(count, experts, hidden_, dlogits, weights_ + layer.at.router, dnormed);
    k_.norm_backward(dnormed, t_rows_.data(), routing.slot.data() + first * config_.experts_per_token,
                     config_.experts_per_token, layer.middle.row(first, hidden_), nullptr,
                     layer.inverse2.data() + first, params_ + layer.at.norm2,
                     std::min(count, tokens_ - first), hidden_, dx_.row(first, hidden_),
                     grads + layer.at.norm2, t_hidden_.row(first, hidden_), grads + layer.at.o_bias);
  });
}

template <class T>
void Passes<T>::backward_embedding(const Batch& batch, float* grads) {
  for (int t = 0; t < tokens_; ++t) {
    float* to =
        grads + embed_at_ + static_cast<std::size_t>(batch.tokens[static_cast<std::size_t>(t)]) * hidden_;
    const float* from = dx_.row(t, hidden_);
    for (int i = 0; i < hidden_; ++i) to[i] += from[i];
  }
}

template void Passes<float>::backward_head(float*);
template void Passes<float>::backward_experts(Layer&, double, float*);
template void Passes<float>::backward_embedding(const Batch&, float*);
template void Passes<Bf16>::backward_head(float*);
template void Passes<Bf16>::backward_experts(Layer&, double, float*);
template void Passes<Bf16>::backward_embedding(const Batch&, float*);

}  // namespace capstan::trainer
