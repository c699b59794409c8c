// How it works. A block of a panel becomes vectors of numbers of sixteen rows, which stay in registers while up to sixteen
// tokens, a tile of QuantizedRows, meet them, each with few of its inputs broadcast. With 15-bit inputs (Words) there are
// sixteen vectors of signed 16-bit numbers, inputs 0 and 2 and inputs 1 and 3 of each group of four, and VPDPWSSD multiplies
// two pairs: as many products for numbers of 12 bits as for those of 4. With 8-bit inputs (Bytes, MXFP4 alone) there are eight
// of unsigned bytes, and VPDPBUSD multiplies four. Planes is for the rests that packed_amx.cc leaves: its 15-bit inputs come as
// high and low bytes, and VPDPBUSD meets either. Sums are exact; unsigned bytes' begin at minus their offset times the sum of
// the inputs. After a block one FMA with both scales.
//
// Each tile unpacks again: that is cheaper than writing the numbers and reading them back. A panel stays in the second-level
// cache for a group of tokens; its first tile fetches what comes next. Compiled for AVX-512 with VNNI; only called where the
// machine has them.
#include <immintrin.h>

#include "engine/kernels/packed_unpack-inl.h"

namespace capstan::engine {
namespace {

constexpr int kTokensTogether = 64;  // whose inputs to a panel stay in the second-level cache
constexpr int kAhead = 8'192;        // bytes from what is read to what is fetched

// Sums += products of pairs of words, and of four unsigned with four signed bytes; the right ones are four bytes of inputs for
// all rows. Written out because g++ would broadcast them with an instruction of its own.
using FourBytes [[gnu::may_alias, gnu::aligned(1)]] = std::int32_t;
inline void add_words(__m512i& sum, __m512i w, const void* inputs) {
  __asm__("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*static_cast<const FourBytes*>(inputs)));
}
inline void add_bytes(__m512i& sum, __m512i w, const void* inputs) {
  __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*static_cast<const FourBytes*>(inputs)));
}

// Where `mask` is set `b`, else `a`.
inline __m512i select(__m512i mask, __m512i b, __m512i a) { return _mm512_ternarylogic_epi32(mask, b, a, 0xCA); }

template <PackedType kType>
struct Words {
  static constexpr PackedType kWeights = kType;
  static constexpr int kVectors = 2 * kGroups;

  static CAPSTAN_INLINE void unpack(const std::uint8_t* numbers, __m512i* out) {
    constexpr int kLow = low_bits(kType);
    if constexpr (high_bits(kType) == 4) {
      const __m512i table = _mm512_load_si512(kNibbles.values);
      const auto look_up = [&](__m512i words) { return _mm512_permutexvar_epi16(words, table); };
#pragma GCC unroll 4
      for (int g = 0; g < kGroups / 2; ++g) {
        const __m512i line = _mm512_load_si512(numbers + 64 * g);
        __m512i *first = out + 2 * g, *second = first + kGroups;
        first[0] = look_up(line);
        second[0] = look_up(_mm512_srli_epi16(line, 4));
        first[1] = look_up(_mm512_srli_epi16(line, 8));
        second[1] = look_up(_mm512_srli_epi16(line, 12));
      }
      return;
    }
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) {
      widen(_mm512_xor_si512(_mm512_load_si512(numbers + 64 * g), _mm512_set1_epi8(-128)), out + 2 * g);
      if constexpr (kLow > 0) {
        const __m512i line = _mm512_load_si512(numbers + kHighBytes + 64 * (g % kLow));
        const __m512i mask = _mm512_set1_epi16((1 << kLow) - 1);
        const int shift = g / kLow * kLow;
        out[2 * g] = select(mask, _mm512_srli_epi16(line, shift), out[2 * g]);
        out[2 * g + 1] = select(mask, _mm512_srli_epi16(line, shift + 8), out[2 * g + 1]);
      }
    }
  }
  static CAPSTAN_INLINE __m512i sum(const __m512i* w, const QuantizedRows& x, std::size_t at) {
    const std::int16_t* inputs = x.wide(at);
    const __m512i zero = _mm512_setzero_si512();
    __m512i sums[4] = {zero, zero, zero, zero};  // one chain alone would wait for each product
#pragma GCC unroll 16
    for (int i = 0; i < kVectors; ++i) add_words(sums[i % 4], w[i], inputs + 2 * i);
    return _mm512_add_epi32(_mm512_add_epi32(sums[0], sums[1]), _mm512_add_epi32(sums[2], sums[3]));
  }

