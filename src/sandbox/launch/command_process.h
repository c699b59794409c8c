// What the process of a command does to itself between its birth and its program: standard input and output,
// a session of its own, limits, the working directory.
//
// Used in a child that shares its parent's memory until it executes (launch/first_process.cc), so it
// allocates nothing, and in a fork of a warm interpreter (launch/runner.cc). Threads: one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sandbox/launch/confine.h"
#include "sandbox/wire.h"

namespace capstan::sandbox {

struct CommandProcess {
  const CommandSpec* command = nullptr;
  int stdio[3] = {-1, -1, -1};
  std::vector<int> cgroups{};  // cgroup.procs files to join, open for writing
  std::int64_t open_files = 0;
};

// What a kSpawn message gives: those of stdio that the mask names, `null` for the others, then cgroups.
void take_descriptors(CommandProcess& process, std::uint32_t given, const std::vector<Fd>& fds, int null);
// PATH, HOME and LANG, unless they are there.
void add_default_env(std::vector<std::string>& env);
// The null-terminated form that execve wants.
std::vector<char*> pointers(std::vector<std::string>& texts);

// Descriptors beyond 2 are closed on success.
Fault prepare_command(const CommandProcess& process);

}  // namespace capstan::sandbox
