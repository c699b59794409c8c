// Chooses the table by what the CPU has, once.
#include "trainer/model/kernels.h"

namespace capstan::trainer {
namespace {

template <class T>
const Kernels<T>& choose() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    return avx512::table<T>();
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2::table<T>();
#endif
  return baseline::table<T>();
}

}  // namespace

template <>
const Kernels<float>& kernels<float>() {
  static const Kernels<float>& chosen = choose<float>();
  return chosen;
}

template <>
const Kernels<Bf16>& kernels<Bf16>() {
  static const Kernels<Bf16>& chosen = choose<Bf16>();
  return chosen;
}

}  // namespace capstan::trainer
