// How it works: a block of a panel becomes eight vectors of unsigned bytes (nibbles through a byte shuffle),
// each four inputs of sixteen rows. For each token, eight VPDPBUSD with four of its inputs broadcast sum the
// block in 16 integers, which start at minus offset times the sum of the inputs; then one FMA with both
// scales. Weights are unpacked once for up to 16 tokens. Compiled for AVX-512 with VNNI; only called where
// the machine has them.
#include <immintrin.h>

#include <algorithm>

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

template <PackedType kType>
inline void unpack(const std::uint8_t* numbers, __m512i* out) {
  if constexpr (kType == PackedType::kInt8) {
    for (int g = 0; g < kGroups; ++g) out[g] = _mm512_load_si512(numbers + 64 * g);
  } else {
    const __m512i mask = _mm512_set1_epi8(15);
    const __m512i table =
        _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kFp4Offset)));
    for (int g = 0; g < kGroups / 2; ++g) {
      const __m512i both = _mm512_load_si512(numbers + 64 * g);
      const __m512i low = _mm512_and_si512(both, mask),
                    high = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
      out[g] = kType == PackedType::kMxfp4 ? _mm512_shuffle_epi8(table, low) : low;
      out[g + kGroups / 2] = kType == PackedType::kMxfp4 ? _mm512_shuffle_epi8(table, high) : high;
    }
  }
}

template <PackedType kType, int kTokens>
void run_tile(const PackedTask& task, const PanelShape& shape, const std::uint8_t* panel_at, int panel,
              int token) {
  const std::size_t first = task.x->at(task.first + token, 0);
  const std::int8_t* x = task.x->values(first);
  const float* scales = task.x->scale(first);
  const std::int32_t* corrections = task.x->correction(kType, first);
  __m512 acc[kTokens];
  for (int t = 0; t < kTokens; ++t) acc[t] = _mm512_setzero_ps();
  const std::uint8_t* numbers = panel_at + shape.numbers_at;
  const __m512 factor = _mm512_set1_ps(shape.factor);
  for (std::size_t block = 0; block < shape.blocks; ++block) {
    if constexpr (kTokens == 1) {
      _mm_prefetch(reinterpret_cast<const char*>(numbers) + 2'048, _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(numbers) + 2'112, _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(numbers) + 2'176, _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(numbers) + 2'240, _MM_HINT_T0);
    }
    __m512i w[kGroups];
    unpack<kType>(numbers, w);
    const __m512 weight_scale =
        _mm512_mul_ps(block_scale<kType>(panel_at + block * shape.scale_bytes), factor);
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      const std::int8_t* inputs = x + t * kPackedBlock;
      __m512i even = _mm512_set1_epi32(corrections[t]), odd = _mm512_setzero_si512();
      for (int g = 0; g < kGroups; g += 2) {
        std::int32_t four, next;
        __builtin_memcpy(&four, inputs + 4 * g, 4);
        __builtin_memcpy(&next, inputs + 4 * g + 4, 4);
        even = _mm512_dpbusd_epi32(even, w[g], _mm512_set1_epi32(four));
        odd = _mm512_dpbusd_epi32(odd, w[g + 1], _mm512_set1_epi32(next));
      }
      const __m512 sum = _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
      acc[t] = _mm512_fmadd_ps(sum, _mm512_mul_ps(weight_scale, _mm512_set1_ps(scales[t])), acc[t]);
    }
    numbers += shape.number_bytes;
    x += QuantizedRows::kTileRows * kPackedBlock;
    scales += QuantizedRows::kTileRows;
    corrections += QuantizedRows::kTileRows;
  }
  for (int t = 0; t < kTokens; ++t) {
    alignas(64) float out[kPanelRows];
    _mm512_store_ps(out, acc[t]);
    store_panel(task, panel, token + t, out);
  }
}

template <PackedType kType>
void run_panels(const PackedTask& task, int begin, int end) {
  const PanelShape shape(kType, task.weight.cols);
  for (int panel = begin; panel < end; ++panel) {
    const std::uint8_t* at = task.weight.data + static_cast<std::size_t>(panel) * shape.bytes;
    int token = 0;
    for (; token + 16 <= task.tokens; token += 16) run_tile<kType, 16>(task, shape, at, panel, token);
    for (; token + 8 <= task.tokens; token += 8) run_tile<kType, 8>(task, shape, at, panel, token);
    for (; token + 4 <= task.tokens; token += 4) run_tile<kType, 4>(task, shape, at, panel, token);
    for (; token + 2 <= task.tokens; token += 2) run_tile<kType, 2>(task, shape, at, panel, token);
    if (token < task.tokens) run_tile<kType, 1>(task, shape, at, panel, token);
  }
}

}  // namespace

void packed_panels_avx512(const PackedTask& task, int begin, int end) {
  switch (task.weight.type) {
    case PackedType::kMxfp4:
      return run_panels<PackedType::kMxfp4>(task, begin, end);
    case PackedType::kInt8:
      return run_panels<PackedType::kInt8>(task, begin, end);
    case PackedType::kInt4:
      return run_panels<PackedType::kInt4>(task, begin, end);
  }
}

QuantizedBlock quantize_block_avx512(const float* x, std::int8_t* values) {
  const __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
  const float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
  const __m512 inverse = _mm512_set1_ps(most > 0 ? 127 / most : 0);
  const __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(a, inverse)),
                high = _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(values), _mm512_cvtepi32_epi8(low));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(values + 16), _mm512_cvtepi32_epi8(high));
  return {most / 127, _mm512_reduce_add_epi32(_mm512_add_epi32(low, high))};
}

}  // namespace capstan::engine
