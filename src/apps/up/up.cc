#include "apps/up/up.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>

#include "apps/up/worker_process.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/paths.h"

namespace capstan::apps {
namespace {

constexpr int kWorkerCheckMs = 500;

volatile std::sig_atomic_t stop_requested = 0;
void request_stop(int) { stop_requested = 1; }

// For good: real, effective and saved ids, and no supplementary groups but the user's own.
Result<void> drop_root(const Identity& identity) {
  if (::initgroups(identity.name.c_str(), identity.gid) != 0)
    return fail_errno("cannot set groups of " + identity.name, errno);
  if (::setresgid(identity.gid, identity.gid, identity.gid) != 0)
    return fail_errno("cannot become group of " + identity.name, errno);
  if (::setresuid(identity.uid, identity.uid, identity.uid) != 0)
    return fail_errno("cannot become " + identity.name, errno);
  return {};
}

[[noreturn]] void controller_child(const UpOptions& options, const DataDirectory& data,
                                   const Shipped& shipped, const Identity& identity, pid_t supervisor) {
  int exit_code = 1;
  if (identity.drops_root) {
    if (const auto dropped = drop_root(identity); !dropped) {
      fmt::print(stderr, "capstan: {}\n", dropped.error().message);
      ::_exit(exit_code);
    }
  }
  // After the change of user, which clears it: die with the supervisor, so that the lock never outlives its
  // owner.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() == supervisor) exit_code = run_controller({options, data, shipped});
  std::fflush(nullptr);
  ::_exit(exit_code);
}

// Whether the controller is there to be dialled.
bool answers(const DataDirectory& data, pid_t controller) {
  const auto text = read_file(data.path() / "controller.json");
  const auto json = text ? Json::parse(*text) : fail(Code::kNotFound, "none");
  return json && json->get_int("pid") == controller;
}

// Waits for the child; meanwhile keeps a worker running, from when there is a controller: one that cannot start leaves nothing
// behind. Returns the child's wait status.
int supervise(const DataDirectory& data, pid_t child, const WorkerProcess& worker) {
  bool forwarded = false, up = false;
  for (int elapsed_ms = 0;; elapsed_ms += 50) {
    int status = 0;
    const pid_t ended = ::waitpid(child, &status, WNOHANG);
    if (ended == child) return status;
    if (stop_requested != 0 && !forwarded) {
      forwarded = true;
      ::kill(child, SIGTERM);
    }
    const bool due = up ? elapsed_ms % kWorkerCheckMs == 0 : (up = answers(data, child));
    if (due && stop_requested == 0 && !worker.is_alive()) {
      if (const auto started = worker.start(); !started)
        log_error("cannot start the worker", "error=\"{}\"", started.error().message);
    }
    ::usleep(50'000);
  }
}

int fail_with(const Error& error) {
  fmt::print(stderr, "capstan: {}\n", error.message);
  return error.code == Code::kConflict ? 6 : 1;
}

}  // namespace

int up(const UpOptions& options) {
  auto identity = choose_identity();
  if (!identity) return fail_with(identity.error());
  const std::filesystem::path path = options.data_directory.empty()
                                         ? default_data_directory()
                                         : std::filesystem::path(options.data_directory);
  auto data = DataDirectory::open(path, *identity);
  if (!data) return fail_with(data.error());
  auto shipped = find_shipped();
  if (!shipped) return fail_with(shipped.error());

  struct sigaction action {};
  action.sa_handler = request_stop;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(signal, &action, nullptr);
  const WorkerProcess worker(data->path(), *shipped);
  const pid_t supervisor = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return fail_with(fail_errno("cannot start the controller", errno).error());
  if (child == 0) controller_child(options, *data, *shipped, *identity, supervisor);

  const int status = supervise(*data, child, worker);
  if (WIFSIGNALED(status)) {
    fmt::print(
        stderr,
        "capstan: the controller was killed by signal {}; what runs keeps running, `capstan up` adopts it\n",
        WTERMSIG(status));
    return 1;
  }
  if (WEXITSTATUS(status) == kExitDown) {
    worker.stop();
    return 0;
  }
  return WEXITSTATUS(status);
}

}  // namespace capstan::apps
