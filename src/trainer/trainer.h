// The training loop of one rank: draw the step's samples, forward and backward, sum over the gang, clip,
// update, record, and from time to time evaluate, checkpoint and export.
//
//   CAPSTAN_TRY(RunEnd end, run_training(config, source, *gang, {.out = "out", .stop = &stop_flag}));
//
// OUT/ holds config.yaml (the complete configuration), metrics.jsonl and timing.jsonl, checkpoints/, and at
// the end model/ (the export). If OUT/checkpoints holds a checkpoint, the run continues from it; with the
// same number of ranks its curve is bit-identical to one that was never interrupted.
//
// Before each checkpoint the ranks compare hashes of their parameters: silent corruption ends the run
// (kConflict) before it is saved, and the restarted gang continues from the last checkpoint on which all
// agreed.
//
// A step whose gradients are not finite changes nothing but the counters; kSkippedInARowMax of them in a row
// end the run. A checkpoint or metrics line that cannot be written (disk full) is a warning: training goes
// on.
//
// Failure: kUnavailable when the gang is broken (start all ranks again), kInvalid for a configuration that
// does not fit the checkpoint or the data, kConflict (folder in use, ranks that differ), kExhausted,
// kCorrupt, kIo.
//
// Threads: the caller's.  Cost: 16 bytes a parameter, plus the model's activations.
#pragma once

#include <atomic>
#include <filesystem>

#include "trainer/config.h"
#include "trainer/data.h"
#include "trainer/gang.h"

namespace capstan::trainer {

inline constexpr std::uint64_t kSkippedInARowMax = 20;

struct RunOptions {
  std::filesystem::path out;
  const std::atomic<bool>* stop = nullptr;  // set by a signal: finish the step, checkpoint, return kStopped
};

enum class RunEnd {
  kCompleted,
  kStopped,  // by RunOptions::stop on any rank, after a checkpoint
};

Result<RunEnd> run_training(const TrainConfig& config, const DataSource& source, Gang& gang,
                            const RunOptions& options);

}  // namespace capstan::trainer
