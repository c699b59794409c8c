// A runner: a fork of a warm interpreter that joins a sandbox, gives up every privilege, waits for one
// command and becomes it. It is made ahead where the launcher knows what the next sandbox will be.
//
// Its whole life is become_runner(): called in the child of a clone3 into the sandbox's pid namespace and
// version 2 cgroup, still root and with every other namespace the host's. It waits until the sandbox's first
// process is ready, then says nothing until one kSpawn comes; kRefused with the step that failed ends it.
// Its exit status is the command's. It dies with the first process.
#pragma once

#include <linux/filter.h>

#include <cstdint>
#include <span>
#include <vector>

#include "sandbox/launch/confine.h"
#include "sandbox/spec.h"

namespace capstan::sandbox {

struct Runner {
  int socket = -1;             // to the launcher
  int first = -1;              // pidfd of the first process
  int gate = -1;               // at its end when the first process is ready, or dead
  std::vector<int> cgroups{};  // cgroup.procs files to join, open for writing
  std::span<const sock_filter> filter{};
  int landlock_abi = 0;  // 0: do without
  // Does what can be done before the command is known.
  void (*prepare)() = nullptr;
  // Runs the source in this process and returns its exit status.
  int (*run_code)(const CommandSpec& command) = nullptr;
};

// Descriptors of the caller other than those named here are closed. `spec` is the sandbox's.
[[noreturn]] void become_runner(const Runner& runner, const SandboxSpec& spec);

}  // namespace capstan::sandbox
