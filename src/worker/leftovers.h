// Finding and ending what is left of a rank whose shim is gone.
//
// With a cgroup that is exact. Without one, processes are recognised by the rank's mark in their environment,
// which children inherit: a process that cleared its environment and lost its parents is not found
// (docs/sandbox.md). Threads: any.  Cost: without a cgroup, one read of /proc/PID/environ per process of this
// host.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace capstan::worker {

// Sends SIGKILL to all that is found and returns how many there were; repeat until it returns 0.
int kill_leftovers(const std::vector<std::string>& cgroups, const std::string& mark);

}  // namespace capstan::worker
