// How it works: an exponential variable is, in units of ln 2, a geometric number of whole units (coin flips: the leading zeros of
// a random word) plus an independent rest below one unit. The rest comes from a table of -ln(1 - i/512), i = 0 to 256,
// with straight lines between its entries; the table is made by the compiler from the series of the logarithm, in integers.
#include "sim/random_draws.h"

#include <algorithm>
#include <bit>

namespace capstan::sim {
namespace {

constexpr int kShift = 32;  // results are in units of 2^-32
constexpr std::size_t kSteps = 256;

// -ln(1 - i/512) = sum over n of (i/512)^n / n, in units of 2^-60, then rounded to 2^-32.
constexpr std::int64_t minus_log(std::uint64_t i) {
  unsigned __int128 power = static_cast<unsigned __int128>(1) << 60;
  unsigned __int128 sum = 0;
  for (std::uint64_t n = 1; n <= 64; ++n) {
    power = power * i / 512;
    sum += power / n;
  }
  return static_cast<std::int64_t>((sum + (1u << 27)) >> 28);
}

constexpr auto kMinusLog = [] {
  std::array<std::int64_t, kSteps + 1> out{};
  for (std::size_t i = 0; i <= kSteps; ++i) out[i] = minus_log(i);
  return out;
}();
constexpr std::int64_t kLog2 = kMinusLog[kSteps];
static_assert(kLog2 == 2'977'044'472);  // ln 2 × 2^32

}  // namespace

std::int64_t exponential(Prng& prng, std::int64_t mean) {
  CAPSTAN_ASSERT(mean >= 0 && mean <= (std::int64_t{1} << 56));
  const std::int64_t units = std::countl_zero(prng.next());  // 0 to 64
  const std::uint64_t word = prng.next();
  const auto step = static_cast<std::size_t>(word >> 56);
  const auto part = static_cast<std::int64_t>((word >> 24) & 0xFFFFFFFFu);  // between two entries
  const std::int64_t span = kMinusLog[step + 1] - kMinusLog[step];
  const std::int64_t rest = kMinusLog[step] + static_cast<std::int64_t>((static_cast<__int128>(span) * part) >> kShift);
  const __int128 value = static_cast<__int128>(units) * kLog2 + rest;
  return static_cast<std::int64_t>((value * mean) >> kShift);
}

std::int64_t by_doublings(Prng& prng, std::int64_t low, std::int64_t high) {
  CAPSTAN_ASSERT(low >= 1 && low <= high && high <= (std::int64_t{1} << 60));
  // Doublings begin at low; the last is cut at high, and as likely as the part of it that is left.
  std::array<std::int64_t, 64> weights{};
  std::size_t count = 0;
  constexpr std::int64_t kWhole = 1'000;
  for (std::int64_t from = low; from <= high && count < weights.size(); from *= 2) {
    const __int128 inside = std::min(high + 1, from * 2) - from;
    weights[count++] = std::max<std::int64_t>(1, static_cast<std::int64_t>(inside * kWhole / from));
  }
  const std::int64_t from = low << weighted(prng, std::span(weights).first(count));
  return prng.between(from, std::min(high, from * 2 - 1));
}

std::size_t weighted(Prng& prng, std::span<const std::int64_t> weights) {
  std::int64_t sum = 0;
  for (const std::int64_t weight : weights) sum += weight;
  CAPSTAN_ASSERT(sum > 0);
  auto at = static_cast<std::int64_t>(prng.below(static_cast<std::uint64_t>(sum)));
  std::size_t index = 0;
  while (at >= weights[index]) at -= weights[index++];
  return index;
}

}  // namespace capstan::sim
