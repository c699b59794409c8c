// Replays the OpenB workload against a placement policy: how much of the cluster's GPUs gets allocated?
//
//   CAPSTAN_TRY(OpenbRun run, replay_openb(trace, {.policy = "fgd", .seed = 42}));
//   run.percent_at(130)      // of the GPU capacity, when 130% of it has been asked for
//
// Method, as in the source (trace.h): uniform random copies of the trace's pods, with replacement, are
// appended until the pods ask for 1.3 times the GPU capacity; all are shuffled and submitted one by one; none
// departs; one that cannot be placed is passed over. The usual workload that fgd is given is the trace's own
// kinds of pods, the most frequent ones that make 95%. Hosts are numbered in a random order, so that the
// tie-break favours no model. The random numbers are ours, so single seeds differ from the source's and only
// means compare. Placement is the scheduler's own: Inventory and SingleHostPlacer. Cost: about 11,000
// placements, some tenths of a second.  Threads: pure.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "apps/openb/trace.h"

namespace capstan::apps {

inline constexpr int kOpenbPercentMax = 130;

struct OpenbOptions {
  std::string policy = "fgd";  // best_fit, fgd, first_fit
  std::uint64_t seed = 42;
  bool ties_random = false;     // any host of the best score, instead of the lowest
  bool hosts_in_order = false;  // numbered as in the trace
};

struct OpenbRun {
  std::int64_t capacity_milli = 0;
  std::array<std::int64_t, kOpenbPercentMax + 1>
      allocated_milli{};  // when this much of the capacity was asked for
  std::int64_t pods = 0;
  std::int64_t placed = 0;
  std::uint64_t fingerprint = 0;  // of every choice

  double percent_at(int percent) const {
    return 100.0 * static_cast<double>(allocated_milli[static_cast<std::size_t>(percent)]) /
           static_cast<double>(capacity_milli);
  }
};

Result<OpenbRun> replay_openb(const OpenbTrace& trace, const OpenbOptions& options);

}  // namespace capstan::apps
