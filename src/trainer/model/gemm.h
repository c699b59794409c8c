// Matrix products by oneDNN, with every primitive made once and kept.
//
//   Gemm gemm;
//   gemm.run({.m = 64, .n = 512, .k = 256, .b_transposed = true, .lda = 256, .ldb = 256, .ldc = 512,
//             .in = Element::kBf16, .out = Element::kF32}, a, b, nullptr, c);
//
// C[m,n] = A[m,k] B[k,n] (+ bias[n] in f32) (+ C if `accumulate`). A transposed operand is stored the other
// way round: A as [k,m] with row stride lda, B as [n,k] with row stride ldb. Sums are f32. Threads: one
// owner.  Cost: a new shape takes about a millisecond once; a run allocates nothing after that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace capstan::trainer {

enum class Element : std::uint8_t { kF32, kBf16 };

struct GemmShape {
  int m = 0, n = 0, k = 0;
  bool a_transposed = false, b_transposed = false;
  int lda = 0, ldb = 0, ldc = 0;
  Element in = Element::kF32, out = Element::kF32;
  bool bias = false, accumulate = false;
  friend bool operator==(const GemmShape&, const GemmShape&) = default;
};

class Gemm {
 public:
  Gemm();
  ~Gemm();
  void run(const GemmShape& shape, const void* a, const void* b, const float* bias, void* c);
  // Whether this CPU multiplies bf16 (AVX-512 or better).
  static bool has_bf16();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Row counts are cut into pieces of few distinct sizes: few primitives then serve every batch, and a chain of
// passes over a piece finds it in the second-level cache. Rows are padded to kRowMultiple: buffers reach
// round_rows(rows), and what stands there is finite.
inline constexpr int kRowMultiple = 32;
constexpr int round_rows(int rows) { return (rows + kRowMultiple - 1) / kRowMultiple * kRowMultiple; }

// Calls visit(first, count) for each piece; count is a multiple of kRowMultiple.
template <class Visit>
void for_pieces(int rows, Visit visit) {
  for (int first = 0, left = round_rows(rows); left > 0;) {
    const int count = left >= 512 ? 512 : left >= 256 ? 256 : left;
    visit(first, count);
    first += count, left -= count;
  }
}

}  // namespace capstan::trainer
