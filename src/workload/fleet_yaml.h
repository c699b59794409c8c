// The YAML form of a fleet (docs/fleets.md) to a FleetSpec.
//
//   auto parsed = parse_fleet(text, "fleet.yaml");
//   if (!parsed) for (const Diagnostic& d : parsed.error()) print(d.text());   // fleet.yaml:7:15: unknown kind …
//
// Kinds of the catalogue may be named; others are described under `classes`. Everything is checked: unknown and duplicate
// keys, ranges, names, the number of hosts.  Threads: pure.  Failure: all diagnostics at once, nothing half-parsed.
#pragma once

#include <expected>
#include <string_view>
#include <vector>

#include "fleet/fleet_spec.h"
#include "workload/spec.h"

namespace capstan::workload {

std::expected<fleet::FleetSpec, std::vector<Diagnostic>> parse_fleet(std::string_view yaml, std::string_view source);

struct Context;
struct Yaml;
// The same of a part of another file; what is wrong goes to the context (yaml_fields.h).
fleet::FleetSpec read_fleet(Context& context, const Yaml& node);

}  // namespace capstan::workload
