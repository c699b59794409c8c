// The kernels' bodies, included once per instruction set by kernels_*.cc.
//
// Everything is in an unnamed namespace and nothing of the standard library is called, so that no code
// compiled for a wide instruction set can be linked into a program's general path. Loops are plain C for the
// vectoriser
// (-O3 -fopenmp-simd); the order of a reduction is fixed by the compiled width, hence equal on equal CPUs.
#include "trainer/model/kernels.h"

namespace capstan::trainer::CAPSTAN_KERNEL_TARGET {
namespace {

inline float load(float value) { return value; }
inline float load(Bf16 value) {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(value.bits) << 16);
}
inline void store(float* out, float value) { *out = value; }
// Rounds to nearest, ties to even. NaN is not kept: a diverged run shows in the loss, which is f32.
inline std::uint32_t rounded(float value) {
  const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, value);
  return bits + 0x7FFFu + ((bits >> 16) & 1u);
}
inline void store(Bf16* out, float value) { out->bits = static_cast<std::uint16_t>(rounded(value) >> 16); }
using Word __attribute__((may_alias, aligned(2))) = std::uint32_t;
inline float minimum(float a, float b) { return a < b ? a : b; }
inline float maximum(float a, float b) { return a > b ? a : b; }

// e^x by 2^n * p(r), |r| <= ln 2 / 2, polynomial of Cephes expf: relative error below 3e-7 for x in [-87,
// 88]; outside, the argument is clamped, so e^-1000 is 1.6e-38.
inline float exponential(float x) {
  x = minimum(maximum(x, -87.0f), 88.0f);
  const float shifted =
      x * 1.44269504088896341f + 12582912.0f;  // 1.5 * 2^23 leaves the rounded integer in the low bits
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const std::uint32_t exponent = (__builtin_bit_cast(std::uint32_t, shifted) + 127u) << 23;
  return p * __builtin_bit_cast(float, exponent);
}

template <class T>
void cast(const float* in, T* out, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) store(out + i, load(in[i]));
}

template <class T>
inline float norm_row(const float* x, const float* weight, float eps, int width, T* out) {
  float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
  for (int i = 0; i < width; ++i) squares += x[i] * x[i];
  const float inverse = 1.0f / __builtin_sqrtf(squares / static_cast<float>(width) + eps);
  for (int i = 0; i < width; ++i) store(out + i, x[i] * inverse * weight[i]);
  return inverse;
}

template <class T>
void norm(const float* x, const std::int32_t* index, const float* weight, float eps, int rows, int width,
          T* out, float* inverse) {
  for (int r = 0; r < rows; ++r) {
    const std::size_t row = static_cast<std::size_t>(index ? index[r] : r);
    inverse[r] = norm_row(x + row * width, weight, eps, width, out + static_cast<std::size_t>(r) * width);
  }
}

template <class T>
void add_norm(const float* x, const T* delta, const float* weight, float eps, int rows, int width, float* sum,
              T* out, float* inverse) {
  for (int r = 0; r < rows; ++r) {
    const std::size_t at = static_cast<std::size_t>(r) * width;
#pragma GCC ivdep
    for (int i = 0; i < width; ++i) sum[at + i] = x[at + i] + load(delta[at + i]);
    inverse[r] = norm_row(sum + at, weight, eps, width, out + at);
  }
}

template <class T>
void combine_norm(const float* x, const T* y, const std::int32_t* slot, const float* share, int k,
                  const float* weight, float eps, int rows, int width, float* sum, T* out, float* inverse) {
  for (int r = 0; r < rows; ++r) {
    const std::size_t at = static_cast<std::size_t>(r) * width;
    float* to = sum + at;
    for (int j = 0; j < k; ++j) {
      const T* from = y + static_cast<std::size_t>(slot[r * k + j]) * width;
      const float* previous = j == 0 ? x + at : to;
      const float factor = share[r * k + j];
#pragma GCC ivdep
      for (int i = 0; i < width; ++i) to[i] = previous[i] + factor * load(from[i]);
    }
    if (weight) inverse[r] = norm_row(to, weight, eps, width, out + at);
  }
}

