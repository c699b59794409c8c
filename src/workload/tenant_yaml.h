// Tenants as a file describes them: a list under `tenants:`. The YAML form: docs/tenants.md.
//
//   auto parsed = parse_tenants(text, "tenants.yaml");
//   if (!parsed) for (const Diagnostic& d : parsed.error()) print(d.text());   // tenants.yaml:7:3: unknown
//   key … else tenants.set_all(*parsed);
//
// Every default is filled in. A parent may be one that the file does not hold; whether it exists, and whether
// guarantees add up, the tree says (scheduler/tenants.h). Threads: a pure function.  Failure: all diagnostics
// at once (kDiagnosticsMax at most), nothing half-parsed.
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include "workload/spec.h"
#include "workload/tenant.h"

namespace capstan::workload {

// In file order, all documents of the text.
std::expected<std::vector<Tenant>, std::vector<Diagnostic>> parse_tenants(std::string_view yaml,
                                                                          const std::string& source);

struct Context;
struct Yaml;
// The same of a list of tenants in another file; what is wrong goes to the context (yaml_fields.h).
std::vector<Tenant> read_tenants(Context& context, const Yaml& list);

}  // namespace capstan::workload
