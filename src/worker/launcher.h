// Launcher: turns a claimed rank into a running shim.
//
// prepare() finds the user, makes the directories and the cgroup, checks the port, and yields what the shim
// needs; start() spawns the shim, which inherits the claim's lock. Neither waits for the rank. Ranks get the
// limit of open files that held when the launcher was made; the worker raises its own afterwards. Threads:
// one caller.  Failure: LaunchError says whether another try could work (port taken) or not (no such user).
#pragma once

#include <sys/types.h>

#include <expected>
#include <filesystem>
#include <string>

#include "sandbox/cgroup.h"
#include "worker/data_directory.h"
#include "worker/places.h"
#include "worker/shim/launch_record.h"
#include "worker/start_spec.h"

namespace capstan::worker {

inline constexpr std::int64_t kRankPidsMax = 8192;  // processes and threads of one rank

struct LaunchError {
  std::string message;
  bool retryable = false;
};

struct Launch {
  shim::LaunchRecord record;
  Descriptor log_directory;
};

class Launcher {
 public:
  Launcher(const DataDirectory& data, Places places, const sandbox::Cgroups& cgroups,
           std::filesystem::path shim);

  // The user and cgroups that spec.json should tell a later worker are in the launch's record.
  std::expected<Launch, LaunchError> prepare(const StartSpec& spec, const std::string& mark);
  // The pid of the shim, a child of this process. `claim` is duplicated into it.
  std::expected<pid_t, LaunchError> start(const RankId& id, const Launch& launch, const Descriptor& claim);

 private:
  const DataDirectory& data_;
  Places places_;
  const sandbox::Cgroups& cgroups_;
  std::filesystem::path shim_;
  std::int64_t open_files_max_ = 0;  // the limit that this process was made with: ranks get it
};

}  // namespace capstan::worker
