// The parts of a scenario file, read from YAML for scenario.cc. Each takes its keys and leaves what is wrong in the context.
#pragma once

#include <string_view>
#include <vector>

#include "sim/scenario.h"
#include "workload/yaml_fields.h"

namespace capstan::sim {

// Where files are that a scenario names.
struct Places {
  std::filesystem::path directory;  // of the scenario
  const ScenarioOptions& options;
};

// One item of `workloads`; reads its trace.
void read_workload(workload::Context& context, const workload::Yaml& node, const Places& places, Scenario& out);

// `policy` and `failures`; what is not said stays as it is in `out`.
void read_policy(workload::Context& context, workload::MappingReader& mapping, PolicyChoice& out);
void read_failures(workload::Context& context, workload::MappingReader& mapping, FailureChoice& out);
// One item of `variants`.
void read_variant(workload::Context& context, const workload::Yaml& node, const Places& places, Scenario& out);
// `fleet`: the name of a file, or what would stand in it.
fleet::FleetSpec read_fleet_choice(workload::Context& context, const workload::Yaml& value, const Places& places);

// What all generators and traces have in common, but placement. `jobs`: estimates make sense.
void read_template(workload::Context& context, workload::MappingReader& mapping, workload::Kind kind, WorkTemplate& out);

// A duration of at least `low_ms`, at most a century.
void read_duration(workload::Context& context, workload::MappingReader& mapping, std::string_view key, std::int64_t low_ms,
                   std::int64_t& out);
inline constexpr std::int64_t kDurationMaxMs = 100LL * 366 * 86'400'000;
inline constexpr workload::Range kPercents = {1, 100'000};

}  // namespace capstan::sim
