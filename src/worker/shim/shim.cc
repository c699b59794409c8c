// How it works: one thread, one poll loop over the rank's output and a signalfd. The rank's first process is
// looked at with WNOWAIT first, so its pid (and process group) stays reserved until everything in the group
// is killed.
#include "worker/shim/shim.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "sandbox/cgroup_files.h"
#include "worker/shim/launch_record.h"
#include "worker/shim/rank_process.h"
#include "worker/shim/records.h"
#include "worker/shim/rotating_log.h"

namespace capstan::shim {
namespace {

constexpr std::int64_t kRetryMsMax = 1000;  // between tries to write exit.json on a full disk
constexpr std::int64_t kNever = -1;

class Shim {
 public:
  explicit Shim(LaunchRecord record)
      : record_(std::move(record)), log_(kLogDirFd, record_.log_name, record_.log_bytes_max) {}

  int run() {
    if (!set_up()) return finish_unstarted(std::string("cannot start the rank: ") + std::strerror(errno));
    if (!write_shim_record()) {
      const std::string why = std::string("cannot record the rank's start: ") + std::strerror(errno);
      return finish_unstarted(why);
    }
    if (std::string why = rank_.release(); !why.empty()) {
      log_.note(why);
      return finish_unstarted(why, false);
    }
    // A hint for the worker that exec has succeeded; without it (disk full) the worker believes so after a
    // second.
    if (const int fd = ::openat(kRankDirFd, "started", O_WRONLY | O_CREAT | O_CLOEXEC, 0600); fd >= 0)
      ::close(fd);
    if (record_.timeout_ms > 0) timeout_at_ = monotonic_ms() + record_.timeout_ms;
    while (!ended_) step();
    end_remains();
    drain_output();
    record_end();
    return 0;
  }

 private:
  bool set_up() {
    sigset_t blocked;
    ::sigfillset(&blocked);
    ::sigprocmask(SIG_SETMASK, &blocked, nullptr);
    sigset_t wanted;
    ::sigemptyset(&wanted);
    ::sigaddset(&wanted, SIGTERM);
    ::sigaddset(&wanted, SIGCHLD);
    signal_fd_ = ::signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signal_fd_ < 0 || ::prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) return false;
    return rank_.fork_held(record_);
  }

  bool write_shim_record() {
    const std::string text = "{\"pid\":" + std::to_string(::getpid()) +
                             ",\"start_ticks\":" + std::to_string(start_ticks(::getpid())) +
                             ",\"child_pid\":" + std::to_string(rank_.pid()) +
                             ",\"child_start_ticks\":" + std::to_string(start_ticks(rank_.pid())) + "}\n";
    return write_durably(kRankDirFd, "shim.json", text);
  }

  // One turn of the loop: wait for output, a signal or a deadline; then handle each once.
  void step() {
    pollfd polled[2] = {{signal_fd_, POLLIN, 0}, {output_open_ ? rank_.output_fd() : -1, POLLIN, 0}};
    (void)::poll(polled, 2, poll_timeout());
    if (polled[1].revents != 0) copy_output();
    if (polled[0].revents != 0) take_signals();
    const std::int64_t now = monotonic_ms();
    if (timeout_at_ != kNever && now >= timeout_at_) {
      timeout_at_ = kNever;
      timed_out_ = true;
      log_.note("timed out after " + std::to_string(record_.timeout_ms) + " ms");
      stop(record_.grace_ms);
    }
    if (kill_at_ != kNever && now >= kill_at_) {
      kill_at_ = kNever;
      kill_everything();
    }
  }

  int poll_timeout() const {
    std::int64_t next = kNever;
    for (const std::int64_t at : {timeout_at_, kill_at_}) {
      if (at != kNever) next = next == kNever ? at : std::min(next, at);
    }
    if (next == kNever) return -1;
    return static_cast<int>(std::clamp<std::int64_t>(next - monotonic_ms(), 0, 1'000'000));
  }

  // At most one buffer a turn, so that signals are seen while a rank floods. False if nothing was there.
  bool copy_output() {
    char buffer[16 * 1024];
    const ssize_t count = ::read(rank_.output_fd(), buffer, sizeof buffer);
    if (count > 0) log_.append({buffer, static_cast<std::size_t>(count)});
    if (count == 0) output_open_ = false;
    return count > 0;
  }

  // What is still in the pipe. A holder outside the rank (it was sent the descriptor) does not delay the end.
  void drain_output() {
    while (output_open_ && copy_output()) {
    }
  }

  void take_signals() {
    signalfd_siginfo info{};
    while (::read(signal_fd_, &info, sizeof info) == sizeof info) {
      if (info.ssi_signo == SIGTERM) stop(info.ssi_code == SI_QUEUE ? info.ssi_int : record_.grace_ms);
    }
    reap();
  }

  void stop(std::int64_t grace_ms) {
    const std::int64_t at = monotonic_ms() + std::max<std::int64_t>(grace_ms, 0);
    if (stopped_) {
      if (kill_at_ != kNever) kill_at_ = std::min(kill_at_, at);
      return;
    }
    stopped_ = true;
    kill_at_ = at;
    ::kill(-rank_.pid(), SIGTERM);
  }

