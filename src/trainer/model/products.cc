// The three matrix products of a linear layer, in pieces of few distinct row counts, and the buffers.
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "trainer/model/passes.h"

namespace capstan::trainer {
namespace {

template <class T>
constexpr Element kElement = std::is_same_v<T, Bf16> ? Element::kBf16 : Element::kF32;

}  // namespace

template <class U>
void Buffer<U>::reserve(std::size_t count) {
  if (count <= count_) return;
  count += count / 8 + 64;
  const std::size_t bytes = count * sizeof(U);
  data_.reset(static_cast<U*>(::operator new[](bytes, std::align_val_t{64})));
  // Huge pages where the buffer is large: strided reads of matrix products would miss the TLB.
  constexpr std::uintptr_t kHugePage = 2 << 20;
  const std::uintptr_t begin =
      (reinterpret_cast<std::uintptr_t>(data_.get()) + kHugePage - 1) / kHugePage * kHugePage;
  const std::uintptr_t end = (reinterpret_cast<std::uintptr_t>(data_.get()) + bytes) / kHugePage * kHugePage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  std::memset(static_cast<void*>(data_.get()), 0, bytes);
  count_ = count;
}

template <class T>
template <class Out>
void Passes<T>::linear(int rows, int n, int k, const T* x, const T* w, const float* bias, Out* y) {
  for_pieces(rows, [&](int first, int m) {
    const GemmShape shape{.m = m,
                          .n = n,
                          .k = k,
                          .b_transposed = true,
                          .lda = k,
                          .ldb = k,
                          .ldc = n,
                          .in = kElement<T>,
                          .out = kElement<Out>,
                          .bias = bias != nullptr};
    gemm_.run(shape, x + static_cast<std::size_t>(first) * k, w, bias,
              y + static_cast<std::size_t>(first) * n);
  });
}

template <class T>
void Passes<T>::input_gradient(int rows, int n, int k, const T* dy, const T* w, T* dx) {
  for_pieces(rows, [&](int first, int m) {
    const GemmShape shape{
        .m = m, .n = k, .k = n, .lda = n, .ldb = k, .ldc = k, .in = kElement<T>, .out = kElement<T>};
    gemm_.run(shape, dy + static_cast<std::size_t>(first) * n, w, nullptr,
              dx + static_cast<std::size_t>(first) * k);
  });
}

template <class T>
void Passes<T>::weight_gradient(int rows, int n, int k, const T* dy, const T* x, float* dw) {
  for_pieces(rows, [&](int first, int m) {
    const GemmShape shape{.m = n,
                          .n = k,
                          .k = m,
                          .a_transposed = true,
                          .lda = n,
                          .ldb = k,
                          .ldc = k,
                          .in = kElement<T>,
                          .out = Element::kF32,
                          .accumulate = true};
    gemm_.run(shape, dy + static_cast<std::size_t>(first) * n, x + static_cast<std::size_t>(first) * k,
              nullptr, dw);
  });
}

template <class T>
void Passes<T>::zero_tail(T* rows, int count, int width) {
  std::memset(static_cast<void*>(rows + static_cast<std::size_t>(count) * width), 0,
              static_cast<std::size_t>(round_rows(count) - count) * width * sizeof(T));
}

template class Buffer<float>;
template class Buffer<Bf16>;
template void Passes<float>::linear(int, int, int, const float*, const float*, const float*, float*);
template void Passes<Bf16>::linear(int, int, int, const Bf16*, const Bf16*, const float*, Bf16*);
template void Passes<Bf16>::linear(int, int, int, const Bf16*, const Bf16*, const float*, float*);
template void Passes<float>::input_gradient(int, int, int, const float*, const float*, float*);
template void Passes<Bf16>::input_gradient(int, int, int, const Bf16*, const Bf16*, Bf16*);
template void Passes<float>::weight_gradient(int, int, int, const float*, const float*, float*);
template void Passes<Bf16>::weight_gradient(int, int, int, const Bf16*, const Bf16*, float*);
template void Passes<float>::zero_tail(float*, int, int);
template void Passes<Bf16>::zero_tail(Bf16*, int, int);

}  // namespace capstan::trainer
