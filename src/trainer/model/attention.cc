// Attention of each document by blocks of queries, forward and backward.
//
// A block of up to 64 queries of one head meets all keys that any of them sees, in one matrix product;
// documents are short or the window is, so a block's scores stay in the second-level cache. The backward pass
// forms the scores again from the kept log-denominators (Dao et al. 2022, FlashAttention): with D = dO . O
// per row, dS = P (dP - D). A block's rows and keys are rounded up and may reach into the next document: such
// keys are masked, such rows are zero in P and dS, and what is written to them is written again when their
// own document's turn comes.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "trainer/model/passes.h"

namespace capstan::trainer {
namespace {

constexpr int kQueries = 64;

template <class T>
constexpr Element kElement = std::is_same_v<T, Bf16> ? Element::kBf16 : Element::kF32;

ScoreBlock block_of(int query, int count, int window, float scale) {
  ScoreBlock block{};
  block.rows = std::min(kQueries, count - query);
  block.first_query = query;
  block.first_key = std::max(0, query - window + 1) / kRowMultiple * kRowMultiple;
  block.columns = round_rows(query + block.rows - block.first_key);
  block.stride = block.columns;
  block.window = window;
  block.scale = scale;
  return block;
}

template <class T>
void zero_rows(T* rows, const ScoreBlock& block) {
  std::memset(static_cast<void*>(rows + static_cast<std::size_t>(block.rows) * block.stride), 0,
              static_cast<std::size_t>(round_rows(block.rows) - block.rows) * block.stride * sizeof(T));
}

}  // namespace

template <class T>
void Passes<T>::forward_attention(Layer& layer) {
  const int heads = config_.heads, kv_heads = config_.kv_heads, d = config_.head_dim;
  for_pieces(tokens_, [&](int first, int count) {
    linear(count, qkv_width_, hidden_, layer.normed1.row(first, hidden_), weights_ + layer.at.qkv,
           params_ + layer.at.qkv_bias, t_wide_.row(first, qkv_width_));
    k_.rope(t_wide_.row(first, qkv_width_), by_row(qkv_width_), position_.data() + first, rope_.cosine.data(),
            rope_.sine.data(), std::min(count, tokens_ - first), heads + kv_heads, heads + 2 * kv_heads, d,
            1.0f, head_row(layer.qkv, 0, first), by_head());
  });
  for (int h = 0; h < heads; ++h) {
    for (std::size_t i = 0; i + 1 < starts_.size(); ++i)
      attend(layer, starts_[i], starts_[i + 1] - starts_[i], h);
  }
  for_pieces(tokens_, [&](int first, int count) {
    const int rows = std::min(count, tokens_ - first);
    k_.rope(head_row(heads_, 0, first), by_head(), nullptr, nullptr, nullptr, rows, 0, heads, d, 1.0f,
            layer.attended.row(first, query_width_), by_row(query_width_));
    linear(count, hidden_, query_width_, layer.attended.row(first, query_width_), weights_ + layer.at.o,
           params_ + layer.at.o_bias, t_hidden_.row(first, hidden_));
    k_.add_norm(layer.x.row(first, hidden_), t_hidden_.row(first, hidden_), params_ + layer.at.norm2,
                static_cast<float>(config_.rms_eps), rows, hidden_, layer.middle.row(first, hidden_),
                layer.normed2.row(first, hidden_), layer.inverse2.data() + first);
  });
}

template <class T>
void Passes<T>::attend(Layer& layer, int first, int count, int head) {
  const int d = config_.head_dim, kv_head = config_.heads + head / (config_.heads / config_.kv_heads);
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  for (int query = 0; query < count; query += kQueries) {
    const ScoreBlock block = block_of(query, count, layer.window, scale);
    const int rows = round_rows(block.rows), first_key = first + block.first_key;
    scores_.reserve(kQueries, block.columns), probabilities_.reserve(kQueries, block.columns);
    gemm_.run({.m = rows,
               .n = block.columns,
               .k = d,
               .b_transposed = true,
               .lda = d,
               .ldb = d,
               .ldc = block.stride,
               .in = kElement<T>,
               .out = Element::kF32},
              head_row(layer.qkv, head, first + query), head_row(layer.qkv, kv_head, first_key), nullptr,
              scores_.data());
    k_.softmax(block, scores_.data(), params_[layer.at.sinks + head], probabilities_.data(),
               layer.lse.row(first + query, config_.heads) + head, config_.heads);
    zero_rows(probabilities_.data(), block);
    gemm_.run({.m = rows,
               .n = d,
               .k = block.columns,
               .lda = block.stride,
               .ldb = d,
               .ldc = d,
               .in = kElement<T>,
               .out = kElement<T>},
              probabilities_.data(), head_row(layer.qkv, kv_head + config_.kv_heads, first_key), nullptr,
              head_row(heads_, head, first + query));
  }
}

// t_hidden_ holds the gradient of the residual stream in T when this is called; dx_ the same in f32.
template <class T>
void Passes<T>::backward_attention(Layer& layer, float* grads) {
  const int heads = config_.heads, kv_heads = config_.kv_heads, d = config_.head_dim;
  zero_tail(t_hidden_.data(), tokens_, hidden_);
  dattended_.reserve(padded_, query_width_), dheads_.reserve(padded_, query_width_);
  dqkv_.reserve(padded_, qkv_width_);
  for_pieces(tokens_, [&](int first, int count) {
    const int rows = std::min(count, tokens_ - first);
    const T* attended = layer.attended.row(first, query_width_);
    T* dattended = dattended_.row(first, query_width_);
    weight_gradient(count, hidden_, query_width_, t_hidden_.row(first, hidden_), attended,
                    grads + layer.at.o);
    input_gradient(count, hidden_, query_width_, t_hidden_.row(first, hidden_), weights_ + layer.at.o,
                   dattended);
    k_.head_dot(dattended, attended, rows, heads, d, dot_.row(first, heads));
    k_.rope(dattended, by_row(query_width_), nullptr, nullptr, nullptr, rows, 0, heads, d, 1.0f,
            head_row(dheads_, 0, first), by_head());
  });
  for (int h = 0; h < heads; ++h) {
    const float sink = params_[layer.at.sinks + h];
    double sum = 0.0;
    for (int t = 0; t < tokens_; ++t)
      sum -= std::exp(sink - layer.lse.row(t, heads)[h]) * dot_.row(t, heads)[h];
    grads[layer.at.sinks + h] += static_cast<float>(sum);
  }
  for (int h = 0; h < kv_heads; ++h) {
    for (std::size_t i = 0; i + 1 < starts_.size(); ++i) {
      backward_document(layer, starts_[i], starts_[i + 1] - starts_[i], h);
    }
  }
  zero_tail(t_wide_.data(), tokens_, qkv_width_);
  for_pieces(tokens_, [&](int first, int count) {
    const int rows = std::min(count, tokens_ - first);
    T* dqkv = t_wide_.row(first, qkv_width_);
    k_.rope(head_row(dqkv_, 0, first), by_head(), position_.data() + first, rope_.cosine.data(),
            rope_.sine.data(), rows, heads + kv_heads, heads + 2 * kv_heads, d, -1.0f, dqkv,
            by_row(qkv_width_));
    k_.column_sum(dqkv, rows, qkv_width_, grads + layer.at.qkv_bias);
    weight_gradient(count, qkv_width_, hidden_, dqkv, layer.normed1.row(first, hidden_),
                    grads + layer.at.qkv);
    input_gradient(count, qkv_width_, hidden_, dqkv, weights_ + layer.at.qkv, t_hidden_.row(first, hidden_));
    k_.norm_backward(t_hidden_.row(first, hidden_), nullptr, nullptr, 0, layer.x.row(first, hidden_), nullptr,
                     layer.inverse1.data() + first, params_ + layer.at.norm1, rows, hidden_,
                     dx_.row(first, hidden_), grads + layer.at.norm1, nullptr, nullptr);
  });
}

template <class T>
void Passes<T>::backward_document(Layer& layer, int first, int count, int kv_head) {
  const int d = config_.head_dim, group = config_.heads / config_.kv_heads;
  const std::size_t floats = static_cast<std::size_t>(round_rows(count)) * d;
  dkey_.reserve(floats), dvalue_.reserve(floats);
  std::memset(dkey_.data(), 0, floats * sizeof(float));
  std::memset(dvalue_.data(), 0, floats * sizeof(float));
  for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    for (int query = 0; query < count; query += kQueries) backward_queries(layer, first, count, head, query);
  }
  const int key_head = config_.heads + kv_head, value_head = key_head + config_.kv_heads;
  k_.cast(dkey_.data(), head_row(dqkv_, key_head, first), static_cast<std::size_t>(count) * d);
  k_.cast(dvalue_.data(), head_row(dqkv_, value_head, first), static_cast<std::size_t>(count) * d);
}

