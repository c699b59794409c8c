// How it works: a block of a panel becomes eight vectors of unsigned bytes (nibbles through a byte shuffle),
// each four inputs of sixteen rows. For each token, eight VPDPBUSD with four of its high bytes broadcast and
// eight with its low ones sum the block in integers, from minus the offset times the sum of the inputs; then
// one FMA with both scales. Weights are unpacked once for up to eight tokens. Compiled for AVX-512 with VNNI;
// only called where the machine has them.
#include <immintrin.h>

#include "engine/kernels/packed_unpack-inl.h"

namespace capstan::engine {
namespace {

inline __m512i four(const std::int8_t* inputs) {
  std::int32_t bytes;
  __builtin_memcpy(&bytes, inputs, 4);
  return _mm512_set1_epi32(bytes);
}

inline __m512i block_sum(const __m512i* w, const std::int8_t* high, const std::int8_t* low,
                         std::int32_t correction) {
  // Four chains: one alone would wait for each product.
  __m512i tops[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  __m512i rests[2] = {_mm512_set1_epi32(correction), _mm512_setzero_si512()};
  for (int g = 0; g < kGroups; ++g) {
    tops[g % 2] = _mm512_dpbusd_epi32(tops[g % 2], w[g], four(high + 4 * g));
    rests[g % 2] = _mm512_dpbusd_epi32(rests[g % 2], w[g], four(low + 4 * g));
  }
  const __m512i top = _mm512_add_epi32(tops[0], tops[1]), rest = _mm512_add_epi32(rests[0], rests[1]);
  return _mm512_add_epi32(_mm512_slli_epi32(top, 8), rest);
}

template <PackedType kType, int kTokens>
void run_tile(const PackedTask& task, const PanelShape& shape, const std::uint8_t* panel_at, int panel,
              int token) {
  constexpr int kLow = low_bits(kType);
  const std::size_t first = task.x->at(task.first + token, 0);
  const std::int8_t* high = task.x->high(first);
  const std::int8_t* low = task.x->low(first);
  const float* scales = task.x->scale(first);
  const std::int32_t* corrections = task.x->correction(kOffset<kType>, first);
  __m512 acc[kTokens];
  for (int t = 0; t < kTokens; ++t) acc[t] = _mm512_setzero_ps();
  const std::uint8_t* numbers = panel_at + shape.numbers_at;
  const __m512 factor = _mm512_set1_ps(shape.factor);
  for (std::size_t block = 0; block < shape.blocks; ++block) {
    for (std::size_t line = 0; line < shape.number_bytes; line += 64)
      _mm_prefetch(reinterpret_cast<const char*>(numbers) + 4'096 + line, _MM_HINT_T1);
    __m512i w[kGroups], rest[kGroups];
    unpack<kType>(numbers, w);
    if constexpr (kLow > 0) unpack_low<kType>(numbers, rest);
    const __m512 weight_scale =
        _mm512_mul_ps(block_scale<kType>(panel_at + block * shape.scale_bytes), factor);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const std::int8_t* tops = high + t * kPackedBlock;
      const std::int8_t* rests = low + t * kPackedBlock;
      __m512i sum = block_sum(w, tops, rests, corrections[t]);
      if constexpr (kLow > 0)
        sum = _mm512_add_epi32(_mm512_slli_epi32(sum, kLow), block_sum(rest, tops, rests, 0));
      acc[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum),
                               _mm512_mul_ps(weight_scale, _mm512_set1_ps(scales[t])), acc[t]);
    }
    numbers += shape.number_bytes;
    high += QuantizedRows::kTileRows * kPackedBlock;
    low += QuantizedRows::kTileRows * kPackedBlock;
    scales += QuantizedRows::kTileRows;
    corrections += QuantizedRows::kTileRows;
  }
  for (int t = 0; t < kTokens; ++t) {
    alignas(64) float out[kPanelRows];
    _mm512_store_ps(out, acc[t]);
    store_panel(task, panel, token + t, out);
  }
}

// The same with inputs of 8 bits: one product where the other has two.
template <int kTokens>
void run_byte_tile(const PackedTask& task, const PanelShape& shape, const std::uint8_t* panel_at, int panel, int token) {
  constexpr PackedType kType = PackedType::kMxfp4;
  std::size_t at = task.x->at(task.first + token, 0);
  __m512 acc[kTokens];
  for (auto& sum : acc) sum = _mm512_setzero_ps();
  const std::uint8_t* numbers = panel_at + shape.numbers_at;
  const __m512 factor = _mm512_set1_ps(shape.factor);
  for (std::size_t block = 0; block < shape.blocks; ++block) {
    for (std::size_t line = 0; line < shape.number_bytes; line += 64)
      _mm_prefetch(reinterpret_cast<const char*>(numbers) + 4'096 + line, _MM_HINT_T1);
    __m512i w[kGroups];
    unpack<kType>(numbers, w);
    const __m512 weight_scale =
        _mm512_mul_ps(block_scale<kType>(panel_at + block * shape.scale_bytes), factor);
    const float* scales = task.x->scale(at);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const std::int8_t* inputs = task.x->byte(at + static_cast<std::size_t>(t));
      __m512i sums[2] = {_mm512_set1_epi32(whole_correction(*task.x->pair_correction(at + static_cast<std::size_t>(t)))),
                         _mm512_setzero_si512()};
      for (int g = 0; g < kGroups; ++g) sums[g % 2] = _mm512_dpbusd_epi32(sums[g % 2], w[g], four(inputs + 4 * g));
      acc[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(sums[0], sums[1])),
                               _mm512_mul_ps(weight_scale, _mm512_set1_ps(scales[t])), acc[t]);
    }
    numbers += shape.number_bytes;
    at += QuantizedRows::kTileRows;
  }
  for (int t = 0; t < kTokens; ++t) {
    alignas(64) float out[kPanelRows];
    _mm512_store_ps(out, acc[t]);
    store_panel(task, panel, token + t, out);
  }
}

void run_byte_panels(const PackedTask& task, int begin, int end) {
  const PanelShape shape(PackedType::kMxfp4, task.weight.cols);
  for (int panel = begin; panel < end; ++panel) {
    const std::uint8_t* at = task.weight.data + static_cast<std::size_t>(panel) * shape.bytes;
    int token = 0;
    for (; token + 8 <= task.tokens; token += 8) run_byte_tile<8>(task, shape, at, panel, token);
    for (; token + 4 <= task.tokens; token += 4) run_byte_tile<4>(task, shape, at, panel, token);
    for (; token + 2 <= task.tokens; token += 2) run_byte_tile<2>(task, shape, at, panel, token);
    if (token < task.tokens) run_byte_tile<1>(task, shape, at, panel, token);
  }
}

template <PackedType kType>
void run_panels(const PackedTask& task, int begin, int end) {
  const PanelShape shape(kType, task.weight.cols);
  for (int panel = begin; panel < end; ++panel) {
    const std::uint8_t* at = task.weight.data + static_cast<std::size_t>(panel) * shape.bytes;
    int token = 0;
    for (; token + 8 <= task.tokens; token += 8) run_tile<kType, 8>(task, shape, at, panel, token);
    for (; token + 4 <= task.tokens; token += 4) run_tile<kType, 4>(task, shape, at, panel, token);
    for (; token + 2 <= task.tokens; token += 2) run_tile<kType, 2>(task, shape, at, panel, token);
    if (token < task.tokens) run_tile<kType, 1>(task, shape, at, panel, token);
  }
}

}  // namespace

