// Preemption: which running work gives way so that a request fits, with topology in mind from the start.
//
//   auto eviction = choose_victims(inventory, placer, running, request, asker, now_ms);
//   if (eviction) for (const Victim& victim : eviction->victims) stop(victim.job, …);  // place again later
//   else wait(eviction.error());           // nobody that may be displaced could make room
//
// Victims are looked for where the gang needs them: whole segments inside NVLink domains, all in one cluster
// (block, UltraServer, host: whatever is required), never just anywhere that GPUs are free.
//   - A gang gives way whole, and counts in every domain that it leaves; of services and tasks single ranks.
//   - Cheapest first, by lost work: GPU-milliseconds since the last checkpoint.
//   - Never more than needed: every victim whose staying still leaves the room is kept.
//   - Never futile: the request is placed by the Placer with the victims gone before they are named.
//   - Work that is stopping already counts as room: if that suffices there are no victims, only `wait_only`.
// Complete for requests of one group: if the work that may be displaced could make room, victims are found.
// The cost is the least possible where one domain must gain a segment (up to kExhaustiveUnits holders in it
// and kDomainsWeighed domains), else the cheaper of two greedy choices in the kAreasTried most promising
// clusters. Further groups (helpers) go to the cluster of the first; clusters are then tried one by one.
// Sees unclaimed hosts only, as the Placer does.
//
// Cost: one pass over running gangs and their slices, and over the holders of hosts while services or tasks
// may be displaced; then work for the domains that are needed, not for those that there are.
// Pure: the inventory is changed in between and handed back as it was.
// Requires: what `running` says is held is held in the inventory, slice by slice (asserted by release).
// Threads: one owner, the inventory's.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <set>
#include <vector>

#include "scheduler/placer.h"
#include "scheduler/running.h"

namespace capstan::scheduler {

inline constexpr std::size_t kExhaustiveUnits = 10;
inline constexpr std::size_t kDomainsWeighed = 64;
inline constexpr std::size_t kAreasTried = 2;
inline constexpr std::int64_t kSegmentsOfLarge = 16;

struct Victim {
  std::int64_t job = 0;
  bool whole = true;  // a gang: all its ranks, wherever they are; `host` says nothing
  HostId host{};      // of a service or task array: so many ranks on this host
  std::int64_t ranks = 0;
  GpuSet gpus = 0;  // of shares of a GPU: the ranks on these; else any
  std::int64_t cost = 0;
  friend bool operator==(const Victim&, const Victim&) = default;
};

struct Eviction {
  std::vector<Victim> victims;  // in order of job, then host; empty: it fits, or it will by itself
  std::int64_t cost = 0;        // of all of them
  bool wait_only = false;       // what is stopping suffices
  Placement placement;          // what becomes possible; a preview, nothing is held
};

std::expected<Eviction, Refusal> choose_victims(Inventory& inventory, Placer& placer,
                                                const RunningJobs& running, const Request& request,
                                                const Asker& asker, std::int64_t now_ms);

// The same on these hosts alone: the cheapest go until it fits, then whoever need not go stays. Of work that is not a gang
// all ranks on a host go. nullopt: nobody that may be displaced could make room. O(running gangs + hosts × victims).
std::optional<Eviction> choose_victims_among(Inventory& inventory, const RunningJobs& running, const Request& request,
                                             const Asker& asker, const std::set<HostId>& hosts, std::int64_t now_ms);

// What stopping one rank of the group loses, in GPU-milliseconds (a share of a GPU counts as that share, a
// rank without GPUs as a thousandth for each of its CPUs), at least 1.
std::int64_t rank_cost(const Running& running, std::size_t group, std::int64_t now_ms);
// Of the whole gang; of what is not a gang: of one rank.
std::int64_t stop_cost(const Running& running, std::int64_t now_ms);

}  // namespace capstan::scheduler
