// The rank's own process: forked by the shim, held back until the shim's record is durable, then executed.
//
//   RankProcess rank;
//   if (!rank.fork_held(record)) …                 // errno
//   … write shim.json with rank.pid() …
//   std::string why = rank.release();               // empty: the program runs; else why it could not start
//
// The child gets its own session and process group, joins the record's cgroups, switches user (setgroups,
// setgid, setuid, no_new_privs), has default signals, no descriptors but 0 (/dev/null), 1 and 2 (one pipe),
// no core dumps, and dies by SIGKILL if the shim dies (PR_SET_PDEATHSIG). Threads: one owner.
#pragma once

#include <sys/types.h>

#include <string>

#include "worker/shim/launch_record.h"

namespace capstan::shim {

class RankProcess {
 public:
  bool fork_held(const LaunchRecord& record);
  // Blocks until the program is executed or has failed to be.
  std::string release();

  pid_t pid() const { return pid_; }
  // The reading end of the rank's standard output and error; non-blocking; owned by this object.
  int output_fd() const { return output_fd_; }

 private:
  pid_t pid_ = -1;
  int output_fd_ = -1;
  int go_fd_ = -1;
  int error_fd_ = -1;
};

}  // namespace capstan::shim
