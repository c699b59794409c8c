// MXFP4: 32 values share one power-of-two scale and take 4 bits each (OCP microscaling format, v1.0).
//
//   value = e2m1(nibble) * 2^(scale - 127)        e2m1: 0 .5 1 1.5 2 3 4 6, then the negatives with bit 3 set
//   byte i of a block holds value 2i in its low nibble and 2i + 1 in its high one
//
// Quantising picks the scale with the least squared error; nearest value, ties to the even code. The three
// scales it tries are enough: with e = floor(log2(largest)) - 2, a scale above e + 1 has only points that e +
// 1 has too, and one below e - 1 loses more on the largest value than 31 others can win (mxfp4_test compares
// all 255). Pure; threads: any.  Cost: about two microseconds a block.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace capstan::trainer {

inline constexpr std::size_t kMxfp4BlockValues = 32;
inline constexpr std::size_t kMxfp4BlockBytes = 16;

struct Mxfp4Block {
  std::array<std::uint8_t, kMxfp4BlockBytes> nibbles{};
  std::uint8_t scale = 127;
};

// `values` are finite; larger than 6 * 2^127 cannot happen in float.
Mxfp4Block quantize_mxfp4(std::span<const float, kMxfp4BlockValues> values);

std::array<float, kMxfp4BlockValues> dequantize_mxfp4(const Mxfp4Block& block);

// The code (0 to 15) of the e2m1 value nearest to `value`; beyond 6 it saturates.
std::uint8_t nearest_e2m1(float value);

inline constexpr std::array<float, 8> kE2m1Values = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};

}  // namespace capstan::trainer
