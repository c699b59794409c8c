// WorkTemplate: what the work of one source has in common, and how a number of GPUs becomes ranks.
//
//   Arrival arrival = make_job(pattern, "philly-17", {.gpus = 12, .work_ms = 3'600'000});   // 2 ranks of 6 GPUs
//
// Values; pure functions.  Failure: none; sizes beyond the limits of workload/spec.h are cut to them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "sim/arrivals.h"

namespace capstan::sim {

struct WorkTemplate {
  std::string kind;  // Arrival::kind, and the first part of every name
  // Tenant, priority, placement, checkpoint, grace, restarts, preemptible; `resources` of work without GPUs.
  workload::Spec spec;
  // model, checkpoint_stall_ms, start_ms, restart_ms, spread_milli. The rest is each arrival's own.
  Behaviour behaviour;

  std::int64_t gpus_per_rank = 8;  // at most; a job of more has several ranks, all of them alike
  std::int64_t milli_cpus_per_gpu = 1'000;
  std::int64_t memory_bytes_per_gpu = 0;
  // What the scheduler is told as the time limit, by which SJF, SRTF and SRSF order and backfill looks ahead: so many
  // hundredths of what the job takes with its start and its checkpoints, and the slack. 0: nothing is told.
  std::int64_t estimate_percent = 0;
  std::int64_t estimate_slack_ms = 600'000;
};

struct JobSize {
  std::int64_t gpus = 0;       // of all ranks
  std::int64_t gpu_milli = 0;  // a share of one GPU, instead
  std::int64_t work_ms = 0;
  std::int64_t milli_cpus = -1;  // of the job; -1: as the template says
  std::int64_t memory_bytes = -1;
  std::int64_t ranks = 1;        // of work without GPUs
  std::int64_t estimate_ms = 0;  // its user's own, told to the scheduler as it is; 0: see estimate_percent
};

// A job; time_ms is 0. A gang with fewer ranks than the template's segment is one segment.
Arrival make_job(const WorkTemplate& pattern, std::string name, const JobSize& size);

// A DNS label made of any text: lower case, '-' for what may not stand in it, cut to the longest name.
std::string label_of(std::string_view text);

}  // namespace capstan::sim
