// Unpacking for the AVX-512 kernels: a block's numbers as vectors of unsigned bytes, its scales as floats.
#pragma once

#include <immintrin.h>

#include "engine/kernels/packed_kernels.h"

namespace capstan::engine {
namespace {

constexpr int kGroups = kPackedBlock / 4;

template <PackedType kType>
inline __m512 block_scale(const std::uint8_t* scales) {
  if constexpr (kType == PackedType::kMxfp4) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu8_epi32(bytes), 23));
  } else {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales)));
  }
}

// Eight groups of four inputs, of numbers of two parts the first.
template <PackedType kType>
CAPSTAN_INLINE void unpack(const std::uint8_t* numbers, __m512i* out) {
  if constexpr (high_bits(kType) == 8) {
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) out[g] = _mm512_load_si512(numbers + 64 * g);
  } else {
    const __m512i mask = _mm512_set1_epi8(15);
    const __m512i table =
        _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kFp4Offset)));
#pragma GCC unroll 4
    for (int g = 0; g < kGroups / 2; ++g) {
      const __m512i both = _mm512_load_si512(numbers + 64 * g);
      const __m512i low = _mm512_and_si512(both, mask);
      const __m512i high = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
      out[g] = kType == PackedType::kMxfp4 ? _mm512_shuffle_epi8(table, low) : low;
      out[g + kGroups / 2] = kType == PackedType::kMxfp4 ? _mm512_shuffle_epi8(table, high) : high;
    }
  }
}

// The second part.
template <PackedType kType>
CAPSTAN_INLINE void unpack_low(const std::uint8_t* numbers, __m512i* out) {
  constexpr int kBits = low_bits(kType), kLines = kBits;
  const __m512i mask = _mm512_set1_epi8((1 << kBits) - 1);
#pragma GCC unroll 8
  for (int g = 0; g < kGroups; ++g) {
    const __m512i line = _mm512_load_si512(numbers + kHighBytes + 64 * (g % kLines));
    out[g] = _mm512_and_si512(_mm512_srli_epi16(line, g / kLines * kBits), mask);
  }
}

template <PackedType kType>
constexpr QuantizedRows::Offset kOffset = kType == PackedType::kMxfp4 ? QuantizedRows::k12
                                          : kType == PackedType::kInt4 ? QuantizedRows::k8
                                                                       : QuantizedRows::k128;

// Of a block of 8-bit inputs, from QuantizedRows::pair_correction.
inline std::int32_t whole_correction(std::int32_t pair) { return static_cast<std::int16_t>(pair) + (pair >> 16); }

}  // namespace
}  // namespace capstan::engine
