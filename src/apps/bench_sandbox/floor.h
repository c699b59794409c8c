// Question: what is the least that the kernel and the interpreter ask here, without any sandbox of ours?
#pragma once

#include <sys/types.h>

#include <string>

namespace capstan::bench_sandbox {

// Starts the program and waits for its end, as any shell would. False if that failed.
bool run_bare(const std::string& program);
// The same in new pid, mount, ipc, uts and cgroup namespaces, with nothing set up in them: no mounts, user,
// limits or filter. Needs root.
bool run_in_namespaces(const std::string& program);

// A warm interpreter that forks itself for each run, with no sandbox around: fork, compile "pass", exit,
// wait.
class BareFork {
 public:
  BareFork();  // one that could not be started: run() is false
  ~BareFork();
  BareFork(const BareFork&) = delete;
  BareFork& operator=(const BareFork&) = delete;
  bool run();

 private:
  int in_ = -1, out_ = -1;
  pid_t pid_ = -1;
};

}  // namespace capstan::bench_sandbox