 private:
  // What nibbles mean, twice: VPERMW looks at five bits.
  struct alignas(64) Nibbles {
    std::int16_t values[32] = {};
    constexpr Nibbles() {
      for (int i = 0; i < 32; ++i)
        values[i] = static_cast<std::int16_t>(kType == PackedType::kMxfp4 ? kFp4Offset[i % 16] - 12 : i % 16 - 8);
    }
  };
  static constexpr Nibbles kNibbles{};
  // Times 2^low_bits, of which the even ones' are zeros.
  static void widen(__m512i bytes, __m512i* out) {
    out[0] = _mm512_srai_epi16(_mm512_slli_epi16(bytes, 8), 8 - low_bits(kType));
    out[1] = _mm512_srai_epi16(bytes, 8 - low_bits(kType));
  }
};

struct Bytes {
  static constexpr PackedType kWeights = PackedType::kMxfp4;
  static constexpr int kVectors = kGroups;

  static CAPSTAN_INLINE void unpack(const std::uint8_t* numbers, __m512i* out) { engine::unpack<kWeights>(numbers, out); }
  static CAPSTAN_INLINE __m512i sum(const __m512i* w, const QuantizedRows& x, std::size_t at) {
    const std::int8_t* inputs = x.byte(at);
    __m512i sums[2] = {_mm512_set1_epi32(whole_correction(*x.pair_correction(at))), _mm512_setzero_si512()};
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) add_bytes(sums[g % 2], w[g], inputs + 4 * g);
    return _mm512_add_epi32(sums[0], sums[1]);
  }
};

template <PackedType kType>
struct Planes {
  static constexpr PackedType kWeights = kType;
  static constexpr int kLow = low_bits(kType);
  static constexpr int kVectors = kLow > 0 ? 2 * kGroups : kGroups;

  static CAPSTAN_INLINE void unpack(const std::uint8_t* numbers, __m512i* out) {
    engine::unpack<kType>(numbers, out);
    if constexpr (kLow > 0) unpack_low<kType>(numbers, out + kGroups);
  }
  static CAPSTAN_INLINE __m512i sum(const __m512i* w, const QuantizedRows& x, std::size_t at) {
    const __m512i first = part(w, x, at, *x.correction(kOffset<kType>, at));
    if constexpr (kLow == 0) return first;
    return _mm512_add_epi32(_mm512_slli_epi32(first, kLow), part(w + kGroups, x, at, 0));
  }

 private:
  static CAPSTAN_INLINE __m512i part(const __m512i* w, const QuantizedRows& x, std::size_t at, std::int32_t correction) {
    const std::int8_t *high = x.high(at), *low = x.low(at);
    // Four chains, as above.
    __m512i tops[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    __m512i rests[2] = {_mm512_set1_epi32(correction), _mm512_setzero_si512()};
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) {
      add_bytes(tops[g % 2], w[g], high + 4 * g);
      add_bytes(rests[g % 2], w[g], low + 4 * g);
    }
    const __m512i top = _mm512_add_epi32(tops[0], tops[1]), rest = _mm512_add_epi32(rests[0], rests[1]);
    return _mm512_add_epi32(_mm512_slli_epi32(top, 8), rest);
  }
};

// Writes a panel's sums of a token to its outputs.
CAPSTAN_INLINE void store_sums(const PackedTask& task, int panel, int token, __m512 sums) {
  const int row = panel * kPanelRows, left = task.weight.rows - row;
  const auto rows = static_cast<__mmask16>(left < kPanelRows ? (1 << left) - 1 : 0xFFFF);
  float* out = task.out + static_cast<std::size_t>(token) * task.out_stride + row;
  if (task.bias != nullptr) sums = _mm512_add_ps(sums, _mm512_maskz_loadu_ps(rows, task.bias + row));
  if (task.accumulate) sums = _mm512_add_ps(_mm512_maskz_loadu_ps(rows, out), sums);
  _mm512_mask_storeu_ps(out, rows, sums);
}

