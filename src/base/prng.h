// A small integer generator (splitmix64, Steele et al. 2014): the same sequence from a seed on every machine.
//
// Not for secrets. `at(seed, index)` gives the index-th value without state, for order that is a pure
// function of (seed, index).  Threads: one owner.
#pragma once

#include <cstdint>

#include "base/assert.h"

namespace capstan {

class Prng {
 public:
  explicit Prng(std::uint64_t seed) : state_(seed) {}

  static std::uint64_t mix(std::uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  static std::uint64_t at(std::uint64_t seed, std::uint64_t index) {
    return mix(mix(seed + kGamma) + (index + 1) * kGamma);
  }

  std::uint64_t next() { return mix(state_ += kGamma); }
  // Uniform in [0, bound), by multiplication (Lemire); the bias is below 2^-32 for bounds under 2^32.
  std::uint64_t below(std::uint64_t bound) {
    CAPSTAN_ASSERT(bound > 0);
    return static_cast<std::uint64_t>((static_cast<unsigned __int128>(next()) * bound) >> 64);
  }
  // Uniform in [low, high], both included.
  std::int64_t between(std::int64_t low, std::int64_t high) {
    CAPSTAN_ASSERT(low <= high);
    return low + static_cast<std::int64_t>(below(static_cast<std::uint64_t>(high - low) + 1));
  }

 private:
  static constexpr std::uint64_t kGamma = 0x9E3779B97F4A7C15u;
  std::uint64_t state_;
};

}  // namespace capstan
