// Arrivals: who submits what and when, and what the work then does, which only the simulation knows.
//
//   std::unique_ptr<ArrivalSource> source = merge(std::move(sources));
//   while (auto arrival = source->next()) …                    // in order of time
//
// Trace readers (traces.h) and generators (generators.h) are sources; a scenario (scenario.h) merges them. Nothing here
// knows the controller.  Threads: one owner.  Cost: what the source says; no source holds more than its trace in memory.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "workload/spec.h"

namespace capstan::sim {

// What the work does once it runs.
struct Behaviour {
  // Of a job: time from its start to its end on `ranks` ranks if nothing happens, checkpoints aside. Of a task: of each task.
  // Of a service: 0, it runs until it is cancelled.
  std::int64_t work_ms = 0;
  // Of tasks: each lasts work_ms × (1 ± spread/1000), drawn from the seed.
  std::int64_t spread_milli = 0;
  // Step time is worked out from the model on the placement (training_model.h) if it is named; then work_ms counts steps of
  // the ideal placement. Empty: work_ms is what it takes wherever it runs.
  std::string model;
  // A checkpoint stalls every rank for so long; the interval is the spec's. Work since the last one is lost when it is stopped
  // without grace or fails.
  std::int64_t checkpoint_stall_ms = 0;
  // From placement to the first step, each attempt (image, weights, process groups); after a failure `restart_ms` more.
  std::int64_t start_ms = 0;
  std::int64_t restart_ms = 0;
  // A service is cancelled, or a job withdrawn, so long after its arrival; 0: never.
  std::int64_t withdrawn_after_ms = 0;
};

struct Arrival {
  std::int64_t time_ms = 0;  // since the scenario's start
  workload::Spec spec;
  Behaviour behaviour;
  std::string kind;  // for the report: "frontier", "fine-tune", "philly", …
};

class ArrivalSource {
 public:
  virtual ~ArrivalSource() = default;
  virtual std::optional<Arrival> next() = 0;  // never earlier than the one before
};

// All of them in order of time; ties in order of the list.
std::unique_ptr<ArrivalSource> merge(std::vector<std::unique_ptr<ArrivalSource>> sources);

}  // namespace capstan::sim
