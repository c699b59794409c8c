// Capability: one thing that this host lets Capstan enforce, or not, and why not.
//
// Capstan never weakens silently: what a host cannot enforce is printed by `capstan up` and shown in
// /api/v1/hosts.
#pragma once

#include <string>

namespace capstan::sandbox {

struct Capability {
  std::string name;  // "cgroup_memory", "cgroup_cpu", "cgroup_pids", "cgroup_kill", "user_switch"
  bool ok = false;
  std::string why;  // what was found ("version 1 at /sys/fs/cgroup/memory"), or why it cannot be enforced
};

// Tries, in a child process, to become another user as a rank would. Call before threads start.
Capability detect_user_switch();

}  // namespace capstan::sandbox
