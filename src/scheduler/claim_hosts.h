// Which hosts a new claim should take: for a reservation, and for a gang that waits.
//
//   auto hosts = choose_claim_hosts(inventory, claims, running, {.hosts = 64, .per_domain = 16, .from_ms =
//   …}, now_ms); if (hosts) claims.add(inventory, {.id = …, .hosts = hosts->hosts, …}); else text =
//   why(hosts.error());               // at most 48 then, or 64 from 14:00 on
//
// A reservation lies inside one cluster, on hosts in service that no other claim has in that window. Hosts
// that are free by then (known ends) come first, then those whose work is cheapest to displace; of equals
// whole domains, or with groups (`per_domain`) the domains that they fill best. A gang gets the hosts that
// ordinary placement would give it at the earliest time that is known: running gangs are taken away in the
// order of their known ends (of equals the cheapest to stop) until it fits. Where no ends are known the start
// is unknown, and the hosts are those that cost least to clear. Pure; the inventory is changed in between and
// handed back as it was. Cost: choose_claim_hosts O(hosts of the allowed clusters), once more for each later
// start that a refusal tries (at most kLaterStartsTried); room_for_gang O(running gangs) and a few
// placements.  Threads: one owner, the inventory's.
#pragma once

#include <expected>
#include <optional>
#include <set>
#include <string>

#include "scheduler/claims.h"
#include "scheduler/placer.h"
#include "scheduler/running.h"

namespace capstan::scheduler {

inline constexpr int kLaterStartsTried = 32;

struct ClaimNeed {
  std::int64_t hosts = 0;
  std::int64_t per_domain = 0;  // in groups of so many inside one NVLink domain; 0: anywhere
  std::string gpu_model = {};   // empty: any
  std::string host_class = {};  // empty: any
  std::string cluster = {};     // empty: any
  std::int64_t from_ms = 0;
  std::int64_t until_ms = INT64_MAX;
};

struct ClaimHosts {
  std::set<HostId> hosts;
  // When all of them are free by known ends, `from_ms` at the earliest; INT64_MAX: somebody has to be
  // displaced.
  std::int64_t ready_ms = 0;
  std::set<std::int64_t> in_the_way;  // jobs that are there at from_ms as far as is known
};

struct ClaimRefusal {
  enum class Why {
    kTooManyClaims,  // kClaimsMax
    kNoSuchPlace,    // no cluster, GPU model or host class of that name, or no window
    kTooLarge,       // no cluster has so many, claimed or not
    kTaken,          // other claims have them then, or they are out of service
  };
  Why why = Why::kTaken;
  std::int64_t hosts_possible = 0;            // the most that one cluster has in that window
  std::int64_t possible_from_ms = INT64_MAX;  // all of them, for as long, from then on; INT64_MAX: not known
};

std::expected<ClaimHosts, ClaimRefusal> choose_claim_hosts(const Inventory& inventory, const Claims& claims,
                                                           const RunningJobs& running, const ClaimNeed& need,
                                                           std::int64_t now_ms);

struct GangRoom {
  std::set<HostId> hosts;
  std::int64_t start_ms = INT64_MAX;  // expected; INT64_MAX: not known
};
// nullopt: not even if every running gang on unclaimed hosts ended.
std::optional<GangRoom> room_for_gang(Inventory& inventory, Placer& placer, const RunningJobs& running,
                                      const Request& request, std::int64_t now_ms);

}  // namespace capstan::scheduler
