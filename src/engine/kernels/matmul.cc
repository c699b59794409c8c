// How it works. A chunk is 32 rows of W. Row-major weights: the chunk is decoded once into f32 in this
// thread's scratch (it stays in L2), then tiles of 4 rows by 4 tokens run over the inputs with one vector
// accumulator an output. BF16 and F32 with few tokens skip the scratch and convert in registers. Input-major
// weights: tiles of 2 vectors of outputs by 4 tokens run over the inputs, each input broadcast. Compiled once
// per instruction set (Highway's dynamic dispatch).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/kernels/matmul.cc"
#include "hwy/foreach_target.h"  // must come before highway.h

#include "engine/kernels/matmul.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "engine/kernels/decode-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace capstan::engine {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int kTokensPerTile = HWY_TARGET <= HWY_AVX3 ? 4 : 2;
constexpr int kDirectTokensMax = 4;

// acc[r][t] = sum over cols of w[r] * x[t]; Element is float or bf16's bits.
template <int kRows, int kTokens, class Element>
HWY_INLINE void dot_tile(const Element* HWY_RESTRICT w, std::size_t w_stride, const float* HWY_RESTRICT x,
                         std::size_t x_stride, int cols, float* HWY_RESTRICT sums) {
  const hn::ScalableTag<float> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  hn::Vec<decltype(d)> acc[kRows][kTokens];
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) acc[r][t] = hn::Zero(d);
  }
  int c = 0;
  for (; c + lanes <= cols; c += lanes) {
    hn::Vec<decltype(d)> xs[kTokens];
    for (int t = 0; t < kTokens; ++t) xs[t] = hn::LoadU(d, x + t * x_stride + c);
    for (int r = 0; r < kRows; ++r) {
      const auto weights = load_f32(d, w + r * w_stride + c);
      for (int t = 0; t < kTokens; ++t) acc[r][t] = hn::MulAdd(weights, xs[t], acc[r][t]);
    }
  }
  if (c < cols) {
    hn::Vec<decltype(d)> xs[kTokens];
    for (int t = 0; t < kTokens; ++t) xs[t] = load_f32_first(d, x + t * x_stride + c, cols - c);
    for (int r = 0; r < kRows; ++r) {
      const auto weights = load_f32_first(d, w + r * w_stride + c, cols - c);
      for (int t = 0; t < kTokens; ++t) acc[r][t] = hn::MulAdd(weights, xs[t], acc[r][t]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) sums[r * kTokens + t] = hn::GetLane(hn::SumOfLanes(d, acc[r][t]));
  }
}

HWY_INLINE void store_sum(const MatmulTask& task, int row, int token, float sum) {
  float value = task.bias == nullptr ? sum : sum + task.bias[row];
  float* out = task.out + token * task.out_stride + row;
  *out = task.accumulate ? *out + value : value;
}

template <int kRows, int kTokens, class Element>
HWY_INLINE void run_tile(const MatmulTask& task, const Element* w, int row, int token) {
  float sums[kRows * kTokens];
  const int cols = task.weight.cols;
  dot_tile<kRows, kTokens>(w, cols, task.x + token * task.x_stride, task.x_stride, cols, sums);
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) store_sum(task, row + r, token + t, sums[r * kTokens + t]);
  }
}

// Rows [begin, end) whose weights start at `w` (cols apart), for kTokens tokens.
template <int kTokens, class Element>
HWY_NOINLINE void run_rows(const MatmulTask& task, const Element* w, int begin, int end, int token) {
  constexpr int kRows = kTokens == 1 ? 8 : 4;
  const std::size_t cols = task.weight.cols;
  int row = begin;
  for (; row + kRows <= end; row += kRows)
    run_tile<kRows, kTokens>(task, w + (row - begin) * cols, row, token);
  for (; row < end; ++row) run_tile<1, kTokens>(task, w + (row - begin) * cols, row, token);
}

template <class Element>
void run_tokens(const MatmulTask& task, const Element* w, int begin, int end) {
  int token = 0;
  for (; token + kTokensPerTile <= task.tokens; token += kTokensPerTile) {
    run_rows<kTokensPerTile>(task, w, begin, end, token);
  }
  for (; token + 2 <= task.tokens; token += 2) run_rows<2>(task, w, begin, end, token);
  if (token < task.tokens) run_rows<1>(task, w, begin, end, token);
}

// Outputs [row, row + 2 vectors or fewer) for kTokens tokens over an input-major weight.
template <int kTokens, bool kWhole, class Element>
HWY_INLINE void column_tile(const MatmulTask& task, int row, int count, int token) {
  const hn::ScalableTag<float> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const std::size_t stride = task.weight.rows;
  const Element* w = reinterpret_cast<const Element*>(task.weight.data) + row;
  const float* x = task.x + token * task.x_stride;
  hn::Vec<decltype(d)> acc0[kTokens], acc1[kTokens];
  for (int t = 0; t < kTokens; ++t) acc0[t] = acc1[t] = hn::Zero(d);
  for (int c = 0; c < task.weight.cols; ++c, w += stride) {
    const auto w0 = kWhole ? load_f32(d, w) : load_f32_first(d, w, std::min(count, lanes));
    const auto w1 =
        kWhole ? load_f32(d, w + lanes) : load_f32_first(d, w + lanes, std::max(count - lanes, 0));
    for (int t = 0; t < kTokens; ++t) {
      const auto input = hn::Set(d, x[t * task.x_stride + c]);
      acc0[t] = hn::MulAdd(w0, input, acc0[t]);
      acc1[t] = hn::MulAdd(w1, input, acc1[t]);
    }
  }
  HWY_ALIGN float sums[2 * HWY_MAX_BYTES / sizeof(float)] = {};
  for (int t = 0; t < kTokens; ++t) {
    hn::Store(acc0[t], d, sums);
    hn::Store(acc1[t], d, sums + lanes);
    for (int i = 0; i < count; ++i) store_sum(task, row + i, token + t, sums[i]);
  }
}

