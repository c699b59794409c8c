// How it works: three pipes. "output" carries the rank's words for its life. "go" holds the child back until
// the shim writes one byte; end of file (the shim died) makes it leave. "error" closes by itself when exec
// succeeds; before that, the child writes into it the step that failed.
#include "worker/shim/rank_process.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "sandbox/cgroup_files.h"

namespace capstan::shim {
namespace {

constexpr int kRankOomScoreAdjust = 300;  // the kernel rather kills a rank than the worker or the controller

[[noreturn]] void give_up(int error_fd, const std::string& step) {
  const std::string message = step + ": " + std::strerror(errno);
  (void)!::write(error_fd, message.data(), message.size());
  ::_exit(127);
}

void switch_user(const LaunchRecord& record, int error_fd) {
  if (record.uid < 0) return;
  if (::setgroups(record.groups.size(), record.groups.data()) != 0) give_up(error_fd, "cannot set groups");
  const auto gid = static_cast<gid_t>(record.gid);
  const auto uid = static_cast<uid_t>(record.uid);
  if (::setresgid(gid, gid, gid) != 0) give_up(error_fd, "cannot set the group id");
  if (::setresuid(uid, uid, uid) != 0) give_up(error_fd, "cannot set the user id");
}

void reset_signals() {
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; ++signal) ::sigaction(signal, &action, nullptr);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (const auto& text : strings) out.push_back(const_cast<char*>(text.c_str()));
  out.push_back(nullptr);
  return out;
}

[[noreturn]] void run_child(const LaunchRecord& record, pid_t shim, int go_fd, int error_fd, int output_fd) {
  if (::setsid() < 0) give_up(error_fd, "cannot start a session");
  for (const auto& cgroup : record.cgroups) {
    if (!sandbox::join_cgroup(cgroup)) give_up(error_fd, "cannot join cgroup " + cgroup);
  }
  const std::string oom_score = std::to_string(kRankOomScoreAdjust);
  if (const int fd = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC); fd >= 0) {
    (void)!::write(fd, oom_score.data(), oom_score.size());
    ::close(fd);
  }
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  if (rlimit files{}; record.open_files_max > 0 && ::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = std::min<rlim_t>(static_cast<rlim_t>(record.open_files_max), files.rlim_max);
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  switch_user(record, error_fd);
  // After the change of user, which clears it. The shim may have died before this line: then leave.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != shim) ::_exit(127);
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) give_up(error_fd, "cannot set no_new_privs");
  char go = 0;
  ssize_t count = 0;
  while ((count = ::read(go_fd, &go, 1)) < 0 && errno == EINTR) {
  }
  if (count != 1) ::_exit(127);
  if (::chdir(record.workdir.c_str()) != 0) give_up(error_fd, "cannot enter workdir " + record.workdir);
  ::umask(022);
  if (::dup2(output_fd, 1) < 0 || ::dup2(output_fd, 2) < 0) give_up(error_fd, "cannot set up output");
  // Everything above closes on exec, so that nothing of the shim reaches the rank; error_fd must live until
  // then.
  ::close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
  reset_signals();
  std::vector<char*> environment = pointers(record.environment);
  std::vector<char*> arguments = pointers(record.command);
  ::environ = environment.data();  // execvp looks up PATH in it
  ::execvp(arguments[0], arguments.data());
  give_up(error_fd, "cannot execute '" + record.command[0] + "'");
}

void close_fd(int& fd) {
  if (fd >= 0) ::close(fd);
  fd = -1;
}

}  // namespace

bool RankProcess::fork_held(const LaunchRecord& record) {
  int output[2], go[2], error[2];
  if (::pipe2(output, O_CLOEXEC) != 0 || ::pipe2(go, O_CLOEXEC) != 0 || ::pipe2(error, O_CLOEXEC) != 0)
    return false;
  const pid_t shim = ::getpid();
  pid_ = ::fork();
  if (pid_ < 0) return false;
  if (pid_ == 0) {
    ::close(go[1]);
    ::close(error[0]);
    ::close(output[0]);
    run_child(record, shim, go[0], error[1], output[1]);
  }
  close_fd(output[1]);
  close_fd(go[0]);
  close_fd(error[1]);
  output_fd_ = output[0];
  go_fd_ = go[1];
  error_fd_ = error[0];
  ::fcntl(output_fd_, F_SETFL, O_NONBLOCK);
  return true;
}

std::string RankProcess::release() {
  const char go = 1;
  (void)!::write(go_fd_, &go, 1);  // a child that is dead already has said why
  close_fd(go_fd_);
  std::string why;
  char buffer[512];
  for (;;) {
    const ssize_t count = ::read(error_fd_, buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    if (why.size() < 4096) why.append(buffer, static_cast<std::size_t>(count));
  }
  close_fd(error_fd_);
  return why;
}

}  // namespace capstan::shim