template <class T>
void Passes<T>::backward_queries(Layer& layer, int first, int count, int head, int query) {
  const int d = config_.head_dim, key_head = config_.heads + head / (config_.heads / config_.kv_heads);
  const ScoreBlock block = block_of(query, count, layer.window, 1.0f / std::sqrt(static_cast<float>(d)));
  const int rows = round_rows(block.rows), stride = block.stride;
  for (Buffer<float>* buffer : {&scores_, &dscores_}) buffer->reserve(kQueries, stride);
  for (Buffer<T>* buffer : {&probabilities_, &dscores_cast_}) buffer->reserve(kQueries, stride);
  const int token = first + query, first_key = first + block.first_key;
  const T* q = head_row(layer.qkv, head, token);
  const T* k = head_row(layer.qkv, key_head, first_key);
  const T* v = head_row(layer.qkv, key_head + config_.kv_heads, first_key);
  const T* dout = head_row(dheads_, head, token);
  const GemmShape scores{.m = rows,
                         .n = stride,
                         .k = d,
                         .b_transposed = true,
                         .lda = d,
                         .ldb = d,
                         .ldc = stride,
                         .in = kElement<T>,
                         .out = Element::kF32};
  gemm_.run(scores, q, k, nullptr, scores_.data());
  gemm_.run(scores, dout, v, nullptr, dscores_.data());
  k_.softmax_backward(block, scores_.data(), dscores_.data(), layer.lse.row(token, config_.heads) + head,
                      dot_.row(token, config_.heads) + head, config_.heads, probabilities_.data(),
                      dscores_cast_.data());
  zero_rows(probabilities_.data(), block);
  zero_rows(dscores_cast_.data(), block);
  gemm_.run({.m = rows,
             .n = d,
             .k = stride,
             .lda = stride,
             .ldb = d,
             .ldc = d,
             .in = kElement<T>,
             .out = kElement<T>},
            dscores_cast_.data(), k, nullptr, head_row(dqkv_, head, token));
  const GemmShape transposed{.m = stride,
                             .n = d,
                             .k = rows,
                             .a_transposed = true,
                             .lda = stride,
                             .ldb = d,
                             .ldc = d,
                             .in = kElement<T>,
                             .out = Element::kF32,
                             .accumulate = true};
  gemm_.run(transposed, dscores_cast_.data(), q, nullptr, dkey_.row(block.first_key, d));
  gemm_.run(transposed, probabilities_.data(), dout, nullptr, dvalue_.row(block.first_key, d));
}

template void Passes<float>::forward_attention(Layer&);
template void Passes<float>::backward_attention(Layer&, float*);
template void Passes<Bf16>::forward_attention(Layer&);
template void Passes<Bf16>::backward_attention(Layer&, float*);

}  // namespace capstan::trainer
