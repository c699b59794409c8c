// Scenario: one file that says what a simulation runs: the fleet, who shares it, the policy, what fails, what is submitted, and
// which variants are compared.
//
//   auto loaded = load_scenario("examples/scenarios/lab.yaml", {});
//   if (!loaded) for (const Diagnostic& d : loaded.error()) print(d.text());    // lab.yaml:7:3: unknown key 'polcy'; did you …
//   for (const Scenario& one : comparison(*loaded)) {
//     std::unique_ptr<ArrivalSource> arrivals = arrivals_of(one, one.seed);
//     …
//   }
//
// The YAML form: docs/scenarios.md. Traces are read when the scenario is loaded, so that what is wrong in them is said before
// anything runs; variants share them. Every default is filled in, `tenants` holds every tenant that is named anywhere.
// Threads: values.  Failure: all diagnostics at once (kDiagnosticsMax at most), nothing half-loaded.
#pragma once

#include <cstdint>
#include <expected>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "fleet/fleet_spec.h"
#include "sim/arrivals.h"
#include "sim/generators.h"
#include "sim/traces.h"
#include "workload/spec.h"
#include "workload/tenant.h"

namespace capstan::sim {

struct PolicyChoice {
  std::string order = "fair-share";  // scheduler::parse_order knows it
  std::int64_t starvation_ms = -1;   // -1: the controller's own
  friend bool operator==(const PolicyChoice&, const PolicyChoice&) = default;
};

// What breaks: a set of rates by name (failure_rates.h), and what is changed in it.
struct FailureChoice {
  std::string rates;                  // empty: nothing breaks
  std::int64_t rates_percent = 100;   // of every rate
  std::int64_t repair_percent = 100;  // of every repair time
  std::vector<std::pair<std::string, std::int64_t>> overrides;  // events of a cause, by its name, in file order
  friend bool operator==(const FailureChoice&, const FailureChoice&) = default;
};

struct TraceWorkload {
  std::filesystem::path path;
  std::shared_ptr<const Trace> trace;  // shared by the variants of a comparison, read-only
  TraceReplay replay;
};
struct Workload {
  std::variant<TraceWorkload, FrontierRuns, FineTunes, InferenceServices, AgentBursts> what;
  std::int64_t from_ms = 0;   // of generators
  std::int64_t until_ms = 0;  // 0: the scenario's end
};

// What differs from the scenario; the rest is the same.
struct Variant {
  std::string name;
  std::optional<PolicyChoice> policy;
  std::optional<FailureChoice> failures;
  std::optional<std::int64_t> spares;                  // spare trays of every UltraServer
  std::optional<std::int64_t> checkpoint_interval_ms;  // of every job that checkpoints
  std::optional<std::int64_t> checkpoint_stall_ms;
  std::optional<fleet::FleetSpec> fleet;
};

struct Scenario {
  std::string name;
  std::string variant;           // of comparison(); empty: the scenario itself
  std::int64_t duration_ms = 0;  // 0: until all that was submitted has ended
  std::uint64_t seed = 1;
  std::int64_t sample_ms = 0;    // between the points of charts; 0: about 1,000 in all
  fleet::FleetSpec fleet;
  std::vector<workload::Tenant> tenants;
  PolicyChoice policy;
  FailureChoice failures;
  std::vector<Workload> workloads;
  std::vector<Variant> variants;
  std::vector<std::string> notes;  // what a reader of the results should know: rows left out of a trace, …
};

using Diagnostics = std::vector<workload::Diagnostic>;

struct ScenarioOptions {
  // Where a relative trace is looked for after the scenario's own directory.
  std::vector<std::filesystem::path> trace_directories;
  // Set, it stands for the trace of every workload that has one: one file tried with another trace.
  std::filesystem::path trace;
};
std::expected<Scenario, Diagnostics> load_scenario(const std::filesystem::path& path, const ScenarioOptions& options = {});
// The same of a text; relative paths in it start at `directory`.
std::expected<Scenario, Diagnostics> parse_scenario(std::string_view yaml, std::string_view source,
                                                    const std::filesystem::path& directory, const ScenarioOptions& options = {});

// The scenario with each variant applied, in order; without variants: itself.
std::vector<Scenario> comparison(const Scenario& scenario);

// All workloads in order of time. Equal scenarios and seeds give equal arrivals; a workload's do not depend on the others'.
std::unique_ptr<ArrivalSource> arrivals_of(const Scenario& scenario, std::uint64_t seed);

}  // namespace capstan::sim
