// How it works: the file's own keys here, its lists in scenario_workloads.cc; a variant is applied to a copy of the scenario.
#include "sim/scenario.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "base/hash.h"
#include "base/file.h"
#include "base/prng.h"
#include "sim/scenario_parts.h"
#include "workload/fleet_yaml.h"
#include "workload/quantity.h"
#include "workload/tenant_yaml.h"

namespace capstan::sim {
namespace {

using workload::Context;
using workload::Diagnostic;
using workload::MappingReader;
using workload::Yaml;

constexpr std::size_t kVariantsMax = 64;

// Of a Workload or a const Workload.
template <class AnyWorkload>
auto& template_of(AnyWorkload& workload) {
  return std::visit(
      [](auto& one) -> auto& {
        if constexpr (requires { one.replay; }) {
          return one.replay.pattern;
        } else {
          return one.pattern;
        }
      },
      workload.what);
}

void append(Context& context, Diagnostics diagnostics) {
  for (Diagnostic& one : diagnostics) {
    if (context.diagnostics.size() < workload::kDiagnosticsMax) context.diagnostics.push_back(std::move(one));
  }
}

// Parses the file that a value names.
template <class T, class Parse>
T read_named_file(Context& context, const Yaml& value, const Places& places, Parse parse) {
  const std::filesystem::path path = places.directory / value.scalar;
  const auto text = read_file(path);
  if (!text) {
    context.add(value, text.error().message);
    return {};
  }
  auto parsed = parse(*text, path.string());
  if (parsed) return *std::move(parsed);
  append(context, std::move(parsed.error()));
  return {};
}

void read_tenants_choice(Context& context, MappingReader& mapping, const Places& places, Scenario& out) {
  const Yaml* value = mapping.take("tenants");
  if (value == nullptr) return;
  if (value->type == Yaml::Type::kScalar) {
    out.tenants = read_named_file<std::vector<workload::Tenant>>(context, *value, places, workload::parse_tenants);
  } else {
    out.tenants = workload::read_tenants(context, *value);
  }
}

std::vector<const Yaml*> items_of(Context& context, MappingReader& mapping, std::string_view key) {
  std::vector<const Yaml*> out;
  const Yaml* value = mapping.take(key);
  if (value == nullptr) return out;
  if (value->type != Yaml::Type::kSequence)
    context.add(*value, fmt::format("'{}' must be a list, not {}", key, value->type_name()));
  for (const Yaml& item : value->items) out.push_back(&item);
  return out;
}

// Names of work are made of its kind, so kinds must differ; tenants that are only named get equal weights.
void complete(Context& context, const std::vector<const Yaml*>& at, Scenario& out) {
  std::set<std::string> kinds;
  std::set<std::string> tenants = {"default"};
  for (const workload::Tenant& tenant : out.tenants) tenants.insert(tenant.name);
  const auto name_tenant = [&](const std::string& name) {
    if (tenants.insert(name).second) out.tenants.push_back({.name = name});
  };
  for (std::size_t i = 0; i < out.workloads.size(); ++i) {
    const WorkTemplate& pattern = template_of(out.workloads[i]);
    if (!kinds.insert(pattern.kind).second) {
      context.add(*at[i],
                  fmt::format("two workloads are of kind '{0}'; give one another name, such as 'kind: {0}-2'", pattern.kind));
    }
    name_tenant(pattern.spec.tenant);
    if (const auto* jobs = std::get_if<FineTunes>(&out.workloads[i].what)) {
      for (const std::string& tenant : jobs->tenants) name_tenant(tenant);
    }
    const auto* trace = std::get_if<TraceWorkload>(&out.workloads[i].what);
    if (trace == nullptr || trace->trace == nullptr || !trace->replay.owners_are_tenants) continue;
    std::set<std::string> owners;
    for (const TraceJob& job : trace->trace->jobs) owners.insert(job.owner);
    for (const std::string& owner : owners) name_tenant(tenant_of(trace->replay, owner));
  }
}

void read_document(Context& context, const Yaml& document, const Places& places, Scenario& out) {
  MappingReader mapping(context, document, "a scenario");
  if (document.type != Yaml::Type::kMapping) return;
  workload::read_name(context, mapping, "scenario", true, out.name);
  read_duration(context, mapping, "duration", 1'000, out.duration_ms);
  if (out.duration_ms == 0) out.sample_ms = 3'600'000;
  read_duration(context, mapping, "sample", 1'000, out.sample_ms);
  std::int64_t seed = 1;
  workload::read_integer(context, mapping, "seed", {0, INT64_MAX}, seed);
  out.seed = static_cast<std::uint64_t>(seed);
  if (const Yaml* fleet = mapping.take("fleet")) {
    out.fleet = read_fleet_choice(context, *fleet, places);
  } else {
    context.add(document, "'fleet' is missing; name a fleet file, such as 'fleet: ../fleets/lab.yaml'");
  }
  read_tenants_choice(context, mapping, places, out);
  read_policy(context, mapping, out.policy);
  read_failures(context, mapping, out.failures);
  const auto workloads = items_of(context, mapping, "workloads");
  for (const Yaml* item : workloads) read_workload(context, *item, places, out);
  if (workloads.empty()) context.add(document, "'workloads' is missing or empty; it must be a list of traces and generators");
  const auto variants = items_of(context, mapping, "variants");
  for (const Yaml* item : variants) read_variant(context, *item, places, out);
  if (variants.size() > kVariantsMax) context.add(document, fmt::format("at most {} variants are compared", kVariantsMax));
  mapping.finish();
  if (context.diagnostics.empty()) complete(context, workloads, out);
}

Scenario with(const Scenario& scenario, const Variant& variant) {
  Scenario out = scenario;
  out.variants.clear();
  out.variant = variant.name;
  if (variant.policy) out.policy = *variant.policy;
  if (variant.failures) out.failures = *variant.failures;
  if (variant.fleet) out.fleet = *variant.fleet;
  for (fleet::RegionSpec& region : out.fleet.regions) {
    for (fleet::ClusterSpec& cluster : region.clusters) {
      for (fleet::BlockSpec& block : cluster.blocks) {
        for (fleet::UltraServerGroup& group : block.ultraservers) {
          if (variant.spares) group.spares = std::min(*variant.spares, group.trays - 1);
        }
      }
    }
  }
  for (Workload& one : out.workloads) {
    WorkTemplate& pattern = template_of(one);
    if (pattern.spec.checkpoint.interval_ms == 0) continue;
    if (variant.checkpoint_interval_ms) pattern.spec.checkpoint.interval_ms = *variant.checkpoint_interval_ms;
    if (variant.checkpoint_stall_ms) pattern.behaviour.checkpoint_stall_ms = *variant.checkpoint_stall_ms;
  }
  return out;
}

// Of a workload's kind, so that another workload beside it changes nothing.
std::uint64_t seed_of(std::uint64_t seed, std::string_view kind) { return Prng::at(seed, fnv1a(kind)); }

}  // namespace

fleet::FleetSpec read_fleet_choice(Context& context, const Yaml& value, const Places& places) {
  if (value.type != Yaml::Type::kScalar) return workload::read_fleet(context, value);
  return read_named_file<fleet::FleetSpec>(context, value, places, workload::parse_fleet);
}

std::expected<Scenario, Diagnostics> load_scenario(const std::filesystem::path& path, const ScenarioOptions& options) {
  const auto text = read_file(path);
  if (!text) return std::unexpected(Diagnostics{{path.string(), 1, 1, text.error().message, {}}});
  return parse_scenario(*text, path.string(), path.parent_path(), options);
}

std::expected<Scenario, Diagnostics> parse_scenario(std::string_view yaml, std::string_view source,
                                                    const std::filesystem::path& directory, const ScenarioOptions& options) {
  const auto documents = workload::read_yaml(yaml, source);
  if (!documents) return std::unexpected(Diagnostics{documents.error()});
  Context context{std::string(source)};
  Scenario out;
  if (documents->size() != 1) {
    context.add(
        1, 1, documents->empty() ? "the file is empty: a scenario begins with 'scenario: NAME'" : "a scenario is one document");
  } else {
    read_document(context, documents->front(), {directory, options}, out);
  }
  if (context.diagnostics.empty()) return out;
  // In the order of the file, then what is wrong in files that it names.
  std::ranges::stable_sort(context.diagnostics, {}, [&](const Diagnostic& one) {
    const bool own = one.file == source;
    return std::tuple(!own, own ? one.line : 0, own ? one.column : 0);
  });
  return std::unexpected(std::move(context.diagnostics));
}

std::vector<Scenario> comparison(const Scenario& scenario) {
  if (scenario.variants.empty()) return {scenario};
  std::vector<Scenario> out;
  for (const Variant& variant : scenario.variants) out.push_back(with(scenario, variant));
  return out;
}

std::unique_ptr<ArrivalSource> arrivals_of(const Scenario& scenario, std::uint64_t seed) {
  std::vector<std::unique_ptr<ArrivalSource>> sources;
  const std::int64_t end_ms = scenario.duration_ms > 0 ? scenario.duration_ms : INT64_MAX;
  for (const Workload& one : scenario.workloads) {
    const std::uint64_t own = seed_of(seed, template_of(one).kind);
    Window window{one.from_ms, end_ms, false};
    if (one.until_ms > 0 && one.until_ms < end_ms) {
      window.until_ms = one.until_ms;
      window.ends_services = true;
    }
    sources.push_back(std::visit(
        [&](const auto& what) {
          if constexpr (requires { what.trace; }) {
            return replay(what.trace, what.replay);
          } else {
            return generate(what, window, own);
          }
        },
        one.what));
  }
  return merge(std::move(sources));
}

}  // namespace capstan::sim
