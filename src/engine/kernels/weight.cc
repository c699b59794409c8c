// The scalar decoders: bit by bit, from the formats' definitions.
#include "engine/kernels/weight.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "base/assert.h"

namespace capstan::engine {

float f32_from_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

float f32_from_f16(std::uint16_t bits) {
  const int sign = bits >> 15;
  const int exponent = (bits >> 10) & 31;
  const int mantissa = bits & 1023;
  float magnitude;
  if (exponent == 31) {
    magnitude = mantissa == 0 ? INFINITY : NAN;
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(mantissa), -24);
  } else {
    magnitude = std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
  }
  return sign ? -magnitude : magnitude;
}

std::size_t bytes_per_element(WeightType type) {
  CAPSTAN_ASSERT(type == WeightType::kF32 || type == WeightType::kF16 || type == WeightType::kBf16);
  return type == WeightType::kF32 ? 4 : 2;
}

std::size_t row_bytes(WeightType type, int cols) {
  const auto count = static_cast<std::size_t>(cols);
  switch (type) {
    case WeightType::kMxfp4:
      return count / 2;
    case WeightType::kGgufMxfp4:
      return count / kMxfp4Block * 17;
    case WeightType::kQ8_0:
      return count / kMxfp4Block * 34;
    default:
      return count * bytes_per_element(type);
  }
}

const std::uint8_t* WeightView::row_begin(int row) const {
  const std::size_t bytes = row_bytes(type, cols);
  if (odd_rows == nullptr) return data + static_cast<std::size_t>(row) * bytes;
  return (row % 2 == 0 ? data : odd_rows) + static_cast<std::size_t>(row / 2) * bytes;
}

Mxfp4Block mxfp4_block(const WeightView& weight, int row, int block) {
  Mxfp4Block out;
  if (weight.type == WeightType::kMxfp4) {
    const std::size_t at =
        static_cast<std::size_t>(row) * static_cast<std::size_t>(weight.cols / kMxfp4Block) + block;
    out.scale = weight.scales[at];
    std::memcpy(out.pairs, weight.data + at * sizeof(out.pairs), sizeof(out.pairs));
    return out;
  }
  CAPSTAN_ASSERT(weight.type == WeightType::kGgufMxfp4);
  const std::uint8_t* from = weight.row_begin(row) + static_cast<std::size_t>(block) * 17;
  out.scale = *from++;
  for (int i = 0; i < 8; ++i) {
    out.pairs[i] = static_cast<std::uint8_t>((from[2 * i] & 15) | (from[2 * i + 1] & 15) << 4);
    out.pairs[8 + i] = static_cast<std::uint8_t>(from[2 * i] >> 4 | (from[2 * i + 1] & 0xF0));
  }
  return out;
}

float weight_at(const WeightView& weight, int row, int col) {
  if (weight.is_mxfp4()) {
    static constexpr float kFp4[16] = {0, .5f, 1, 1.5f, 2, 3, 4, 6, 0, -.5f, -1, -1.5f, -2, -3, -4, -6};
    const Mxfp4Block block = mxfp4_block(weight, row, col / kMxfp4Block);
    const int within = col % kMxfp4Block;
    const std::uint8_t byte = block.pairs[within / 2];
    const int nibble = within % 2 == 0 ? byte & 15 : byte >> 4;
    return std::ldexp(kFp4[nibble], block.scale - 127);
  }
  if (weight.type == WeightType::kQ8_0) {
    const std::uint8_t* from = weight.row_begin(row) + col / kMxfp4Block * 34;
    std::uint16_t scale;
    std::memcpy(&scale, from, 2);
    return static_cast<float>(static_cast<std::int8_t>(from[2 + col % kMxfp4Block])) * f32_from_f16(scale);
  }
  const std::size_t size = bytes_per_element(weight.type);
  const std::uint8_t* at = weight.input_major
                               ? weight.data + (static_cast<std::size_t>(col) * weight.rows + row) * size
                               : weight.row_begin(row) + static_cast<std::size_t>(col) * size;
  if (weight.type == WeightType::kF32) {
    float value;
    std::memcpy(&value, at, 4);
    return value;
  }
  std::uint16_t bits;
  std::memcpy(&bits, at, 2);
  return weight.type == WeightType::kBf16 ? f32_from_bf16(bits) : f32_from_f16(bits);
}

}  // namespace capstan::engine
