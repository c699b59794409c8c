// out = x · Wᵀ + bias over stored weights (BF16, F16, F32, MXFP4), in f32.
//
//   MatmulTask task{.weight = w, .bias = b, .x = x, .tokens = t, .x_stride = w.cols, .out = y, .out_stride =
//   w.rows}; matmul(std::span(&task, 1), pool);
//
// Shapes: x is (tokens, cols) with rows x_stride apart, out (tokens, rows) with rows out_stride apart.
// Weights are decoded exactly. One output is always summed in the same order: for row-major weights in SIMD
// lanes along the inputs, then across lanes; for input-major weights input by input. So its bits depend on
// its row of W and its token alone, not on the other tokens, the other tasks or the threads (but on the SIMD
// target). Several tasks of one call are spread over the pool together; they must not write to the same
// outputs. Cost: each weight is read once a call for up to a few hundred tokens. Threads: as ThreadPool.
#pragma once

#include <span>

#include "engine/kernels/thread_pool.h"
#include "engine/kernels/weight.h"

namespace capstan::engine {

struct MatmulTask {
  WeightView weight;
  const float* bias = nullptr;  // [rows], or null
  const float* x = nullptr;
  int tokens = 0;
  std::size_t x_stride = 0;
  float* out = nullptr;
  std::size_t out_stride = 0;
  bool accumulate = false;  // out += instead of out =
};

void matmul(std::span<const MatmulTask> tasks, ThreadPool& pool);

// The twin: one multiplication after the other, summed in double.
void matmul_scalar(const MatmulTask& task);

// Rows [begin, end) of one task on this thread; `begin` is a multiple of kMatmulRowsPerChunk.
inline constexpr int kMatmulRowsPerChunk = 32;
void matmul_rows(const MatmulTask& task, int begin, int end);

}  // namespace capstan::engine