void packed_panels_avx512(const PackedTask& task, int begin, int end) {
  if (task.x->form() == QuantizedRows::Form::kBytes) return run_byte_panels(task, begin, end);
  switch (task.weight.type) {
    case PackedType::kMxfp4:
      return run_panels<PackedType::kMxfp4>(task, begin, end);
    case PackedType::kInt4:
      return run_panels<PackedType::kInt4>(task, begin, end);
    case PackedType::kInt8:
      return run_panels<PackedType::kInt8>(task, begin, end);
    case PackedType::kInt10:
      return run_panels<PackedType::kInt10>(task, begin, end);
    case PackedType::kInt12:
      return run_panels<PackedType::kInt12>(task, begin, end);
  }
}

QuantizedBlock quantize_block_avx512(const float* x, std::int8_t* high, std::int8_t* low) {
  const __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
  const float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
  const __m512 inverse = _mm512_set1_ps(activation_inverse(most, kActivationMax));
  std::int32_t sum = 0;
  for (int half = 0; half < 2; ++half) {
    const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(half == 0 ? a : b, inverse));
    const __m512i top = _mm512_srai_epi32(_mm512_add_epi32(q, _mm512_set1_epi32(128)), 8);
    const __m512i rest = _mm512_sub_epi32(q, _mm512_slli_epi32(top, 8));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(high + 16 * half), _mm512_cvtepi32_epi8(top));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(low + 16 * half), _mm512_cvtepi32_epi8(rest));
    sum += _mm512_reduce_add_epi32(q);
  }
  return {most / kActivationMax, sum};
}

}  // namespace capstan::engine
