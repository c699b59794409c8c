// Snapshot: the state as text and back: one JSON value a line, so that neither writing nor reading holds it twice.
//
// The first line has the numbers of the controller; then fleets and hosts (only what differs from the fleet file), rules,
// workloads in order of id, running tasks as compact ranges. Equal states give equal texts. Form:
// docs/formats/snapshot.md.  Cost: O(state), some 100 MB/s.  Failure: read_state: kUnsupported for another format,
// kCorrupt for anything else that does not fit.  Threads: pure functions.
#pragma once

#include <functional>
#include <string_view>

#include "controller/state.h"

namespace capstan::controller {

using TextSink = std::function<void(std::string_view)>;

void write_state(const State& state, const TextSink& sink);
Result<State> read_state(std::string_view text);

// ---- of one workload, and of the runs of one array of tasks (snapshot_workloads.cc)
Json workload_to_json(const Workload& workload);
Result<Workload> workload_from_json(const Json& json);
// "<host>:<begin>-<end>/<attempt>/<started>/<why>/<gpus>,…;<host>:…", hosts by number, at most kHostsPerLine of them.
inline constexpr std::size_t kHostsPerLine = 512;
void write_runs(const Workload& workload, const TextSink& sink);
Result<void> read_runs(Workload& workload, std::string_view text);

}  // namespace capstan::controller