template <class T>
void norm_backward(const T* base, const T* extra, const std::int32_t* slot, int k, const float* x,
                   const std::int32_t* index, const float* inverse, const float* weight, int rows, int width,
                   float* dx, float* dweight, T* dx_cast, float* dx_sum) {
  // With n = x * inverse and g the gradient of n * weight: dx = inverse * (g w - n * mean(g w n)).
  constexpr int kPiece = 512;
  float gradient[kPiece];
  for (int r = 0; r < rows; ++r) {
    const std::size_t at = static_cast<std::size_t>(r) * width;
    const std::size_t row = static_cast<std::size_t>(index ? index[r] : r) * width;
    const float scale = inverse[r];
    float dot = 0.0f;
    // Two sweeps over the row in pieces; the gradient of a row that fits into one piece is formed once.
    for (int sweep = 0; sweep < 2; ++sweep) {
      const float mean = dot * scale / static_cast<float>(width);
      for (int first = 0; first < width; first += kPiece) {
        const int n = width - first < kPiece ? width - first : kPiece;
        if (sweep == 0 || width > kPiece) {
          if (base) {
            for (int i = 0; i < n; ++i) gradient[i] = load(base[at + first + i]);
          } else {
            for (int i = 0; i < n; ++i) gradient[i] = 0.0f;
          }
          for (int j = 0; j < k; ++j) {
            const T* from = extra + static_cast<std::size_t>(slot[r * k + j]) * width + first;
            for (int i = 0; i < n; ++i) gradient[i] += load(from[i]);
          }
        }
        const float* xs = x + row + first;
        const float* ws = weight + first;
        if (sweep == 0) {
          float* dws = dweight + first;
#pragma omp simd reduction(+ : dot)
          for (int i = 0; i < n; ++i) {
            const float g = gradient[i] * xs[i];
            dws[i] += g * scale;
            dot += g * ws[i];
          }
          continue;
        }
        float* to = dx + row + first;
        const float factor = scale * scale * mean;
#pragma GCC ivdep
        for (int i = 0; i < n; ++i) to[i] += scale * gradient[i] * ws[i] - factor * xs[i];
        if (dx_cast) {
          for (int i = 0; i < n; ++i) store(dx_cast + at + first + i, to[i]);
        }
        if (dx_sum) {
#pragma GCC ivdep
          for (int i = 0; i < n; ++i) dx_sum[first + i] += to[i];
        }
      }
    }
  }
}

template <class T>
void rope(const T* in, HeadLayout from, const std::int32_t* position, const float* cosine, const float* sine,
          int rows, int rotated, int heads, int head_dim, float direction, T* out, HeadLayout to) {
  const int half = head_dim / 2;
  for (int r = 0; r < rows; ++r) {
    for (int h = 0; h < heads; ++h) {
      const T* source = in + r * from.row + h * from.head;
      T* target = out + r * to.row + h * to.head;
      if (h >= rotated) {
        __builtin_memcpy(target, source, static_cast<std::size_t>(head_dim) * sizeof(T));
        continue;
      }
      const float* c = cosine + static_cast<std::size_t>(position[r]) * half;
      const float* s = sine + static_cast<std::size_t>(position[r]) * half;
#pragma GCC ivdep
      for (int i = 0; i < half; ++i) {
        const float a = load(source[i]), b = load(source[half + i]), turn = direction * s[i];
        store(target + i, a * c[i] - b * turn);
        store(target + half + i, b * c[i] + a * turn);
      }
    }
  }
}

struct Columns {
  int begin, end;
};
// The columns of a block that the query in row r sees.
inline Columns visible(const ScoreBlock& b, int r) {
  const int query = b.first_query + r;
  const int oldest = query - b.window + 1 - b.first_key, own = query - b.first_key + 1;
  const int begin = oldest > 0 ? oldest : 0;
  return {begin, own < b.columns ? own : b.columns};
}

template <class T>
void softmax(const ScoreBlock& b, const float* scores, float sink, T* probabilities, float* lse,
             int lse_stride) {
  for (int r = 0; r < b.rows; ++r) {
    const Columns range = visible(b, r);
    const float* s = scores + static_cast<std::size_t>(r) * b.stride;
    T* p = probabilities + static_cast<std::size_t>(r) * b.stride;
    float top = -3.0e38f;
#pragma omp simd reduction(max : top)
    for (int j = range.begin; j < range.end; ++j) top = s[j] > top ? s[j] : top;
    top = maximum(top * b.scale, sink);
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int j = range.begin; j < range.end; ++j) sum += exponential(s[j] * b.scale - top);
    sum += exponential(sink - top);
    const float log_sum = top + __builtin_logf(sum);
    lse[static_cast<std::size_t>(r) * lse_stride] = log_sum;
    const float factor = 1.0f / sum;
    for (int j = 0; j < range.begin; ++j) store(p + j, 0.0f);
    for (int j = range.begin; j < range.end; ++j) store(p + j, exponential(s[j] * b.scale - top) * factor);
    for (int j = range.end; j < b.columns; ++j) store(p + j, 0.0f);
  }
}

