// Runs one chunk of an array to its end: every task until it has succeeded or used up its tries.
//
//   ChunkRun run(shared, chunk);
//   Result<Json> exit = run.go(control, resumed);   // the report's fields; kUnsupported, kDenied …: it cannot run here
//
// Tasks that fail are tried again when all others of the chunk have had their first try, after the array's back-off; a retry
// has a sandbox of its own, also in an array with batches. Results are appended as tasks end, and made durable before go()
// returns. Threads: one; the control is for others.  Bounds: outcomes of one batch, and what is to be tried again.
#pragma once

#include <memory>

#include "base/json.h"
#include "worker/tasks/chunk_spec.h"
#include "worker/tasks/results_file.h"
#include "worker/tasks/task_sandboxes.h"

namespace capstan::worker {

// What chunks of one array share on this host.
struct ArrayOnHost {
  ArraySpec spec;
  RankUser user;
  std::shared_ptr<ResultsFile> results;  // shared by the chunks that run
  TaskInput input;
  std::string collected;
  ArrayOnHost(ArraySpec given, RankUser who) : spec(std::move(given)), user(who), input(spec.input, std::move(who)) {}
};

class ChunkRun {
 public:
  ChunkRun(ArrayOnHost& array, sandbox::Launcher& launcher, std::string batch_program, const ChunkSpec& chunk);

  // `resumed`: an earlier run may have recorded some. After a stop: with "stopped", and what has ended stays recorded.
  Result<Json> go(RunControl& control, bool resumed);

 private:
  struct Retry {
    TaskOutcome before;
    std::int64_t not_before_ms = 0;
  };
  void take(std::vector<TaskOutcome> outcomes, RunControl& control);
  Result<void> first_tries(RunControl& control);
  Result<void> retries(RunControl& control);
  bool flush(RunControl& control);

  ArrayOnHost& array_;
  TaskSandboxes sandboxes_;
  ChunkSpec chunk_;
  ResultsFile::Recorded recorded_;
  std::vector<Retry> failed_;
  protocol::TaskTally tally_;
  std::string lines_;
};

}  // namespace capstan::worker