CAPSTAN_INLINE void fetch(const std::uint8_t* from, std::size_t bytes) {
  for (std::size_t at = 0; at < bytes; at += 64) _mm_prefetch(reinterpret_cast<const char*>(from) + at, _MM_HINT_T0);
}

// One panel and kTokens tokens of a tile. A function of its own: taken into its callers, g++ does not keep its sums in registers.
template <class How, int kTokens, bool kFetches>
__attribute__((noinline)) void run_tile(const PackedTask& task, const PanelShape& shape, int panel, int token) {
  const QuantizedRows& x = *task.x;
  const std::uint8_t* scales_at = task.weight.data + static_cast<std::size_t>(panel) * shape.bytes;
  const std::uint8_t* numbers = scales_at + shape.numbers_at;
  if constexpr (kFetches) fetch(scales_at + kAhead, shape.numbers_at);
  std::size_t at = x.at(task.first + token, 0);
  __m512 acc[kTokens];
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) acc[t] = _mm512_setzero_ps();
  const __m512 factor = _mm512_set1_ps(shape.factor);
  for (std::size_t block = 0; block < shape.blocks; ++block) {
    if constexpr (kFetches) fetch(numbers + kAhead, shape.number_bytes);
    __m512i w[How::kVectors];
    How::unpack(numbers, w);
    const __m512 weight_scale = _mm512_mul_ps(block_scale<How::kWeights>(scales_at), factor);
    const float* scales = x.scale(at);
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      const __m512 sum = _mm512_cvtepi32_ps(How::sum(w, x, at + static_cast<std::size_t>(t)));
      acc[t] = _mm512_fmadd_ps(sum, _mm512_mul_ps(weight_scale, _mm512_set1_ps(scales[t])), acc[t]);
    }
    scales_at += shape.scale_bytes;
    numbers += shape.number_bytes;
    at += QuantizedRows::kTileRows;
  }
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) store_sums(task, panel, token + t, acc[t]);
}

template <class How>
void run_panels(const PackedTask& task, int begin, int end) {
  const PanelShape shape(How::kWeights, task.weight.cols);
  for (int first = 0; first < task.tokens; first += kTokensTogether) {
    const int last = task.tokens - first < kTokensTogether ? task.tokens : first + kTokensTogether;
    for (int panel = begin; panel < end; ++panel) {
      for (int token = first; token < last; token += QuantizedRows::kTileRows) {
        const int left = last - token, count = left < QuantizedRows::kTileRows ? left : QuantizedRows::kTileRows;
        with_tokens<QuantizedRows::kTileRows>(count, [&]<int kTokens>() {
          const auto run = token == 0 ? run_tile<How, kTokens, true> : run_tile<How, kTokens, false>;
          run(task, shape, panel, token);
        });
      }
    }
  }
}

template <template <PackedType> class How>
void run_any(const PackedTask& task, int begin, int end) {
  switch (task.weight.type) {
    case PackedType::kMxfp4:
      return run_panels<How<PackedType::kMxfp4>>(task, begin, end);
    case PackedType::kInt4:
      return run_panels<How<PackedType::kInt4>>(task, begin, end);
    case PackedType::kInt8:
      return run_panels<How<PackedType::kInt8>>(task, begin, end);
    case PackedType::kInt10:
      return run_panels<How<PackedType::kInt10>>(task, begin, end);
    case PackedType::kInt12:
      return run_panels<How<PackedType::kInt12>>(task, begin, end);
  }
}

}  // namespace

void packed_panels_avx512(const PackedTask& task, int begin, int end) {
  switch (task.x->form()) {
    case QuantizedRows::Form::kBytes:
      return run_panels<Bytes>(task, begin, end);
    case QuantizedRows::Form::kWide:
      return run_any<Words>(task, begin, end);
    case QuantizedRows::Form::kPlanes:
      return run_any<Planes>(task, begin, end);
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
