// Defragment: moves of running work that make UltraServers (or segments) whole again, where it costs least.
//
//   auto proposal = propose(inventory, placer, running, now_ms, {.shape = tray, .segment = 16});
//   for (const Move& move : proposal.moves) …   // stop them, keep `freed` claimed, place them again
//
// A domain is freed if the segment fits into it afterwards (without one: if nothing runs in it any more).
// Only work that may be preempted moves: gangs whole, of services and tasks the ranks on a host. Each is
// placed again by the Placer on hosts of its class in its cluster, at least as close together as it is (in
// parts of the same length, inside one block if it is in one), and never in a domain that is free already:
// what is gained is not lost elsewhere. Cheapest domains first, by lost work (preemption.h); greedy, so not
// the most that could be freed. Every proposal was carried out on the inventory and taken back.
//
// Cost: one pass over running gangs and the domains; then kDomainsTried domains at most, some ten
// microseconds for each job in them.  Pure: the inventory is handed back as it was.  Threads: one owner, the
// inventory's.
#pragma once

#include <cstdint>
#include <vector>

#include "scheduler/placer.h"
#include "scheduler/running.h"

namespace capstan::scheduler {

inline constexpr std::size_t kDomainsTried = 512;

struct DefragmentOptions {
  Shape shape = {};          // of a rank of the work that is to fit
  std::int64_t segment = 0;  // so many of them into one domain; 0: the whole domain is to be idle
  std::size_t moves_max = 16;
  std::size_t domains_max = 1'000'000;  // stop when so many are freed
};

struct Move {
  std::int64_t job = 0;
  bool whole = true;  // a gang; else the ranks on `host`
  HostId host{};
  std::int64_t ranks = 0;
  std::vector<DomainId> from = {};  // domains that it leaves, ascending
  std::vector<Slice> to = {};       // where it fits, a preview; in order of rank for a gang
  std::int64_t cost = 0;            // lost work, in GPU-milliseconds
};

struct Defragmentation {
  std::vector<Move> moves;      // all of it stops before the first is placed again, in this order
  std::vector<DomainId> freed;  // that are whole, or take a segment, after all moves: in order of the moves
  std::int64_t cost = 0;
};

Defragmentation propose(Inventory& inventory, Placer& placer, const RunningJobs& running, std::int64_t now_ms,
                        const DefragmentOptions& options);

// What to ask for so that the gang stays as close together as it is, on hosts of the same classes in its
// cluster.
Request request_like(const fleet::Topology& topology, const Running& gang);

}  // namespace capstan::scheduler
