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
  CAPSTAN_ASSERT(type != WeightType::kMxfp4);
  return type == WeightType::kF32 ? 4 : 2;
}

float weight_at(const WeightView& weight, int row, int col) {
  if (weight.type == WeightType::kMxfp4) {
    static constexpr float kFp4[16] = {0, .5f, 1, 1.5f, 2, 3, 4, 6, 0, -.5f, -1, -1.5f, -2, -3, -4, -6};
    const std::size_t block = static_cast<std::size_t>(row) * (weight.cols / kMxfp4Block) + col / kMxfp4Block;
    const int within = col % kMxfp4Block;
    const std::uint8_t byte = weight.data[block * 16 + within / 2];
    const int nibble = within % 2 == 0 ? byte & 15 : byte >> 4;
    return std::ldexp(kFp4[nibble], weight.scales[block] - 127);
  }
  const std::size_t index = weight.input_major ? static_cast<std::size_t>(col) * weight.rows + row
                                               : static_cast<std::size_t>(row) * weight.cols + col;
  const std::uint8_t* at = weight.data + index * bytes_per_element(weight.type);
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
