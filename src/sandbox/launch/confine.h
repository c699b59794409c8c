// What a process does to itself before it runs a program that nobody trusts: another user in a user namespace
// of its own, no capabilities, no new privileges, Landlock, the system call filter.
//
// A Fault is the name of the step that failed, errno set; nullptr is success. Threads: for a process with one
// thread.
#pragma once

#include <linux/filter.h>
#include <sys/types.h>

#include <span>
#include <string>
#include <vector>

#include "sandbox/spec.h"

namespace capstan::sandbox {

using Fault = const char*;

// Becomes `host_uid` (user and group alike), which is `uid` in a new user namespace that maps nothing else,
// and gives up every capability there. `proc` is a writable mount of /proc for this pid namespace, in which
// this is process 1.
Fault become_user(int proc, std::uint32_t host_uid, std::uint32_t uid);

// As become_user, in the user namespace that the process of this pidfd has made, where `uid` is mapped.
Fault join_user(int process, std::uint32_t uid);

// Where a sandbox may write.
std::vector<std::string> writable_paths(const SandboxSpec& spec);

// Reads and executes everything it can see; writes below `writable` only (and devices in /dev); no TCP,
// abstract sockets or signals to the outside. Needs no_new_privs. `abi` as the kernel says it.
Fault apply_landlock(int abi, const std::vector<std::string>& writable, Network network);

Fault apply_filter(std::span<const sock_filter> program);

}  // namespace capstan::sandbox
