// One function per command about the fleet and its rules; each returns the exit code. Private to cli/.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/cli.h"

namespace capstan::cli {

// ---- the fleet (commands_fleet.cc)
struct FleetApplyOptions {
  std::string file;  // "-": standard input
  bool present = false;
};
int fleet_apply(const Globals& globals, const FleetApplyOptions& options);

struct FleetGenerateOptions {
  std::string name = "generated";
  std::string region = "region-1";
  std::int64_t clusters = 1;
  std::int64_t ultraservers = 0;  // in all
  std::string kind = "u-p6e-gb200x72";
  std::int64_t spares = 2;
  std::int64_t per_block = 32;
  std::int64_t hosts = 0;  // in all
  std::string host_class = "m8g.48xlarge";
  std::int64_t hosts_per_block = 1'000;
};
// Prints a fleet file.
int fleet_generate(const FleetGenerateOptions& options);
std::string fleet_yaml(const FleetGenerateOptions& options);

struct FleetShowOptions {
  std::string level = "block";  // or "cluster", "region": how deep the tree is shown
};
int fleet_show(const Globals& globals, const FleetShowOptions& options);

struct HostsOptions {
  bool names = false;        // only names, one a line
  bool unavailable = false;  // only those that take no new work
  std::string under;         // a region, a cluster, "cluster/block" or an UltraServer; empty: all
  std::int64_t limit = 1'000;
};
int list_hosts(const Globals& globals, const HostsOptions& options);

struct HostVerbOptions {
  std::vector<std::string> names;  // of hosts or UltraServers
  std::vector<std::int64_t> gpus;  // of one host
  std::string why;
};
// cordon, uncordon, drain, fail, repair, return.
int set_hosts(const Globals& globals, const std::string& verb, const HostVerbOptions& options);

struct MaintainOptions {
  std::vector<std::string> names;
  std::string from = "now";  // times: now, +2h, 2026-11-24T09:00Z
  std::string until;
};
int maintain(const Globals& globals, const MaintainOptions& options);

struct DefragmentOptions {
  bool apply = false;
  std::int64_t moves_max = 16;
};
int defragment(const Globals& globals, const DefragmentOptions& options);

// ---- who may use it, and in which order (commands_tenants.cc)
int tenants_apply(const Globals& globals, const std::string& file);
int tenants_list(const Globals& globals);
int tenants_remove(const Globals& globals, const std::vector<std::string>& names);

struct ReserveOptions {
  std::string name;
  std::string tenant;
  std::int64_t hosts = 0;
  std::int64_t per_ultraserver = 0;
  std::string gpu_model;
  std::string host_class;
  std::string cluster;
  std::string from = "now";
  std::string until;
};
int reserve(const Globals& globals, const ReserveOptions& options);
int reservations(const Globals& globals);
int unreserve(const Globals& globals, const std::vector<std::string>& names);

struct QueueOptions {
  std::int64_t limit = 100;
};
int queue(const Globals& globals, const QueueOptions& options);

struct PolicyOptions {
  std::string order;       // empty: as it is
  std::string starvation;  // seconds or a duration such as 10m; empty: as it is
};
// Without options it shows the policy.
int policy(const Globals& globals, const PolicyOptions& options);

}  // namespace capstan::cli
