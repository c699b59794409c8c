// How it works: as packed_avx512.cc with 32-byte vectors (a panel is two halves of eight rows) and without
// VNNI: products of unsigned numbers with signed inputs are added in pairs to 16 bits, then to 32. Numbers of
// four bits are at most 24, so four groups fit 16 bits before they are widened; 8-bit numbers are widened
// first. Compiled for AVX2, FMA and F16C; only called where the machine has them.
#include <immintrin.h>

#include <algorithm>

#include "engine/kernels/packed_kernels.h"

namespace capstan::engine {
namespace {

constexpr int kGroups = kPackedBlock / 4;

template <PackedType kType>
inline __m256 block_scale(const std::uint8_t* scales, int half) {
  if constexpr (kType == PackedType::kMxfp4) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales + 8 * half));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu8_epi32(bytes), 23));
  } else {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales + 16 * half)));
  }
}

// The eight groups of eight rows; of kInt8 signed numbers.
template <PackedType kType>
inline void unpack(const std::uint8_t* numbers, int half, __m256i* out) {
  const auto load = [&](int g) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(numbers + 64 * g + 32 * half));
  };
  if constexpr (kType == PackedType::kInt8) {
    const __m256i flip = _mm256_set1_epi8(static_cast<char>(0x80));
    for (int g = 0; g < kGroups; ++g) out[g] = _mm256_xor_si256(load(g), flip);
  } else {
    const __m256i mask = _mm256_set1_epi8(15);
    const __m256i table =
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kFp4Offset)));
    for (int g = 0; g < kGroups / 2; ++g) {
      const __m256i both = load(g);
      const __m256i low = _mm256_and_si256(both, mask),
                    high = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
      out[g] = kType == PackedType::kMxfp4 ? _mm256_shuffle_epi8(table, low) : low;
      out[g + kGroups / 2] = kType == PackedType::kMxfp4 ? _mm256_shuffle_epi8(table, high) : high;
    }
  }
}

// The products with one byte of each input.
template <PackedType kType>
inline __m256i byte_sum(const __m256i* w, const std::int8_t* inputs) {
  const __m256i ones = _mm256_set1_epi16(1);
  const auto broadcast = [&](int g) {
    std::int32_t four;
    __builtin_memcpy(&four, inputs + 4 * g, 4);
    return _mm256_set1_epi32(four);
  };
  __m256i sum = _mm256_setzero_si256();
  if constexpr (kType == PackedType::kInt8) {
    for (int g = 0; g < kGroups; ++g) {
      const __m256i x = broadcast(g);
      const __m256i low = _mm256_madd_epi16(_mm256_cvtepi8_epi16(_mm256_castsi256_si128(x)),
                                            _mm256_cvtepi8_epi16(_mm256_castsi256_si128(w[g])));
      const __m256i high = _mm256_madd_epi16(_mm256_cvtepi8_epi16(_mm256_extracti128_si256(x, 1)),
                                             _mm256_cvtepi8_epi16(_mm256_extracti128_si256(w[g], 1)));
      sum = _mm256_add_epi32(sum, _mm256_permute4x64_epi64(_mm256_hadd_epi32(low, high), 0xD8));
    }
  } else {
    for (int g = 0; g < kGroups; g += 4) {
      __m256i pairs = _mm256_maddubs_epi16(w[g], broadcast(g));
      for (int i = 1; i < 4; ++i)
        pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w[g + i], broadcast(g + i)));
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
    }
  }
  return sum;
}

template <PackedType kType>
inline __m256 block_value(const __m256i* w, const QuantizedRows& x, std::size_t at) {
  constexpr auto kOffset = kType == PackedType::kMxfp4 ? QuantizedRows::k12 : QuantizedRows::k8;
  const __m256i correction = _mm256_set1_epi32(kType == PackedType::kInt8 ? 0 : *x.correction(kOffset, at));
  const __m256i tops = byte_sum<kType>(w, x.high(at)), rests = byte_sum<kType>(w, x.low(at));
  return _mm256_cvtepi32_ps(
      _mm256_add_epi32(_mm256_add_epi32(_mm256_slli_epi32(tops, 8), rests), correction));
}

template <PackedType kType, int kTokens>
void run_tile(const PackedTask& task, const PanelShape& shape, const std::uint8_t* panel_at, int panel,
              int token) {
  constexpr bool kTwoParts = kType == PackedType::kInt12;
  constexpr PackedType kFirst = kTwoParts ? PackedType::kInt8 : kType;
  const std::size_t first = task.x->at(task.first + token, 0);
  alignas(32) float out[kTokens][kPanelRows];
  const __m256 factor = _mm256_set1_ps(shape.factor);
  for (int half = 0; half < 2; ++half) {
    __m256 acc[kTokens];
    for (int t = 0; t < kTokens; ++t) acc[t] = _mm256_setzero_ps();
    const std::uint8_t* numbers = panel_at + shape.numbers_at;
    for (std::size_t block = 0; block < shape.blocks; ++block, numbers += shape.number_bytes) {
      __m256i w[kGroups], rest[kGroups];
      unpack<kFirst>(numbers, half, w);
      if constexpr (kTwoParts) unpack<PackedType::kInt4>(numbers + kHighBytes, half, rest);
      const __m256 weight_scale =
          _mm256_mul_ps(block_scale<kType>(panel_at + block * shape.scale_bytes, half), factor);
      for (int t = 0; t < kTokens; ++t) {
        const std::size_t at = first + block * QuantizedRows::kTileRows + static_cast<std::size_t>(t);
        __m256 sum = block_value<kFirst>(w, *task.x, at);
        if constexpr (kTwoParts)
          sum = _mm256_fmadd_ps(sum, _mm256_set1_ps(16), block_value<PackedType::kInt4>(rest, *task.x, at));
        acc[t] =
            _mm256_fmadd_ps(sum, _mm256_mul_ps(weight_scale, _mm256_set1_ps(*task.x->scale(at))), acc[t]);
      }
    }
    for (int t = 0; t < kTokens; ++t) _mm256_store_ps(out[t] + 8 * half, acc[t]);
  }
  for (int t = 0; t < kTokens; ++t) store_panel(task, panel, token + t, out[t]);
}

template <PackedType kType>
void run_panels(const PackedTask& task, int begin, int end) {
  const PanelShape shape(kType, task.weight.cols);
  for (int panel = begin; panel < end; ++panel) {
    const std::uint8_t* at = task.weight.data + static_cast<std::size_t>(panel) * shape.bytes;
    int token = 0;
    for (; token + 4 <= task.tokens; token += 4) run_tile<kType, 4>(task, shape, at, panel, token);
    for (; token + 2 <= task.tokens; token += 2) run_tile<kType, 2>(task, shape, at, panel, token);
    if (token < task.tokens) run_tile<kType, 1>(task, shape, at, panel, token);
  }
}

}  // namespace

void packed_panels_avx2(const PackedTask& task, int begin, int end) {
  switch (task.weight.type) {
    case PackedType::kMxfp4:
      return run_panels<PackedType::kMxfp4>(task, begin, end);
    case PackedType::kInt8:
      return run_panels<PackedType::kInt8>(task, begin, end);
    case PackedType::kInt4:
      return run_panels<PackedType::kInt4>(task, begin, end);
    case PackedType::kInt12:
      return run_panels<PackedType::kInt12>(task, begin, end);
  }
}

}  // namespace capstan::engine
