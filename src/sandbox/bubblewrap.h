// A second, independent way to run one command in a sandbox: bubblewrap, with this project's system call
// filter and cgroups around it. For hosts where an operator trusts it more than the launcher, and as a judge
// of it.
//
//   CAPSTAN_TRY(CommandResult result, run_in_bubblewrap({}, {.argv = {"/bin/true"}}, {.instance = "i",
//   .without = …}));
//
// Slower (some 8 ms more), one command per sandbox, the process lane only, standard input from /dev/null
// unless given. What it cannot enforce (bubblewrap_lacks) must be accepted by name; nothing is weakened
// silently. Threads: any; it forks.  Failure: kUnsupported (bubblewrap or a cgroup controller is missing, or
// a lack was not accepted), kInvalid (the spec).
#pragma once

#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "sandbox/spec.h"

namespace capstan::sandbox {

struct BubblewrapOptions {
  std::string instance{};  // names its cgroups
  std::string program{};   // capstan-sandbox, which knows the filter; empty: beside this program
  std::set<std::string> without{};
};

// "landlock", "tmpfs_inodes", "cpu_time".
const std::vector<std::string>& bubblewrap_lacks();

Result<CommandResult> run_in_bubblewrap(const SandboxSpec& spec, const CommandSpec& command,
                                        const BubblewrapOptions& options);

}  // namespace capstan::sandbox
