// WorkerLock: there is one worker per data directory; a new one takes over from a dead one, or from one of
// another build, which it asks to leave (SIGUSR1: it exits and leaves its ranks running).
//
// The lock is flock on D/worker/lock, so it ends with its holder whatever happens. D/worker/worker.json tells
// who holds it: {"pid","start_ticks","incarnation","build","logs_port"}. Threads: one.  Failure: kConflict if
// a live worker of this very build holds it.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "worker/data_directory.h"

namespace capstan::worker {

inline constexpr int kLeaveWaitMs =
    10'000;  // after it, a worker that was asked to leave is killed; ranks do not mind

class WorkerLock {
 public:
  static Result<WorkerLock> acquire(const DataDirectory& data, const std::string& build);
  // Says who holds the lock; call when the log server's port is known.
  Result<void> announce(const DataDirectory& data, const std::string& incarnation, const std::string& build,
                        int logs_port) const;

 private:
  Descriptor lock_;
};

}  // namespace capstan::worker