template <int kTokens, class Element>
HWY_NOINLINE void column_tiles(const MatmulTask& task, int begin, int end, int token) {
  const int width = 2 * static_cast<int>(hn::Lanes(hn::ScalableTag<float>()));
  int row = begin;
  for (; row + width <= end; row += width) column_tile<kTokens, true, Element>(task, row, width, token);
  if (row < end) column_tile<kTokens, false, Element>(task, row, end - row, token);
}

template <class Element>
void run_input_major(const MatmulTask& task, int begin, int end) {
  int token = 0;
  for (; token + 4 <= task.tokens; token += 4) column_tiles<4, Element>(task, begin, end, token);
  for (; token < task.tokens; ++token) column_tiles<1, Element>(task, begin, end, token);
}

void MatmulRows(const MatmulTask& task, int begin, int end) {
  const WeightView& weight = task.weight;
  if (weight.input_major) {
    if (weight.type == WeightType::kBf16) return run_input_major<Bf16Bits>(task, begin, end);
    if (weight.type == WeightType::kF16) return run_input_major<F16Bits>(task, begin, end);
    return run_input_major<float>(task, begin, end);
  }
  const bool together = weight.odd_rows == nullptr;
  if (weight.type == WeightType::kF32 && together) {
    return run_tokens(task, reinterpret_cast<const float*>(weight.row_begin(begin)), begin, end);
  }
  if (weight.type == WeightType::kBf16 && together && task.tokens <= kDirectTokensMax) {
    return run_tokens(task, reinterpret_cast<const Bf16Bits*>(weight.row_begin(begin)), begin, end);
  }
  static thread_local std::vector<float> scratch;
  scratch.resize(std::max(scratch.size(), static_cast<std::size_t>(kMatmulRowsPerChunk) * weight.cols));
  decode_rows(weight, begin, end, scratch.data());
  run_tokens(task, scratch.data(), begin, end);
}

}  // namespace HWY_NAMESPACE
}  // namespace capstan::engine
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace capstan::engine {
namespace {

// Below this many multiplications a chunk is not worth a hand-off (some 10 microseconds).
constexpr double kWorkPerChunkMin = 400e3;

int chunk_rows(const MatmulTask& task) {
  const double work_per_row = static_cast<double>(task.weight.cols) * (task.tokens + 1);
  const int blocks = static_cast<int>(kWorkPerChunkMin / (work_per_row * kMatmulRowsPerChunk)) + 1;
  return blocks * kMatmulRowsPerChunk;
}

}  // namespace

HWY_EXPORT(MatmulRows);

void matmul_rows(const MatmulTask& task, int begin, int end) {
  for (int row = begin; row < end; row += kMatmulRowsPerChunk) {
    HWY_DYNAMIC_DISPATCH(MatmulRows)(task, row, std::min(end, row + kMatmulRowsPerChunk));
  }
}

void matmul(std::span<const MatmulTask> tasks, ThreadPool& pool) {
  struct Chunk {
    const MatmulTask* task;
    int begin;
    int end;
  };
  static thread_local std::vector<Chunk> chunks;
  chunks.clear();
  double work = 0;
  for (const MatmulTask& task : tasks) {
    if (task.tokens == 0) continue;
    work += static_cast<double>(task.weight.rows) * task.weight.cols * (task.tokens + 1);
    const int rows = chunk_rows(task);
    for (int row = 0; row < task.weight.rows; row += rows) {
      chunks.push_back({&task, row, std::min(task.weight.rows, row + rows)});
    }
  }
  if (work < 2 * kWorkPerChunkMin || pool.threads() == 1) {
    for (const Chunk& chunk : chunks) matmul_rows(*chunk.task, chunk.begin, chunk.end);
    return;
  }
  const std::vector<Chunk>& list = chunks;  // the caller's; helpers have their own
  pool.parallel_for(static_cast<int>(list.size()),
                    [&list](int i) { matmul_rows(*list[i].task, list[i].begin, list[i].end); });
}

void matmul_scalar(const MatmulTask& task) {
  for (int t = 0; t < task.tokens; ++t) {
    for (int row = 0; row < task.weight.rows; ++row) {
      double sum = task.bias == nullptr ? 0 : task.bias[row];
      for (int c = 0; c < task.weight.cols; ++c) {
        sum += static_cast<double>(weight_at(task.weight, row, c)) * task.x[t * task.x_stride + c];
      }
      float& out = task.out[t * task.out_stride + row];
      out = static_cast<float>(task.accumulate ? out + sum : sum);
    }
  }
}

}  // namespace capstan::engine
#endif  // HWY_ONCE
