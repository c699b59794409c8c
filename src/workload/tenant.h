// Tenants: who shares the fleet, what each is promised, and how far each may go. Values.
//
// A tree: a tenant's guarantee is part of its parent's, its limit binds together with every ancestor's.
// "default" always exists below the root, with weight 1, no guarantee and no limit. YAML form:
// docs/tenants.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "fleet/host.h"

namespace capstan::workload {

inline constexpr std::size_t kTenantsMax = 10'000;
inline constexpr int kTenantDepthMax = 8;
inline constexpr std::int64_t kTenantWeightMax = 10'000;
inline constexpr std::size_t kTenantCellKindsMax = 32;

// A guarantee in whole cells: `count` UltraServers (NVLink domains) of a kind in which at least `trays` trays
// work.
struct CellQuota {
  std::string gpu_model;   // "gb200"
  std::int64_t trays = 0;  // of one cell: 18 for a whole UltraServer, 16 for a segment of 16
  std::int64_t count = 0;
  friend bool operator==(const CellQuota&, const CellQuota&) = default;
};

struct Tenant {
  std::string name;         // DNS label
  std::string parent = {};  // empty: the root
  std::int64_t weight = 1;
  fleet::Capacity guaranteed = {};    // what it gets whenever it asks; borrowed work of others makes room
  std::vector<CellQuota> cells = {};  // further guarantees, in whole cells
  std::optional<std::int64_t> milli_cpus_max = {};  // limits; nullopt: none
  std::optional<std::int64_t> memory_bytes_max = {};
  std::optional<std::int64_t> gpus_max = {};
  bool borrow = true;                // may use what others leave idle, beyond its guarantee
  std::int64_t priority_max = 1000;  // of its workloads
  friend bool operator==(const Tenant&, const Tenant&) = default;
};

// What is wrong with it by itself: names, ranges, a guarantee above its own limit, a cell kind that is there
// twice. Field of the error: "weight", "guaranteed.gpus", …
Result<void> check(const Tenant& tenant);

// Canonical JSON, all fields in a fixed order. Read back: absent members are the defaults, unknown ones are
// refused, the whole is checked.
Json to_json(const Tenant& tenant);
Result<Tenant> tenant_from_json(const Json& json);

}  // namespace capstan::workload
