// RandomDraws: random numbers of the shapes that arrivals have, in integers, the same from a seed on every machine.
//
//   std::int64_t gap_ms = exponential(prng, 60'000);   // mean 60 s
//
// Threads: the generator's owner.  Cost: some nanoseconds each.  Failure: asserts on means below 0 and empty ranges.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "base/prng.h"

namespace capstan::sim {

// Exponential with this mean, rounded down. Exact to about one part in 10^5; at most 64 × ln 2 = 44 means.
std::int64_t exponential(Prng& prng, std::int64_t mean);

// Between low and high, both included: each doubling is as likely as the next (straight inside a doubling). 1 <= low <= high.
std::int64_t by_doublings(Prng& prng, std::int64_t low, std::int64_t high);

// The index of a weight, as often as its part of their sum (above 0).
std::size_t weighted(Prng& prng, std::span<const std::int64_t> weights);

}  // namespace capstan::sim
