// The worker of this host as `capstan up` sees it: a process of its own that outlives the controller.
//
// Threads: one owner.
#pragma once

#include <filesystem>

#include "apps/up/shipped.h"
#include "base/result.h"

namespace capstan::apps {

class WorkerProcess {
 public:
  WorkerProcess(std::filesystem::path data, Shipped shipped);

  // A worker of this build holds the worker's lock (its pid and start time are those of worker.json).
  bool is_alive() const;
  // Starts one in its own session, with its output in log/worker.log. A worker of another build that still
  // runs hands over to it. Returns once the process is started, not once it is ready.
  Result<void> start() const;
  // Asks the worker to stop its ranks gracefully and leave; waits at most two minutes. False if there is
  // none.
  bool stop() const;

 private:
  std::filesystem::path data_;
  Shipped shipped_;
};

}  // namespace capstan::apps
