// What is asked of placement, and what comes back: values.
//
//   Request request{.groups = {{.ranks = 1024, .each = {.gpus = 4}, .segment = 16}}};
//   auto placed = placer.place(inventory, request);      // Placement, or a Refusal that is typed
//
// The policy that every implementation follows (placer.cc by indices, place_among.cc by sorting; they agree):
//   1. A gang is placed whole or not at all, inside one cluster. Its ranks are cut into segments of `segment`
//      consecutive ranks (the last may be shorter only if ranks is no multiple); each lies inside one NVLink
//      domain. A shorter last one takes the room of a whole one, and what whole ones leave over only where it
//      must. An elastic gang that cannot have all its ranks gets the most whole segments that fit, ranks_min
//      at least.
//   2. The cluster that needs the fewest spine blocks; ties to the one that is left with fewer free segments,
//   then
//      to the lowest id. Blocks: the smallest one that takes the rest, else the largest, and so on.
//   3. Domains inside a block: best fit. With segments of several ranks, those with the least room that takes
//   a
//      segment come first, so that whole domains stay whole. Without segments a gang that no single domain
//      takes begins with the emptiest domains, so that it spans few.
//   4. Hosts inside a domain: the one with the least room that takes the rest, else the one with the most;
//   hosts
//      in use before idle ones. At most `hosts - spares` hosts of a domain are in use.
//   5. Ranks without GPUs go to hosts without GPUs; where those do not suffice, to all hosts, domains with
//   the fewest
//      idle GPUs first.
//   6. Further groups go to the cluster of the first, after it; if they find no room there, the cluster that
//   is next
//      best for the first is tried, then the groups in reverse order, and at last elastic ones with their
//      least. A gang that may spread over clusters may have its further groups there as well.
//   7. Every tie ends in the lowest id.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "scheduler/inventory.h"

namespace capstan::scheduler {

using fleet::Level;
using fleet::level_name;

// What a rank needs of a host.
struct Shape {
  Capacity each;
  std::string gpu_model = {};   // empty: any
  std::string host_class = {};  // empty: any
  bool without_gpus = false;    // only hosts that have none
  friend auto operator<=>(const Shape& a, const Shape& b) {
    return std::tie(a.each.milli_cpus, a.each.memory_bytes, a.each.gpus, a.each.gpu_milli, a.gpu_model,
                    a.host_class, a.without_gpus) <=> std::tie(b.each.milli_cpus, b.each.memory_bytes,
                                                               b.each.gpus, b.each.gpu_milli, b.gpu_model,
                                                               b.host_class, b.without_gpus);
  }
  friend bool operator==(const Shape&, const Shape&) = default;
};
// May a host of this class hold such ranks at all?
bool allows(const Shape& shape, const fleet::HostClass& host_class);

// Equal ranks of a gang. The first group is the gang proper; further ones are helpers (CPU ranks beside GPU
// ranks).
struct Group {
  std::int64_t ranks = 1;
  Shape shape = {};
  std::int64_t segment = 0;    // ranks that must lie inside one NVLink domain; 0: no such need
  std::int64_t ranks_min = 0;  // an elastic gang runs with as few; 0: all of them
};

struct Request {
  std::vector<Group> groups;
  Level required = Level::kCluster;  // all of the first group inside one of these
  Level preferred = Level::kNone;    // tried first
  std::string cluster = {};          // by name; empty: any
  std::string region = {};
  std::int64_t ends_by_ms =
      INT64_MAX;           // known end of what is placed: with it, claimed hosts may be used until then
  std::int64_t claim = 0;  // only on the hosts of this claim; 0: on unclaimed ones (the caller sees to it)
};

// `ranks` consecutive ranks on one host, and the GPUs that they share out in order.
struct Slice {
  HostId host{};
  std::int64_t ranks = 0;
  GpuSet gpus = 0;
  friend bool operator==(const Slice&, const Slice&) = default;
};
// In order of rank, group after group.
struct Placement {
  std::vector<Slice> slices;
  std::vector<std::int64_t> group_ranks;  // what each group got: fewer than asked in an elastic gang
};

enum class Reason {
  kNoHosts,           // nobody has joined (not now)
  kNoSuchPlace,       // no cluster, region, GPU model or host class of that name (never)
  kRankTooLarge,      // one rank is larger than any host (never)
  kSegmentTooLarge,   // a segment is larger than any NVLink domain (never)
  kGangTooLarge,      // larger than all that one cluster (or the required level) has (never)
  kBusy,              // others hold what it needs (not now)
  kHostsUnavailable,  // it would fit if hosts that are lost, cordoned or in repair came back (not now)
  kClaimed,     // it would fit on hosts that are kept for a reservation, a window or a waiting gang (not now)
  kQuota,       // its tenant may not hold more now (not now)
  kQuotaNever,  // its tenant may never hold so much (never)
};
std::string_view reason_name(Reason reason);  // "busy", …: in events

struct Refusal {
  Reason reason = Reason::kBusy;
  std::size_t group = 0;  // which group found no room
  bool never() const {
    return reason == Reason::kNoSuchPlace || reason == Reason::kRankTooLarge ||
           reason == Reason::kSegmentTooLarge || reason == Reason::kGangTooLarge ||
           reason == Reason::kQuotaNever;
  }
};

using Placed = std::expected<Placement, Refusal>;

}  // namespace capstan::scheduler
