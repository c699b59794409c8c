// The few operations on one cgroup directory, of version 1 or 2, that need nothing but libc.
//
// A rank's cgroup is a set of such directories, one per hierarchy (sandbox/cgroup.h makes them); on version 2
// it is one directory. The shim of a rank uses these functions too, so they allocate little and link nothing.
// Threads: none kept.  Failure: false with errno set, or an empty answer; a missing directory has no
// processes.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace capstan::sandbox {

// Moves the calling process into the cgroup.
bool join_cgroup(const std::string& directory);

// Writes a value into one of its files ("memory.max").
bool write_cgroup_file(const std::string& directory, const char* file, std::string_view value);

// The bytes of one of its files, at most 64 KiB; empty if it cannot be read.
std::string read_cgroup_file(const std::string& directory, const char* file);

// Processes in this directory (not below it), zombies excluded where the kernel excludes them.
std::vector<pid_t> cgroup_processes(const std::string& directory);

// SIGKILL to every process in it: cgroup.kill where the kernel has it (atomic), else one by one (a fork in
// between may escape: repeat until cgroup_processes is empty).
void kill_cgroup(const std::string& directory);

// How many of its processes the kernel killed for memory (memory.events or memory.oom_control); 0 if not a
// memory cgroup.
std::int64_t cgroup_oom_kills(const std::string& directory);

}  // namespace capstan::sandbox
