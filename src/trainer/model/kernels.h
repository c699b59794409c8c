// The element-wise passes between the matrix products, one table of functions per instruction set.
//
// T is the element type of what enters matrix products: float or Bf16. All matrices are row-major and dense
// unless a stride is named. Every function is a free function over pointers: no state, no allocation,
// deterministic.
#pragma once

#include <cstddef>
#include <cstdint>

namespace capstan::trainer {

struct Bf16 {
  std::uint16_t bits;
};

// A piece of one head's score matrix: rows are queries, columns keys of the same document.
struct ScoreBlock {
  int rows, columns, stride;   // stride of scores, probabilities and their gradients
  int first_query, first_key;  // positions in the document
  int window;                  // keys a query sees, its own included
  float scale;
};

// Where heads stand: beside each other in a row, or each head's rows together.
struct HeadLayout {
  std::size_t row, head;
};

template <class T>
struct Kernels {
  void (*cast)(const float* in, T* out, std::size_t count);

  // RMSNorm: out[r] = x[row] * inverse * weight, with row = index[r], or r if index is null; inverse[r] is
  // kept.
  void (*norm)(const float* x, const std::int32_t* index, const float* weight, float eps, int rows, int width,
               T* out, float* inverse);
  // sum = x + delta, then RMSNorm of sum.
  void (*add_norm)(const float* x, const T* delta, const float* weight, float eps, int rows, int width,
                   float* sum, T* out, float* inverse);
  // sum[r] = x[r] + the k weighted rows of y at slot[r * k + j]; then RMSNorm of sum if weight is not null.
  void (*combine_norm)(const float* x, const T* y, const std::int32_t* slot, const float* share, int k,
                       const float* weight, float eps, int rows, int width, float* sum, T* out,
                       float* inverse);
  // The gradient g of a norm's output is `base` (may be null for zero) plus k rows of `extra` at slot (k may
  // be 0). dx[row] += the gradient through the norm; dweight += its part; dx is also written to dx_cast (if
  // not null) and its column sums are added to dx_sum (if not null).
  void (*norm_backward)(const T* base, const T* extra, const std::int32_t* slot, int k, const float* x,
                        const std::int32_t* index, const float* inverse, const float* weight, int rows,
                        int width, float* dx, float* dweight, T* dx_cast, float* dx_sum);

  // Copies head vectors from one layout to another and rotates the first `rotated` heads by their row's
  // position; direction -1 is the inverse (the gradient). Head h of row r stands at h * layout.head + r *
  // layout.row.
  void (*rope)(const T* in, HeadLayout from, const std::int32_t* position, const float* cosine,
               const float* sine, int rows, int rotated, int heads, int head_dim, float direction, T* out,
               HeadLayout to);
  // Scores to probabilities, zero outside the mask. lse[r * lse_stride] = log of the denominator, sink
  // included.
  void (*softmax)(const ScoreBlock& block, const float* scores, float sink, T* probabilities, float* lse,
                  int lse_stride);
  // Probabilities again, and the gradient of the unscaled scores from that of the probabilities.
  void (*softmax_backward)(const ScoreBlock& block, const float* scores, const float* dprobabilities,
                           const float* lse, const float* dot, int stat_stride, T* probabilities, T* dscores);
  // out[r * heads + h] = a[r, h] . b[r, h] over head_dim.
  void (*head_dot)(const T* a, const T* b, int rows, int heads, int head_dim, float* out);

  // out[s] = in[token[s]], zero where token[s] < 0.
  void (*gather)(const T* in, const std::int32_t* token, int rows, int width, T* out);
  void (*gather_cast)(const float* in, const std::int32_t* token, int rows, int width, T* out);
  // in: [rows, 2 width], even columns gate, odd columns up.
  void (*swiglu)(const T* in, int rows, int width, float limit, T* out);
  // dout is not yet weighted by share. weighted = share * activation, din = gradient of in (share applied),
  // dshare[r] += activation . dout, din_sum += column sums of din.
  void (*swiglu_backward)(const T* in, const T* dout, const float* share, int rows, int width, float limit,
                          T* weighted, T* din, float* dshare, float* din_sum);
  // dshare[r] = in[r] . bias; dbias += share[r] * in[r].
  void (*share_bias)(const T* in, const float* bias, const float* share, int rows, int width, float* dshare,
                     float* dbias);
  void (*column_sum)(const T* in, int rows, int width, float* sum);

  // Per row: adds the loss, counts the hits; dlogits = (softmax - one-hot) * factor if dlogits is not null.
  void (*cross_entropy)(const float* logits, const std::int32_t* target, int rows, int width, float factor,
                        T* dlogits, double* loss, std::int64_t* correct);
};

// The table for this CPU: AVX-512, AVX2 or the build's baseline.
template <class T>
const Kernels<T>& kernels();

namespace baseline {
template <class T>
const Kernels<T>& table();
}
namespace avx2 {
template <class T>
const Kernels<T>& table();
}
namespace avx512 {
template <class T>
const Kernels<T>& table();
}

}  // namespace capstan::trainer
