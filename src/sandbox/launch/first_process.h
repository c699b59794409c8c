// The first process of a sandbox (process 1 of its pid namespace): it makes the sandbox's mounts, gives up
// every privilege, starts the commands it is told to start, reaps, and reports. When it ends, the kernel ends
// all the rest.
//
// Its whole life is become_first_process(): called in a child of a launcher's clone3 with the namespaces new,
// still root. What the launcher says comes as messages (sandbox/wire.h): kSetup once, then kSpawn. What it
// answers: kReady with the root's descriptor and the listener's, if it has one (long-lived only), kRefused
// with the step that failed, kEnded
// with each command's wait status. A launcher that dies takes it along.
#pragma once

#include <linux/filter.h>

#include <span>
#include <vector>

#include "sandbox/launch/confine.h"
#include "sandbox/spec.h"

namespace capstan::sandbox {

struct FirstProcess {
  int socket = -1;             // to the launcher
  std::vector<int> cgroups{};  // cgroup.procs files to join, open for writing
  std::span<const sock_filter> filter{};
  Network network = Network::kNone;
  std::uint32_t host_uid = 0;
  int landlock_abi = 0;  // 0: do without
  int gate = -1;         // closed as soon as runners (launch/runner.h) may enter
};

// Descriptors of the caller other than those named here are closed.
[[noreturn]] void become_first_process(const FirstProcess& config);

}  // namespace capstan::sandbox
