// How it works: fields are copied; a scenario without a duration runs until all that was submitted has ended.
#include "sim/scenario_setup.h"

#include "sim/failure_rates.h"

namespace capstan::sim {
namespace {

constexpr std::int64_t kForeverMs = std::int64_t{100} * 365 * 86'400'000;

}  // namespace

Result<Setup> setup_of(const Scenario& scenario, std::uint64_t seed) {
  Setup out;
  out.name = scenario.name;
  out.variant = scenario.variant;
  out.seed = seed;
  out.until_idle = scenario.duration_ms == 0;
  out.duration_ms = out.until_idle ? kForeverMs : scenario.duration_ms;
  out.sample_ms = scenario.sample_ms;
  out.fleet = scenario.fleet;
  out.tenants = scenario.tenants;
  out.order = scenario.policy.order;
  out.starvation_ms = scenario.policy.starvation_ms;
  out.arrivals = arrivals_of(scenario, seed);
  out.notes = scenario.notes;
  const FailureChoice& choice = scenario.failures;
  if (choice.rates.empty()) return out;
  CAPSTAN_TRY(RateSet rates, rate_set(choice.rates));
  for (const auto& [cause, events] : choice.overrides) CAPSTAN_CHECK(override_rate(rates, cause, events));
  out.notes.insert(out.notes.end(), rates.notes.begin(), rates.notes.end());
  const FaultDraw draw{choice.rates_percent, choice.repair_percent};
  out.make_faults = [rates, draw](const fleet::Topology& topology, const Setup& setup) {
    return draw_faults(rates, topology, draw, setup.seed);
  };
  return out;
}

}  // namespace capstan::sim
