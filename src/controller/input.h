// Input: everything that can happen to the controller: commands from people, reports from workers, the
// passing of time.
//
// Each becomes one journal row (if it causes events) with its JSON, so that a later build can be asked
// whether it would decide the same.  Threads: values.  Failure: from_json refuses with kCorrupt or kInvalid.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "fleet/fleet_spec.h"
#include "protocol/messages.h"
#include "workload/spec.h"
#include "workload/tenant.h"

namespace capstan::controller {

// A controller process takes office. Ends a drain.
struct BeginEpoch {
  std::int64_t epoch = 0;
  std::string build;
};
// All specs or none. A dry run answers and changes nothing.
struct Apply {
  std::vector<workload::Spec> specs;
  bool dry_run = false;
};
struct Cancel {
  std::string name;
};
// So many replicas of a service from now on: by hand, or by the autoscaler.
struct Scale {
  std::string name;
  std::int64_t replicas = 0;
  std::string why;
};
// Stops every rank, keeps what is wanted; the next epoch resumes it.
struct Drain {};
// A worker process introduces itself.
struct JoinHost {
  std::string host;
  std::string incarnation;
  std::string build;
  std::string logs_url;
  fleet::Capacity capacity;
  std::vector<protocol::Capability> capabilities;
};
struct SetHealth {
  std::string host;
  fleet::Health health = fleet::Health::kHealthy;
};
struct Reports {
  std::string host;
  std::vector<protocol::Report> reports;
  std::vector<protocol::TaskReport> tasks;  // tasks that did well, as ranges
};
struct Tick {};  // time has passed

// ---- the fleet and its rules
// Adds what a fleet file describes. Its hosts are absent until their workers call, unless `present`: then they work
// without (planning, simulation).
struct ApplyFleet {
  fleet::FleetSpec spec;
  bool present = false;
};
// Adds tenants or changes them; all or none.
struct SetTenants {
  std::vector<workload::Tenant> tenants;
};
struct RemoveTenant {
  std::string name;
};
// Keeps hosts for a tenant from `from_ms` until `until_ms`: a capacity block.
struct Reserve {
  std::string name;
  std::string tenant;
  std::int64_t hosts = 0;      // so many
  std::int64_t per_domain = 0;  // in groups of so many inside one UltraServer; 0: anywhere
  std::string gpu_model;       // empty: any
  std::string host_class;
  std::string cluster;
  std::int64_t from_ms = 0;
  std::int64_t until_ms = 0;
};
struct Unreserve {
  std::string name;
};
// Nothing runs on these hosts or UltraServers from `from_ms` until `until_ms`.
struct Maintain {
  std::vector<std::string> names;
  std::int64_t from_ms = 0;
  std::int64_t until_ms = 0;
};
enum class HostVerb { kCordon, kUncordon, kDrain, kFail, kRepair, kReturn };
std::string_view verb_name(HostVerb verb);  // "cordon", …
Result<HostVerb> parse_verb(std::string_view name);
// Of hosts, or of whole UltraServers by their name. With `gpus`, of these GPUs of one host (kFail, kReturn).
struct SetCondition {
  std::vector<std::string> names;
  HostVerb verb = HostVerb::kCordon;
  std::vector<std::int64_t> gpus;
  std::string why;
};
// Moves preemptible work so that whole UltraServers become free; a dry run only proposes.
struct Defragment {
  bool dry_run = true;
  std::int64_t moves_max = 16;
};
struct SetPolicy {
  std::string order;                  // "fair_share", "fifo", "sjf", "srtf", "srsf"; empty: as it is
  std::int64_t starvation_ms = -1;    // a gang that waits so long gets room kept for it; -1: as it is
};

struct Input {
  std::int64_t time_ms = 0;
  std::variant<BeginEpoch, Apply, Cancel, Scale, Drain, JoinHost, SetHealth, Reports, Tick, ApplyFleet, SetTenants,
               RemoveTenant, Reserve, Unreserve, Maintain, SetCondition, Defragment, SetPolicy>
      what;

  Json to_json() const;  // without the time, which is a column of its own
  static Result<Input> from_json(std::int64_t time_ms, const Json& json);
};

std::string_view health_name(fleet::Health health);
Result<fleet::Health> parse_health(std::string_view name);

}  // namespace capstan::controller
