// How it works: scaling by a power of two is exact in float (ldexp), so the only rounding is the one to e2m1,
// done by comparing with the midpoints between neighbours.
#include "trainer/mxfp4.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace capstan::trainer {
namespace {

constexpr int kExponentMin = -127;
constexpr int kExponentMax = 125;  // 6 * 2^125 is the largest point that a float can hold

struct Attempt {
  Mxfp4Block block;
  double error = std::numeric_limits<double>::infinity();
};

Attempt quantize_at(std::span<const float, kMxfp4BlockValues> values, int exponent) {
  Attempt attempt;
  attempt.block.scale = static_cast<std::uint8_t>(exponent + 127);
  attempt.error = 0;
  for (std::size_t i = 0; i < kMxfp4BlockValues; ++i) {
    const auto scaled = static_cast<float>(std::ldexp(static_cast<double>(values[i]), -exponent));
    const std::uint8_t code = nearest_e2m1(scaled);
    const double back = std::ldexp((code & 8 ? -1.0 : 1.0) * kE2m1Values[code & 7], exponent);
    attempt.error += (back - values[i]) * (back - values[i]);
    attempt.block.nibbles[i / 2] |= static_cast<std::uint8_t>(i % 2 == 0 ? code : code << 4);
  }
  return attempt;
}

}  // namespace

std::uint8_t nearest_e2m1(float value) {
  // Midpoints between neighbours; at a tie the even code wins: below an odd code's midpoint "<", else "<=".
  constexpr std::array<float, 7> kMidpoints = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f};
  const float magnitude = std::fabs(value);
  std::uint8_t code = 0;
  for (std::uint8_t lower = 0; lower < 7; ++lower) {
    const bool above = lower % 2 == 0 ? magnitude > kMidpoints[lower] : magnitude >= kMidpoints[lower];
    if (above) code = static_cast<std::uint8_t>(lower + 1);
  }
  return value < 0 && code != 0 ? static_cast<std::uint8_t>(code | 8) : code;
}

Mxfp4Block quantize_mxfp4(std::span<const float, kMxfp4BlockValues> values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::fabs(value));
  if (largest == 0) return {};
  const int base = std::ilogb(largest) - 2;
  Attempt best;
  for (const int offset : {0, 1, -1}) {  // ties go to the earlier
    const Attempt attempt = quantize_at(values, std::clamp(base + offset, kExponentMin, kExponentMax));
    if (attempt.error < best.error) best = attempt;
  }
  return best.block;
}

std::array<float, kMxfp4BlockValues> dequantize_mxfp4(const Mxfp4Block& block) {
  std::array<float, kMxfp4BlockValues> values{};
  for (std::size_t i = 0; i < kMxfp4BlockValues; ++i) {
    const int code = i % 2 == 0 ? block.nibbles[i / 2] & 15 : block.nibbles[i / 2] >> 4;
    const float magnitude = std::ldexp(kE2m1Values[static_cast<std::size_t>(code & 7)], block.scale - 127);
    values[i] = code & 8 ? -magnitude : magnitude;
  }
  return values;
}

}  // namespace capstan::trainer