template <class T>
void softmax_backward(const ScoreBlock& b, const float* scores, const float* dprobabilities, const float* lse,
                      const float* dot, int stat_stride, T* probabilities, T* dscores) {
  for (int r = 0; r < b.rows; ++r) {
    const Columns range = visible(b, r);
    const std::size_t at = static_cast<std::size_t>(r) * b.stride;
    const float* s = scores + at;
    const float* dp = dprobabilities + at;
    T* p = probabilities + at;
    T* ds = dscores + at;
    const float log_sum = lse[static_cast<std::size_t>(r) * stat_stride];
    const float mean = dot[static_cast<std::size_t>(r) * stat_stride];
    for (int j = 0; j < range.begin; ++j) store(p + j, 0.0f), store(ds + j, 0.0f);
#pragma GCC ivdep
    for (int j = range.begin; j < range.end; ++j) {
      const float probability = exponential(s[j] * b.scale - log_sum);
      store(p + j, probability);
      store(ds + j, probability * (dp[j] - mean) * b.scale);
    }
    for (int j = range.end; j < b.columns; ++j) store(p + j, 0.0f), store(ds + j, 0.0f);
  }
}

template <class T>
void head_dot(const T* a, const T* b, int rows, int heads, int head_dim, float* out) {
  for (int i = 0; i < rows * heads; ++i) {
    const std::size_t at = static_cast<std::size_t>(i) * head_dim;
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int d = 0; d < head_dim; ++d) sum += load(a[at + d]) * load(b[at + d]);
    out[i] = sum;
  }
}

template <class From, class T>
inline void gather_rows(const From* in, const std::int32_t* token, int rows, int width, T* out) {
  for (int r = 0; r < rows; ++r) {
    T* to = out + static_cast<std::size_t>(r) * width;
    if (token[r] < 0) {
      for (int i = 0; i < width; ++i) store(to + i, 0.0f);
      continue;
    }
    const From* from = in + static_cast<std::size_t>(token[r]) * width;
    for (int i = 0; i < width; ++i) store(to + i, load(from[i]));
  }
}
template <class T>
void gather(const T* in, const std::int32_t* token, int rows, int width, T* out) {
  gather_rows(in, token, rows, width, out);
}
template <class T>
void gather_cast(const float* in, const std::int32_t* token, int rows, int width, T* out) {
  gather_rows(in, token, rows, width, out);
}

constexpr float kAlpha = 1.702f;

// 1 / (1 + e^-z), z held to [-40, 40]. The reciprocal is a guess by bits (12 % off) and three Newton steps,
// relative error below 3e-7: a vector division here takes many times as long as all the rest of the loop.
inline float logistic(float z) {
  const float x = 1.0f + exponential(minimum(maximum(-z, -40.0f), 40.0f));
  float r = __builtin_bit_cast(float, 0x7EF311C7u - __builtin_bit_cast(std::uint32_t, x));
  r = r * (2.0f - x * r);
  r = r * (2.0f - x * r);
  return r * (2.0f - x * r);
}

// One gate (even column) and one up (odd column); a pair of Bf16 is one 32-bit word, so that the loop has no
// strides.
struct Pair {
  float gate, up;
};
inline Pair load_pair(const float* in) { return {in[0], in[1]}; }
inline Pair load_pair(const Bf16* in) {
  const std::uint32_t word = *reinterpret_cast<const Word*>(in);
  return {__builtin_bit_cast(float, word << 16), __builtin_bit_cast(float, word & 0xFFFF0000u)};
}
inline void store_pair(float* out, Pair pair) { out[0] = pair.gate, out[1] = pair.up; }
inline void store_pair(Bf16* out, Pair pair) {
  const std::uint32_t gate = rounded(pair.gate) >> 16, up = rounded(pair.up) & 0xFFFF0000u;
  *reinterpret_cast<Word*>(out) = gate | up;
}

template <class T>
void swiglu(const T* in, int rows, int width, float limit, T* out) {
  const std::size_t count = static_cast<std::size_t>(rows) * width;
#pragma GCC ivdep
  for (std::size_t i = 0; i < count; ++i) {
    const Pair u = load_pair(in + 2 * i);
    const float gate = minimum(u.gate, limit);
    const float up = maximum(minimum(u.up, limit), -limit);
    store(out + i, gate * logistic(kAlpha * gate) * (up + 1.0f));
  }
}

