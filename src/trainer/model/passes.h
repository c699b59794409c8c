// The passes themselves, for one element type T of matrix products (float or Bf16). Behind Model; not a
// public header.
//
// forward.cc, attention.cc and backward.cc hold one part each. Buffers keep their size between steps. Widths:
// H hidden, Q = heads * head_dim, C = Q + 2 kv_heads * head_dim, I intermediate, R gathered rows of a layer.
#pragma once

#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <vector>

#include "trainer/model/gemm.h"
#include "trainer/model/kernels.h"
#include "trainer/model/model.h"
#include "trainer/model/rope.h"
#include "trainer/model/routing.h"

namespace capstan::trainer {

// Zeroed, 64-byte aligned, grows only. Rows beyond those in use hold old values, which are finite.
template <class U>
class Buffer {
 public:
  void reserve(std::size_t count);
  void reserve(int rows, int width) {
    reserve(static_cast<std::size_t>(rows) * static_cast<std::size_t>(width));
  }
  U* data() { return data_.get(); }
  U* row(std::size_t index, int width) { return data_.get() + index * static_cast<std::size_t>(width); }

 private:
  struct Free {
    void operator()(U* pointer) const { ::operator delete[](pointer, std::align_val_t{64}); }
  };
  std::unique_ptr<U[], Free> data_;
  std::size_t count_ = 0;
};

// What Model asks of either element type.
class PassesBase {
 public:
  virtual ~PassesBase() = default;
  virtual StepResult step(std::span<const float> params, const Batch& batch, double normaliser,
                          float* grads) = 0;
  virtual void logits(std::span<const float> params, std::span<const std::int32_t> tokens, float* out) = 0;
};

struct LayerOffsets {
  std::size_t norm1, qkv, qkv_bias, sinks, o, o_bias, norm2, router, router_bias, gate_up, gate_up_bias, down,
      down_bias;
};

template <class T>
class Passes final : public PassesBase {
 public:
  explicit Passes(const ModelConfig& config);
  StepResult step(std::span<const float> params, const Batch& batch, double normaliser,
                  float* grads) override;
  void logits(std::span<const float> params, std::span<const std::int32_t> tokens, float* out) override;

 private:
  // What a layer keeps for its backward pass.
  struct Layer {
    LayerOffsets at;
    int window = 0;
    Buffer<float> x;                   // [T, H] the layer's input
    Buffer<T> normed1, qkv, attended;  // [T, H], [heads, P, head_dim] rotated, [T, Q]
    Buffer<float> lse;                 // [T, heads]
    Buffer<float> middle;              // [T, H] after attention
    Buffer<T> normed2;                 // [T, H]
    Buffer<float> inverse1, inverse2;
    Routing routing;
    Buffer<T> gathered, inner;  // [R, H], [R, 2 I]
  };

  void begin(std::span<const float> params, const Batch& batch);
  void forward_layers();
  void forward_attention(Layer& layer);
  void forward_experts(Layer& layer);
  void attend(Layer& layer, int first, int count, int head);
  void head(const Batch& batch, double normaliser, float* grads, StepResult& result);
  void backward_head(float* grads);
  void backward_experts(Layer& layer, double aux_factor, float* grads);
  void backward_attention(Layer& layer, float* grads);
  void backward_document(Layer& layer, int first, int count, int kv_head);
  HeadLayout by_head() const { return {static_cast<std::size_t>(config_.head_dim), head_size()}; }
  HeadLayout by_row(int width) const {
    return {static_cast<std::size_t>(width), static_cast<std::size_t>(config_.head_dim)};
  }
  std::size_t head_size() const { return static_cast<std::size_t>(padded_) * config_.head_dim; }
  // Row `token` of head `head` in a buffer laid out by head.
  T* head_row(Buffer<T>& heads, int head, int token) {
    return heads.data() + head * head_size() + static_cast<std::size_t>(token) * config_.head_dim;
  }
  void backward_queries(Layer& layer, int first, int count, int head, int query);
  void backward_embedding(const Batch& batch, float* grads);

  // y[rows, n] = x[rows, k] w[n, k]^T + bias
  template <class Out>
  void linear(int rows, int n, int k, const T* x, const T* w, const float* bias, Out* y);
  // dx[rows, k] = dy[rows, n] w[n, k]
  void input_gradient(int rows, int n, int k, const T* dy, const T* w, T* dx);
  // dw[n, k] += dy[rows, n]^T x[rows, k]
  void weight_gradient(int rows, int n, int k, const T* dy, const T* x, float* dw);
  void zero_tail(T* rows, int count, int width);

  ModelConfig config_;
  ParameterLayout layout_;
  int hidden_, query_width_, key_width_, qkv_width_;
  std::size_t embed_at_, norm_at_, head_at_;
  const Kernels<T>& k_;
  Gemm gemm_;
  RopeTable rope_;
  std::vector<Layer> layers_;

  // Of the current step.
  const float* params_ = nullptr;
  const T* weights_ = nullptr;  // params in T
  Buffer<T> weight_copy_;
  int tokens_ = 0;
  int padded_ = 0;                               // rows of a head: tokens_ and spare rows
  std::vector<std::int32_t> position_, starts_;  // starts_ ends with T
  Buffer<float> x_, dx_;                         // [T, H] after the last layer; the running gradient
  Buffer<T> t_hidden_, t_wide_, t_rows_, t_inner_, t_activation_, t_gate_up_, t_small_, dattended_;
  Buffer<float> router_logits_, drouter_, dshare_, dot_, logits_, inverse_;
  Buffer<float> scores_, dscores_, dkey_, dvalue_;
  Buffer<T> heads_, dheads_,
      dqkv_;  // [heads, P, head_dim], P = padded_: attended, its gradient, that of q, k, v
  Buffer<T> probabilities_, dscores_cast_, head_rows_, head_normed_;
  std::vector<std::int32_t> target_row_, target_;
};

}  // namespace capstan::trainer
