// Diagnose: why a request does not fit now, who has what it needs, when it is expected to start, and what
// would start it at once. For `capstan explain`.
//
//   Diagnosis diagnosis = diagnose(inventory, placer, running, request, now_ms);
//   text(diagnosis, inventory, request, [&](std::int64_t job) { return "job " + name_of(job); });
//
//   needs 64 segments of 16 trays in one cluster; the best, us-east-1/c2, has 61: job train-7 holds 12 trays
//   there, 3 trays are draining; expected to start at 14:20:00 UTC when job train-7 ends at its time limit;
//   it would start now with 976 ranks
//
// Nothing is said that was not tried: every suggestion was placed by the Placer (and taken back); the
// expected start is the first known end after which the request fits. That knows time limits and what is
// stopping, looks at kEndsMax ends at most, and leaves out who else is waiting.
//
// Cost: one look at every host (is it usable?) and domain (its room), one pass over running gangs, kEndsMax
// ends, and some ten placements.  A shape that was never asked for is filed first (placer.h).
// Pure: the inventory is changed in between and handed back as it was.  Threads: one owner, the inventory's.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/placer.h"
#include "scheduler/running.h"

namespace capstan::scheduler {

inline constexpr std::size_t kEndsMax = 512;
inline constexpr std::size_t kHoldersNamed = 8;
inline constexpr std::size_t kNearDomains = 64;  // whose holders are named, where a gang needs several

// Why a host may not take work that it has room for.
enum class Away : std::uint8_t {
  kNeverSeen,
  kSuspect,
  kLost,
  kCordoned,
  kDraining,
  kFailed,
  kInRepair,
  kQuarantined,
  kUltraServerOut,  // a fault or drain of the whole UltraServer
  kClaimed,
};
std::string_view away_name(Away away);  // "suspect", "draining", …

struct AwayHosts {
  Away away = Away::kLost;
  std::int64_t hosts = 0;
  HostId first{};  // one of them
};

// A place that comes nearest, of its level.
struct Candidate {
  Level level = Level::kDomain;
  std::uint32_t id = 0;    // DomainId, BlockId or ClusterId
  std::int64_t fits = 0;   // ranks of a domain, else segments
  std::int64_t needs = 0;  // as many
};

struct HolderHere {
  std::int64_t job = 0;
  std::int64_t hosts = 0;  // it is on so many of them
  std::int64_t ranks = 0;
  Capacity held;
};

struct Suggestion {
  enum class Kind : std::uint8_t {
    kRanks,    // value: so many instead
    kSegment,  // value: segments of so many ranks instead
    kAnyGpuModel,
    kAnyHostClass,
    kAnyPlace,  // without the named cluster or region
    kLevel,     // value: the fleet::Level that would do instead of the required one
    kStopJob,   // value: the job
    kUncordon,  // hosts
  };
  Kind kind = Kind::kRanks;
  std::int64_t value = 0;
  std::vector<HostId> hosts = {};
  friend bool operator==(const Suggestion&, const Suggestion&) = default;
};

struct Diagnosis {
  bool fits = false;  // it would be placed now; nothing else is filled in
  Refusal refusal;    // refined: busy, hosts unavailable or claimed
  // Of the group that finds no room.
  std::int64_t segment = 1;  // ranks that must be together
  std::int64_t need = 1;     // segments
  std::int64_t ranks_per_host =
      1;  // that an idle host of the best domain takes; of a refusal for ever: of any host
  std::optional<Candidate> domain, block, cluster;
  // In the best candidate of the level that binds: the domain, if one segment is needed; else the cluster or
  // block.
  std::vector<AwayHosts> away;
  Capacity free;                    // room of hosts that may take work and are of a class in question
  std::vector<HolderHere> holders;  // of the room that is nearest to being enough; most ranks first
  std::size_t holders_more = 0;     // that are not named
  std::optional<std::int64_t> starts_ms;
  std::int64_t starts_after = 0;  // the job whose end makes the room
  bool ends_by_stopping = false;  // it is stopping already; else at its time limit
  std::int64_t now_ms = 0;
  std::vector<Suggestion> suggestions;
};

Diagnosis diagnose(Inventory& inventory, Placer& placer, const RunningJobs& running, const Request& request,
                   std::int64_t now_ms);

using JobNames = std::function<std::string(std::int64_t job)>;  // "job train-7"
// One sentence for a person, without a full stop. The first is only why: no times, no suggestions.
std::string reason_text(const Diagnosis& diagnosis, const Inventory& inventory, const Request& request,
                        const JobNames& job_name);
std::string text(const Diagnosis& diagnosis, const Inventory& inventory, const Request& request,
                 const JobNames& job_name);
// "14:20:05 UTC"; of a day other than that of `now_ms` with its date: "2026-11-24 14:20:05 UTC".
std::string time_text(std::int64_t ms, std::int64_t now_ms);

}  // namespace capstan::scheduler