template <class T>
void swiglu_backward(const T* in, const T* dout, const float* share, int rows, int width, float limit,
                     T* weighted, T* din, float* dshare, float* din_sum) {
  for (int r = 0; r < rows; ++r) {
    const T* u = in + static_cast<std::size_t>(r) * 2 * width;
    const T* da = dout + static_cast<std::size_t>(r) * width;
    T* a = weighted + static_cast<std::size_t>(r) * width;
    T* du = din + static_cast<std::size_t>(r) * 2 * width;
    const float factor = share[r];
    float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
    for (int i = 0; i < width; ++i) {
      const Pair pair = load_pair(u + 2 * i);
      const float g = pair.gate, l = pair.up;
      const float gate = minimum(g, limit);
      const float up = maximum(minimum(l, limit), -limit) + 1.0f;
      const float sigmoid = logistic(kAlpha * gate);
      const float swish = gate * sigmoid;
      const float d = load(da[i]);
      dot += d * swish * up;
      store(a + i, factor * swish * up);
      const float inside_gate = g <= limit ? factor : 0.0f;
      const float inside_up = (l <= limit ? factor : 0.0f) * (l >= -limit ? 1.0f : 0.0f);
      const float dg = inside_gate * d * up * (sigmoid + kAlpha * swish * (1.0f - sigmoid));
      const float dl = inside_up * d * swish;
      store_pair(du + 2 * i, {dg, dl});
    }
    dshare[r] += dot;
    for (int i = 0; i < 2 * width; ++i) din_sum[i] += load(du[i]);
  }
}

template <class T>
void share_bias(const T* in, const float* bias, const float* share, int rows, int width, float* dshare,
                float* dbias) {
  for (int r = 0; r < rows; ++r) {
    const T* from = in + static_cast<std::size_t>(r) * width;
    const float factor = share[r];
    float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
    for (int i = 0; i < width; ++i) {
      const float value = load(from[i]);
      dot += value * bias[i];
      dbias[i] += factor * value;
    }
    dshare[r] = dot;
  }
}

template <class T>
void column_sum(const T* in, int rows, int width, float* sum) {
  for (int r = 0; r < rows; ++r) {
    const T* from = in + static_cast<std::size_t>(r) * width;
#pragma GCC ivdep
    for (int i = 0; i < width; ++i) sum[i] += load(from[i]);
  }
}

template <class T>
void cross_entropy(const float* logits, const std::int32_t* target, int rows, int width, float factor,
                   T* dlogits, double* loss, std::int64_t* correct) {
  for (int r = 0; r < rows; ++r) {
    const float* row = logits + static_cast<std::size_t>(r) * width;
    float top = row[0];
#pragma omp simd reduction(max : top)
    for (int i = 0; i < width; ++i) top = row[i] > top ? row[i] : top;
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < width; ++i) sum += exponential(row[i] - top);
    *loss += static_cast<double>(__builtin_logf(sum)) + static_cast<double>(top - row[target[r]]);
    *correct += row[target[r]] == top;
    if (!dlogits) continue;
    T* out = dlogits + static_cast<std::size_t>(r) * width;
    const float scale = factor / sum;
    for (int i = 0; i < width; ++i) store(out + i, exponential(row[i] - top) * scale);
    store(out + target[r], exponential(row[target[r]] - top) * scale - factor);
  }
}

template <class T>
constexpr Kernels<T> kTable = {
    .cast = cast<T>,
    .norm = norm<T>,
    .add_norm = add_norm<T>,
    .combine_norm = combine_norm<T>,
    .norm_backward = norm_backward<T>,
    .rope = rope<T>,
    .softmax = softmax<T>,
    .softmax_backward = softmax_backward<T>,
    .head_dot = head_dot<T>,
    .gather = gather<T>,
    .gather_cast = gather_cast<T>,
    .swiglu = swiglu<T>,
    .swiglu_backward = swiglu_backward<T>,
    .share_bias = share_bias<T>,
    .column_sum = column_sum<T>,
    .cross_entropy = cross_entropy<T>,
};

}  // namespace

template <>
const Kernels<float>& table<float>() {
  return kTable<float>;
}
template <>
const Kernels<Bf16>& table<Bf16>() {
  return kTable<Bf16>;
}

}  // namespace capstan::trainer::CAPSTAN_KERNEL_TARGET
