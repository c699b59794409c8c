#include "apps/bench_sandbox/floor.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <vector>

extern char** environ;

namespace capstan::bench_sandbox {
namespace {

constexpr int kNamespaces = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
constexpr const char* kForks =
    "import os, sys\n"
    "while sys.stdin.buffer.raw.read(1):\n"
    "  pid = os.fork()\n"
    "  if pid == 0:\n"
    "    exec(compile('pass', '<code>', 'exec'), {})\n"
    "    os._exit(0)\n"
    "  os.waitpid(pid, 0)\n"
    "  os.write(1, b'.')\n";

bool ended_well(pid_t pid) {
  int status = 0;
  return pid > 0 && ::waitpid(pid, &status, 0) == pid && status == 0;
}

// Shares this process's memory until it executes.
int execute(void* program) {
  char* argv[] = {static_cast<char*>(program), nullptr};
  ::execve(argv[0], argv, environ);
  ::_exit(127);
}

}  // namespace

bool run_bare(const std::string& program) {
  char* argv[] = {const_cast<char*>(program.c_str()), nullptr};
  pid_t pid = -1;
  return ::posix_spawn(&pid, argv[0], nullptr, nullptr, argv, environ) == 0 && ended_well(pid);
}

bool run_in_namespaces(const std::string& program) {
  std::vector<char> stack(64 << 10);
  char* top =
      stack.data() + stack.size() - reinterpret_cast<std::uintptr_t>(stack.data() + stack.size()) % 16;
  return ended_well(::clone(execute, top, CLONE_VM | CLONE_VFORK | SIGCHLD | kNamespaces,
                            const_cast<char*>(program.c_str())));
}

BareFork::BareFork() {
  int requests[2], answers[2];
  if (::pipe2(requests, O_CLOEXEC) != 0) return;
  if (::pipe2(answers, O_CLOEXEC) != 0) return;
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, requests[0], 0);
  ::posix_spawn_file_actions_adddup2(&actions, answers[1], 1);
  const char* argv[] = {"python3", "-I", "-S", "-c", kForks, nullptr};
  if (::posix_spawn(&pid_, "/usr/bin/python3", &actions, nullptr, const_cast<char**>(argv), environ) != 0)
    pid_ = -1;
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(requests[0]);
  ::close(answers[1]);
  in_ = requests[1];
  out_ = answers[0];
}

BareFork::~BareFork() {
  ::close(in_);
  ::close(out_);
  if (pid_ > 0) ::waitpid(pid_, nullptr, 0);
}

bool BareFork::run() {
  char answer = 0;
  return pid_ > 0 && ::write(in_, "x", 1) == 1 && ::read(out_, &answer, 1) == 1;
}

}  // namespace capstan::bench_sandbox
