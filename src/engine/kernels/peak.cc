// How it works: each thread repeats a loop of independent sums. The instructions are written out, because a compiler would
// drop a loop whose results nobody uses.
#include "engine/kernels/peak.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "engine/kernels/packed.h"

namespace capstan::engine {
namespace {

constexpr int kRuns = 10;

#if defined(__x86_64__)
// Eight products of 32 pairs of bytes each, added in 16 bits.
void loop_avx2(std::int64_t rounds) {
  __asm__ volatile(
      "1:\n\t"
      "vpmaddubsw %%ymm14, %%ymm15, %%ymm8\n\tvpmaddubsw %%ymm14, %%ymm15, %%ymm9\n\t"
      "vpmaddubsw %%ymm14, %%ymm15, %%ymm10\n\tvpmaddubsw %%ymm14, %%ymm15, %%ymm11\n\t"
      "vpaddw %%ymm8, %%ymm0, %%ymm0\n\tvpaddw %%ymm9, %%ymm1, %%ymm1\n\t"
      "vpaddw %%ymm10, %%ymm2, %%ymm2\n\tvpaddw %%ymm11, %%ymm3, %%ymm3\n\t"
      "vpmaddubsw %%ymm14, %%ymm15, %%ymm8\n\tvpmaddubsw %%ymm14, %%ymm15, %%ymm9\n\t"
      "vpmaddubsw %%ymm14, %%ymm15, %%ymm10\n\tvpmaddubsw %%ymm14, %%ymm15, %%ymm11\n\t"
      "vpaddw %%ymm8, %%ymm4, %%ymm4\n\tvpaddw %%ymm9, %%ymm5, %%ymm5\n\t"
      "vpaddw %%ymm10, %%ymm6, %%ymm6\n\tvpaddw %%ymm11, %%ymm7, %%ymm7\n\t"
      "dec %0\n\tjnz 1b\n\tvzeroupper"
      : "+r"(rounds)
      :
      : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm14",
        "xmm15");
}

// Twelve products of 64 pairs each, added in 32 bits.
void loop_avx512(std::int64_t rounds) {
  __asm__ volatile(
      "1:\n\t"
      "vpdpbusd %%zmm14, %%zmm15, %%zmm0\n\tvpdpbusd %%zmm14, %%zmm15, %%zmm1\n\tvpdpbusd %%zmm14, %%zmm15, %%zmm2\n\t"
      "vpdpbusd %%zmm14, %%zmm15, %%zmm3\n\tvpdpbusd %%zmm14, %%zmm15, %%zmm4\n\tvpdpbusd %%zmm14, %%zmm15, %%zmm5\n\t"
      "vpdpbusd %%zmm14, %%zmm15, %%zmm6\n\tvpdpbusd %%zmm14, %%zmm15, %%zmm7\n\tvpdpbusd %%zmm14, %%zmm15, %%zmm8\n\t"
      "vpdpbusd %%zmm14, %%zmm15, %%zmm9\n\tvpdpbusd %%zmm14, %%zmm15, %%zmm10\n\tvpdpbusd %%zmm14, %%zmm15, %%zmm11\n\t"
      "dec %0\n\tjnz 1b\n\tvzeroupper"
      : "+r"(rounds)
      :
      : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm14",
        "xmm15");
}

struct Loop {
  void (*run)(std::int64_t rounds);
  double products_per_round;
};
// With tiles, packed products of few tokens are those of vectors, and so is this figure.
Loop loop_of(Isa isa) {
  if (isa == Isa::kScalar) return {nullptr, 0};
  return isa == Isa::kAvx2 ? Loop{loop_avx2, 8 * 32} : Loop{loop_avx512, 12 * 64};
}
#else
struct Loop {
  void (*run)(std::int64_t rounds);
  double products_per_round;
};
Loop loop_of(Isa) { return {nullptr, 0}; }
#endif

}  // namespace

double peak_multiplications(int threads) {
  using Clock = std::chrono::steady_clock;
  constexpr std::int64_t kRounds = 1'000'000;
  const Loop loop = loop_of(current_isa());
  if (loop.run == nullptr) return 0;
  double best = 0;
  for (int run = 0; run < kRuns; ++run) {
    std::vector<std::thread> helpers;
    std::vector<double> rates(static_cast<std::size_t>(threads));
    for (double& rate : rates) {
      helpers.emplace_back([&rate, &loop] {
        const auto begin = Clock::now();
        loop.run(kRounds);
        rate = kRounds * loop.products_per_round / std::chrono::duration<double>(Clock::now() - begin).count();
      });
    }
    double sum = 0;
    for (std::size_t i = 0; i < helpers.size(); ++i) {
      helpers[i].join();
      sum += rates[i];
    }
    best = std::max(best, sum);
  }
  return best;
}

}  // namespace capstan::engine
