// Loads and decoders of stored weights, for the kernels (compiled once per SIMD target).
#if defined(CAPSTAN_ENGINE_KERNELS_DECODE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CAPSTAN_ENGINE_KERNELS_DECODE_INL_H_
#undef CAPSTAN_ENGINE_KERNELS_DECODE_INL_H_
#else
#define CAPSTAN_ENGINE_KERNELS_DECODE_INL_H_
#endif

#include <bit>
#include <cstdint>
#include <cstring>

#include "engine/kernels/weight.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace capstan::engine {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

enum Bf16Bits : std::uint16_t {};
enum F16Bits : std::uint16_t {};

template <class D>
HWY_INLINE hn::Vec<D> load_f32(D d, const float* from) {
  return hn::LoadU(d, from);
}
template <class D>
HWY_INLINE hn::Vec<D> load_f32(D d, const Bf16Bits* from) {
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<std::uint16_t, D> d16;
  const auto bits = hn::LoadU(d16, reinterpret_cast<const std::uint16_t*>(from));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, bits)));
}
template <class D>
HWY_INLINE hn::Vec<D> load_f32(D d, const F16Bits* from) {
  const hn::Rebind<hwy::float16_t, D> d16;
  return hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(from)));
}

// The first `count` elements (fewer than a vector), zeros above; reads nothing beyond them.
template <class D, class Element>
HWY_INLINE hn::Vec<D> load_f32_first(D d, const Element* from, int count) {
  HWY_ALIGN Element buffer[HWY_MAX_BYTES / sizeof(float)] = {};
  for (int i = 0; i < count; ++i) std::memcpy(buffer + i, from + i, sizeof(Element));
  return load_f32(d, static_cast<const Element*>(buffer));
}

// 32 values of one MXFP4 block. fp4 times 2 is an integer, so the scale is halved: 2^(scale - 128), exactly.
// With kHalves the low nibbles are the first sixteen (GGUF), without the even ones (safetensors).
template <bool kHalves>
HWY_INLINE void decode_mxfp4_block(const std::uint8_t* HWY_RESTRICT bytes, std::uint8_t scale,
                                   float* HWY_RESTRICT out) {
  HWY_ALIGN static constexpr std::uint8_t kTwiceFp4[16] = {0, 1,   2,   3,   4,   6,   8,   12,
                                                           0, 255, 254, 253, 252, 250, 248, 244};
  const std::uint32_t half_scale_bits = scale >= 2 ? (scale - 1u) << 23 : 0x00200000u << scale;
#if HWY_TARGET == HWY_SCALAR
  const float half = std::bit_cast<float>(half_scale_bits);
  for (int i = 0; i < kMxfp4Block / 2; ++i) {
    out[kHalves ? i : 2 * i] = static_cast<std::int8_t>(kTwiceFp4[bytes[i] & 15]) * half;
    out[kHalves ? i + 16 : 2 * i + 1] = static_cast<std::int8_t>(kTwiceFp4[bytes[i] >> 4]) * half;
  }
#else
  const hn::FixedTag<std::uint8_t, 16> d8;
  const auto table = hn::Load(d8, kTwiceFp4);
  const auto packed = hn::LoadU(d8, bytes);
  const auto low = hn::And(packed, hn::Set(d8, 15));
  const auto high = hn::ShiftRight<4>(packed);
  HWY_ALIGN std::uint8_t twice[kMxfp4Block];
  const auto first = kHalves ? low : hn::InterleaveLower(d8, low, high);
  const auto second = kHalves ? high : hn::InterleaveUpper(d8, low, high);
  hn::Store(hn::TableLookupBytes(table, first), d8, twice);
  hn::Store(hn::TableLookupBytes(table, second), d8, twice + 16);
  const hn::CappedTag<float, 16> d;
  const hn::RebindToSigned<decltype(d)> d32;
  const hn::Rebind<std::int8_t, decltype(d)> di8;
  const auto half_scale = hn::Set(d, std::bit_cast<float>(half_scale_bits));
  for (std::size_t i = 0; i < kMxfp4Block; i += hn::Lanes(d)) {
    const auto integers = hn::PromoteTo(d32, hn::LoadU(di8, reinterpret_cast<const std::int8_t*>(twice) + i));
    hn::StoreU(hn::Mul(hn::ConvertTo(d, integers), half_scale), d, out + i);
  }
#endif
}

template <class Element>
HWY_INLINE void decode_row(const Element* HWY_RESTRICT from, int count, float* HWY_RESTRICT out) {
  const hn::ScalableTag<float> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  int i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(load_f32(d, from + i), d, out + i);
  if (i < count) {
    HWY_ALIGN float rest[HWY_MAX_BYTES / sizeof(float)];
    hn::Store(load_f32_first(d, from + i, count - i), d, rest);
    std::memcpy(out + i, rest, (count - i) * sizeof(float));
  }
}

// 32 values of one Q8_0 block.
HWY_INLINE void decode_q8_0_block(const std::uint8_t* HWY_RESTRICT from, float* HWY_RESTRICT out) {
  std::uint16_t bits;
  std::memcpy(&bits, from, 2);
  const float scale = f32_from_f16(bits);
  for (int i = 0; i < kMxfp4Block; ++i)
    out[i] = static_cast<float>(static_cast<std::int8_t>(from[2 + i])) * scale;
}

// Rows [begin, end) of a row-major weight as f32, `cols` apart.
HWY_INLINE void decode_rows(const WeightView& weight, int begin, int end, float* HWY_RESTRICT out) {
  const std::size_t cols = weight.cols;
  for (int row = begin; row < end; ++row, out += cols) {
    const std::uint8_t* from = weight.row_begin(row);
    if (weight.type == WeightType::kMxfp4) {
      const std::uint8_t* scales = weight.scales + row * (cols / kMxfp4Block);
      for (std::size_t b = 0; b < cols / kMxfp4Block; ++b)
        decode_mxfp4_block<false>(from + b * 16, scales[b], out + b * kMxfp4Block);
    } else if (weight.type == WeightType::kGgufMxfp4) {
      for (std::size_t b = 0; b < cols / kMxfp4Block; ++b, from += 17)
        decode_mxfp4_block<true>(from + 1, *from, out + b * kMxfp4Block);
    } else if (weight.type == WeightType::kQ8_0) {
      for (std::size_t b = 0; b < cols / kMxfp4Block; ++b, from += 34)
        decode_q8_0_block(from, out + b * kMxfp4Block);
    } else if (weight.type == WeightType::kBf16) {
      decode_row(reinterpret_cast<const Bf16Bits*>(from), weight.cols, out);
    } else if (weight.type == WeightType::kF16) {
      decode_row(reinterpret_cast<const F16Bits*>(from), weight.cols, out);
    } else {
      decode_row(reinterpret_cast<const float*>(from), weight.cols, out);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace capstan::engine
HWY_AFTER_NAMESPACE();
#endif  // CAPSTAN_ENGINE_KERNELS_DECODE_INL_H_
