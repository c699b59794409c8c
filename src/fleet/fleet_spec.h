// FleetSpec: a fleet as a file describes it: regions, clusters, spine blocks, and how many of which hosts.
//
//   CAPSTAN_TRY(FleetSpec spec, workload::parse_fleet(yaml, …));   // the YAML form: docs/fleets.md
//   CAPSTAN_CHECK(append(topology, spec));                         // names are made here
//
// Compact: 7,500 UltraServers are one line with a count. A name pattern holds one or more '#', the number of the
// thing with that many digits ("b##" gives b00, b01, …); without '#' and with a count above 1 the number is
// appended. A host's name is made of its path: <cluster>-<block>-<ultraserver>-t<tray>, or
// <cluster>-<block>-<host>.  Values; threads: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "fleet/topology.h"

namespace capstan::fleet {

inline constexpr std::int64_t kFleetHostsMax = 20'000'000;
inline constexpr std::int64_t kTraysMax = 1'024;  // of one UltraServer

// `count` UltraServers of a kind of the catalogue ("u-p6e-gb200x72"), or of any host class with `trays`.
struct UltraServerGroup {
  std::string kind;
  std::string host_class;    // of its trays; filled from the catalogue
  std::int64_t trays = 0;    // filled from the catalogue
  std::int64_t count = 1;
  std::int64_t spares = 0;   // spare trays in each
  std::string name = "u####";
  friend bool operator==(const UltraServerGroup&, const UltraServerGroup&) = default;
};

struct HostGroup {
  std::string host_class;  // "m8g.48xlarge"
  std::int64_t count = 1;
  std::string name = "h#####";
  friend bool operator==(const HostGroup&, const HostGroup&) = default;
};

struct BlockSpec {
  std::string name = "b###";
  std::int64_t count = 1;
  std::vector<UltraServerGroup> ultraservers;
  std::vector<HostGroup> hosts;
  friend bool operator==(const BlockSpec&, const BlockSpec&) = default;
};

struct ClusterSpec {
  std::string name = "c#";
  std::int64_t count = 1;
  std::vector<BlockSpec> blocks;
  friend bool operator==(const ClusterSpec&, const ClusterSpec&) = default;
};

struct RegionSpec {
  std::string name;
  std::vector<ClusterSpec> clusters;
  friend bool operator==(const RegionSpec&, const RegionSpec&) = default;
};

struct FleetSpec {
  std::string name;
  std::vector<HostClass> classes;  // every class that is used, from the catalogue or from the file
  std::vector<RegionSpec> regions;
  friend bool operator==(const FleetSpec&, const FleetSpec&) = default;
};

// Adds what is described, in file order. Refused, and nothing added, if a name is taken or the fleet would pass
// kFleetHostsMax. Cost: about 0.2 us a host.
Result<void> append(Topology& topology, const FleetSpec& spec);

std::int64_t hosts_of(const FleetSpec& spec);

// Canonical JSON, for the journal.
Json to_json(const FleetSpec& spec);
Result<FleetSpec> fleet_from_json(const Json& json);

}  // namespace capstan::fleet