  // Reaps adopted orphans; the rank's own process is only noticed, and reaped in end_remains.
  void reap() {
    for (;;) {
      siginfo_t info{};
      if (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) return;
      if (info.si_pid == rank_.pid()) {
        ended_ = true;
        return;
      }
      ::waitpid(info.si_pid, nullptr, 0);
    }
  }

  void kill_everything() {
    if (!reaped_) ::kill(-rank_.pid(), SIGKILL);
    for (const auto& cgroup : record_.cgroups) sandbox::kill_cgroup(cgroup);
    kill_children();
  }

  // SIGKILL to every child of this process: after the orphaning of theirs, the next round finds those.
  void kill_children() {
    DIR* proc = ::opendir("/proc");
    if (proc == nullptr) return;
    const pid_t self = ::getpid();
    while (const dirent* entry = ::readdir(proc)) {
      const long pid = std::strtol(entry->d_name, nullptr, 10);
      if (pid > 0 && parent_of(static_cast<pid_t>(pid)) == self) ::kill(static_cast<pid_t>(pid), SIGKILL);
    }
    ::closedir(proc);
  }

  // The rank's first process has ended: take its status, then end all that it left behind.
  void end_remains() {
    ::kill(-rank_.pid(), SIGKILL);  // its zombie still reserves the group's number
    ::waitpid(rank_.pid(), &status_, 0);
    reaped_ = true;
    for (int pause_ms = 1;; pause_ms = std::min(pause_ms * 2, 100)) {
      for (const auto& cgroup : record_.cgroups) sandbox::kill_cgroup(cgroup);
      pid_t gone = 0;
      while ((gone = ::waitpid(-1, nullptr, WNOHANG)) > 0) {
      }
      if (gone < 0 && cgroups_empty()) return;
      if (gone == 0) kill_children();
      ::poll(nullptr, 0, pause_ms);
      drain_output();
    }
  }

  bool cgroups_empty() const {
    return std::all_of(record_.cgroups.begin(), record_.cgroups.end(),
                       [](const auto& cgroup) { return sandbox::cgroup_processes(cgroup).empty(); });
  }

  void record_end() {
    ExitRecord end;
    if (WIFSIGNALED(status_)) {
      end.signal = WTERMSIG(status_);
    } else {
      end.exit_code = WEXITSTATUS(status_);
    }
    for (const auto& cgroup : record_.cgroups) end.oom = end.oom || sandbox::cgroup_oom_kills(cgroup) > 0;
    if (end.oom) log_.note("the kernel killed a process of this rank for exceeding its memory limit");
    end.stopped = stopped_;
    end.timed_out = timed_out_;
    write_end(end);
  }

  int finish_unstarted(const std::string& why, bool retryable = true) {
    if (rank_.pid() > 0) {
      ::kill(rank_.pid(), SIGKILL);
      ::waitpid(rank_.pid(), nullptr, 0);
    }
    ExitRecord end;
    end.start_error = why;
    end.start_retryable = retryable;
    write_end(end);
    return 0;
  }

  // Until it is durable: an exit code must not be lost to a full disk. Only a removed directory ends the
  // tries.
  void write_end(ExitRecord& end) {
    for (const auto& cgroup : record_.cgroups) ::rmdir(cgroup.c_str());
    end.ended_ms = unix_time_ms();
    const std::string text = to_json(end);
    for (std::int64_t pause_ms = 10;; pause_ms = std::min(pause_ms * 2, kRetryMsMax)) {
      if (write_durably(kRankDirFd, "exit.json", text)) return;
      struct stat status {};
      if (::fstat(kRankDirFd, &status) != 0 || status.st_nlink == 0) return;
      ::poll(nullptr, 0, static_cast<int>(pause_ms));
    }
  }

  LaunchRecord record_;
  RotatingLog log_;
  RankProcess rank_;
  int signal_fd_ = -1;
  int status_ = 0;
  bool output_open_ = true;
  bool ended_ = false;
  bool reaped_ = false;
  bool stopped_ = false;
  bool timed_out_ = false;
  std::int64_t timeout_at_ = kNever;  // monotonic_ms()
  std::int64_t kill_at_ = kNever;
};

std::string read_record() {
  std::string bytes;
  char buffer[4096];
  ::lseek(kRecordFd, 0, SEEK_SET);
  for (ssize_t count = 0; (count = ::read(kRecordFd, buffer, sizeof buffer)) > 0;) {
    bytes.append(buffer, static_cast<std::size_t>(count));
  }
  ::close(kRecordFd);
  return bytes;
}

}  // namespace

int run_shim() {
  LaunchRecord record;
  std::string why;
  if (!decode(read_record(), record, why)) {
    const std::string message = "capstan-shim: " + why + "; it is started by capstan's worker, not by hand\n";
    (void)!::write(2, message.data(), message.size());
    return 2;
  }
  ::close_range(kLogDirFd + 1, ~0u, 0);
  for (const int fd : {kRankDirFd, kLogDirFd}) ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  (void)!::chdir("/");
  ::umask(022);
  return Shim(std::move(record)).run();
}

}  // namespace capstan::shim
