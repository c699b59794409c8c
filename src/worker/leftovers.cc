// How it works: the kernel keeps the environment that a process was executed with in /proc/PID/environ; the
// mark is 128 random bits, so no process of another rank has it.
#include "worker/leftovers.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>

#include <cstdlib>

#include "base/file.h"
#include "sandbox/cgroup_files.h"
#include "worker/shim/records.h"

namespace capstan::worker {
namespace {

int kill_marked(const std::string& mark) {
  const std::string variable = "CAPSTAN_RANK_MARK=" + mark;
  int count = 0;
  DIR* proc = ::opendir("/proc");
  if (proc == nullptr) return 0;
  while (const dirent* entry = ::readdir(proc)) {
    const auto pid = static_cast<pid_t>(std::strtol(entry->d_name, nullptr, 10));
    if (pid <= 0) continue;
    const auto environment = read_file("/proc/" + std::string(entry->d_name) + "/environ");
    if (!environment || environment->find(variable) == environment->npos || shim::start_ticks(pid) == 0)
      continue;
    ::kill(pid, SIGKILL);
    ++count;
  }
  ::closedir(proc);
  return count;
}

}  // namespace

int kill_leftovers(const std::vector<std::string>& cgroups, const std::string& mark) {
  int count = 0;
  for (const auto& cgroup : cgroups) {
    const auto processes = sandbox::cgroup_processes(cgroup);
    if (!processes.empty()) sandbox::kill_cgroup(cgroup);
    count += static_cast<int>(processes.size());
  }
  if (!mark.empty()) count += kill_marked(mark);
  return count;
}

}  // namespace capstan::worker
