// What people see of the fleet, the queue and the tenants, as JSON.
//
// Pure, over a state that is being read. Cost: the fleet's tree walks every host (about 10 ms for half a
// million); the queue tries placement for kQueueReasonsMax different shapes at most.
#pragma once

#include <string>

#include "base/json.h"
#include "controller/state.h"

namespace capstan::api {

inline constexpr std::int64_t kQueueShownMax = 10'000;
inline constexpr std::size_t kQueueReasonsMax = 16;
inline constexpr std::size_t kQueueReasonsWholeMax =
    4;  // with who holds what is needed; the others in a word

// {"total": counts, "regions": [{"name", counts…, "clusters": [{…, "blocks": […]}]}], "classes": […]}.
// Counts: "hosts", "hosts_free" (idle, and may take work), "ultraservers", "ultraservers_free", "gpus",
// "gpus_free", "gpus_failed", "milli_cpus", "milli_cpus_free", and "unavailable": {"cordoned": 2, …}.
Json fleet_view(const controller::State& state);
// Hosts as controller::view_host shows them, in order of the fleet.
struct HostFilter {
  bool unavailable = false;  // only those that take no new work
  std::string under;         // a region, a cluster, "cluster/block", or an UltraServer; empty: all
  std::int64_t limit = 1'000;
};
// {"hosts":[…],"matched":7}: at most `limit` of those that match. kNotFound: there is no such place.
Result<Json> hosts_view(const controller::State& state, const HostFilter& filter);
// {"order","waiting","workloads":[{"position","name","tenant","priority","ranks","gpus","share","decision","reason",…}]}
Json queue_view(const controller::State& state, std::int64_t limit);
// {"tenants":[{…as in a file, "depth","used","borrowed","share","waiting"}]}, parents before children.
Json tenants_view(const controller::State& state);
// {"reservations":[{"name","kind","tenant","hosts","from_ms","until_ms","state"}]}: what is kept for whom;
// windows of maintenance and room for gangs that wait are among them. "until_ms" of the latter: INT64_MAX.
Json reservations_view(const controller::State& state, std::int64_t now_ms);
Json policy_view(const controller::State& state);

}  // namespace capstan::api
