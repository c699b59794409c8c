// What would let a request start: known ends, stopped jobs, a changed request. Each is tried; parts of
// diagnose.h.
//
// The inventory is handed back as it was.  Threads: one owner.
#pragma once

#include "scheduler/diagnose.h"

namespace capstan::scheduler {

inline constexpr std::size_t kUncordonTried = 16;

// Adds to out.suggestions what the request could ask for instead.
void suggest(Inventory& inventory, Placer& placer, const Request& request, Diagnosis& out);
// Adds the cordoned hosts that would make the room: one if one suffices, else as few of them as needed.
void suggest_uncordon(Inventory& inventory, Placer& placer, const Request& request,
                      const std::vector<HostId>& cordoned, Diagnosis& out);
// Fills in when it is expected to start, and which of out.holders would make the room alone.
void try_ends_and_stops(Inventory& inventory, Placer& placer, const RunningJobs& running,
                        const Request& request, const std::vector<std::uint32_t>& near, std::int64_t now_ms,
                        Diagnosis& out);

}  // namespace capstan::scheduler
