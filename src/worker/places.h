// Places: the directories that a rank gets: its job directory, and the binaries and models that ship with
// Capstan.
//
// Job directory: D/jobs/NAME for the owner of D (and for a worker that is not root), else
// /var/tmp/capstan-UID/jobs/NAME, because D is closed to others. It belongs to the rank's user, mode 0700,
// and outlives the job: checkpoints are there. Binaries and share: the originals where the rank's user can
// read them, else copies in D/bin, D/share (for the owner of D) or /var/tmp/capstan-UID/{bin,share}; copies
// are refreshed when size or time of an original changed. Threads: one call at a time (copies). Failure: with
// the directory's path.
#pragma once

#include <filesystem>
#include <string>

#include "base/result.h"
#include "worker/user.h"

namespace capstan::worker {

struct Places {
  std::filesystem::path data_directory;
  uid_t data_owner = 0;
  std::filesystem::path bin;    // with capstan-engine and the other programs
  std::filesystem::path share;  // with models/ and examples/
};

// Makes the job directory where it is missing. `name` is a workload's name (one path component, checked).
Result<std::filesystem::path> job_directory(const Places& places, const RankUser& user,
                                            const std::string& name);

struct Shipped {
  std::filesystem::path bin;
  std::filesystem::path share;
};
Result<Shipped> shipped_for(const Places& places, const RankUser& user);

}  // namespace capstan::worker
