// FailureRates: how often what breaks in a fleet, and for how long, as named sets of parameters with their sources.
//
//   CAPSTAN_TRY(RateSet rates, rate_set("llama3"));
//   CAPSTAN_CHECK(override_rate(rates, "network", 70));
//   auto faults = draw_faults(rates, topology, {.rates_percent = 100, .repair_percent = 100}, seed);
//
// A rate is a count over so many GPU-hours, as it was published: no rounding. Failures come independently of each other
// (Poisson), on hosts with GPUs, each GPU alike; a host in service fails whether or not it works. Repair times are quantiles.
// Numbers that nobody published are marked as assumptions, in the set's notes too.
// Threads: values; a source has one owner.  Cost: O(causes) a fault.  Failure: kNotFound names the sets or causes there are.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "sim/faults.h"

namespace capstan::sim {

// Minutes at the quantiles 0, 1/8, 2/8 … 8/8, straight lines between them.
using RepairMinutes = std::array<std::int64_t, 9>;

struct Cause {
  std::string_view name;
  Fault::Scope scope = Fault::Scope::kHost;
  std::int64_t events = 0;  // in RateSet::gpu_hours
  RepairMinutes repair{};
  std::int64_t detected_after_ms = 0;
  bool assumed = false;  // the rate is an assumption; repair times always are
};

struct RateSet {
  std::string_view name;
  std::string_view source;
  std::int64_t gpu_hours = 1;
  std::vector<Cause> causes;
  std::vector<std::string> notes;
};

std::vector<std::string_view> rate_sets();
Result<RateSet> rate_set(std::string_view name);
Result<void> override_rate(RateSet& rates, std::string_view cause, std::int64_t events);

struct FaultDraw {
  std::int64_t rates_percent = 100;
  std::int64_t repair_percent = 100;
};
// nullptr if nothing would ever break.
std::unique_ptr<FaultSource> draw_faults(RateSet rates, const fleet::Topology& topology, const FaultDraw& draw,
                                         std::uint64_t seed);

}  // namespace capstan::sim
