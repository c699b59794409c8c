// How it works: the main thread puts the parts together and then only waits: for signals (by signalfd), for
// changes that the health checks must follow, and for the controller's wish to shut down. The sync loop, the
// supervisor's watcher, the log server and the health checks are threads of their own.
#include "worker/worker.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

#include <cerrno>
#include <climits>
#include <functional>
#include <set>
#include <thread>

#include "base/build_id.h"
#include "base/file.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/text.h"
#include "sandbox/cgroup.h"
#include "worker/health_monitor.h"
#include "worker/host_resources.h"
#include "worker/http_link.h"
#include "worker/log_retention.h"
#include "worker/log_server.h"
#include "worker/sandboxes/sandbox_relay.h"
#include "worker/sandboxes/sandbox_runner.h"
#include "worker/supervisor.h"
#include "worker/sync_loop.h"
#include "worker/tasks/task_runner.h"
#include "worker/worker_lock.h"

namespace capstan::worker {
namespace {

constexpr int kExitConflict = 6;
constexpr std::int64_t kHouseworkMs = 10'000;
constexpr off_t kOwnLogBytesMax = 16 << 20;

// Blocks the signals that this process handles or ignores; later threads inherit that.
Descriptor take_signals() {
  sigset_t wanted;
  ::sigemptyset(&wanted);
  for (const int signal : {SIGTERM, SIGUSR1}) ::sigaddset(&wanted, signal);
  ::pthread_sigmask(SIG_BLOCK, &wanted, nullptr);
  for (const int signal : {SIGINT, SIGHUP, SIGPIPE}) ::signal(signal, SIG_IGN);
  ::signal(SIGCHLD, SIG_DFL);  // an inherited "ignore" would reap shims behind our back
  return Descriptor(::signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK));
}

// One instance of cgroups per data directory, the same name for each of its workers.
std::string instance_name(const DataDirectory& data) {
  struct stat status {};
  ::fstat(data.ranks_fd(), &status);
  return sha256_hex(data.path().string() + ":" + std::to_string(status.st_ino)).substr(0, 12);
}

Result<std::string> read_token(const DataDirectory& data) {
  const Descriptor top(::openat(data.worker_fd(), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  CAPSTAN_TRY(const std::string text, read_below(top.get(), "worker.token"));
  const std::string token(trim(text));
  if (token.size() != 64 || token.find_first_not_of("0123456789abcdef") != token.npos) {
    return fail(Code::kCorrupt, "worker.token in {} is not 64 hexadecimal characters", data.path().string());
  }
  return token;
}

std::string host_name() {
  char name[HOST_NAME_MAX + 1] = {};
  return ::gethostname(name, sizeof name - 1) == 0 && name[0] != '\0' ? name : "localhost";
}

Json to_json(const std::vector<sandbox::Capability>& capabilities) {
  Json out = Json::array();
  for (const auto& each : capabilities)
    out.push_back(Json::object({{"name", each.name}, {"ok", each.ok}, {"why", each.why}}));
  return out;
}

std::filesystem::path own_folder() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
}

// Many ranks need many descriptors; ranks themselves keep the usual limit (launcher.h).
void raise_open_files_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// This process's own log is appended to by descriptor; it begins anew when it is full.
void bound_own_log() {
  struct stat status {};
  if (::fstat(STDERR_FILENO, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size < kOwnLogBytesMax)
    return;
  if (::ftruncate(STDERR_FILENO, 0) == 0) log_info("the log begins anew", "bytes_dropped={}", status.st_size);
}

std::set<std::string> names_of(const std::vector<RankView>& ranks) {
  std::set<std::string> names;
  for (const auto& rank : ranks) names.insert(rank.id.text());
  return names;
}

// False when the data directory was removed: nothing can be recorded any more, so nothing may run.
bool keep_house(const DataDirectory& data, const Supervisor& supervisor) {
  struct stat status {};
  if (::fstat(data.ranks_fd(), &status) == 0 && status.st_nlink == 0) {
    log_warn("the data directory was removed", "path={}", data.path().string());
    return false;
  }
  bound_own_log();
  std::set<std::int64_t> known;
  for (const auto& rank : supervisor.ranks()) known.insert(rank.id.job);
  if (const int removed = prune_logs(data.logs_fd(), kLoggedJobsMax, known); removed > 0)
    log_info("old logs removed", "jobs={}", removed);
  return true;
}

// Waits for a signal or a shutdown by the controller; keeps the health checks in step with what runs.
// True: ranks are to be stopped; false: leave them.
bool wait_for_end(const Descriptor& signals, const Descriptor& changes, HealthMonitor& health,
                  const SyncLoop& sync, const std::function<bool()>& keep_house) {
  std::int64_t housework_at_ms = 0;
  for (;;) {
    if (const std::int64_t now_ms = shim::monotonic_ms(); now_ms >= housework_at_ms) {
      housework_at_ms = now_ms + kHouseworkMs;
      if (!keep_house()) return true;
    }
    pollfd polled[2] = {{signals.get(), POLLIN, 0}, {changes.get(), POLLIN, 0}};
    (void)::poll(polled, 2, 200);
    signalfd_siginfo info{};
    while (::read(signals.get(), &info, sizeof info) == sizeof info) {
      log_info("signal", "number={}", info.ssi_signo);
      return info.ssi_signo == SIGTERM;
    }
    if (sync.shutdown_asked()) return true;
    std::uint64_t count = 0;
    if (::read(changes.get(), &count, sizeof count) == sizeof count) health.update();
  }
}

// Every rank gets its grace; then one more while, as SIGKILL needs to take effect. SIGUSR1 cuts the wait
// short.
void stop_all(Supervisor& supervisor, TaskRunner& tasks, SandboxRunner& sandboxes, const Descriptor& signals) {
  log_info("stopping all ranks", "count={} chunks={} sandboxes={}", supervisor.unended(), tasks.unended(), sandboxes.unended());
  supervisor.stop_all("the worker shuts down");
  tasks.stop_all();
  sandboxes.stop_all();
  while (!supervisor.wait_all_ended(100) || tasks.unended() + sandboxes.unended() > 0) {
    signalfd_siginfo info{};
    if (::read(signals.get(), &info, sizeof info) == sizeof info && info.ssi_signo == SIGUSR1) return;
  }
}

Result<void> run(const WorkerOptions& options) {
  const Descriptor signals = take_signals();
  CAPSTAN_TRY(const DataDirectory data, DataDirectory::open(options.data_directory));
  CAPSTAN_TRY(const WorkerLock lock, WorkerLock::acquire(data, build_id()));
  CAPSTAN_TRY(const std::string token, read_token(data));
  // Both fork: before any thread starts.
  const sandbox::Cgroups cgroups = sandbox::Cgroups::detect(instance_name(data));
  std::vector<sandbox::Capability> capabilities = cgroups.capabilities();
  capabilities.push_back(sandbox::detect_user_switch());
  for (const auto& each : capabilities)
    log_info("capability", "name={} ok={} why=\"{}\"", each.name, each.ok, each.why);

  const std::filesystem::path bin = options.bin.empty() ? own_folder() : options.bin;
  const Places places{data.path(), data.owner(), bin, options.share};
  Launcher launcher(data, places, cgroups, bin / "capstan-shim");
  raise_open_files_limit();
  ReportQueue reports;
  Supervisor supervisor(RankStore(data.ranks_fd()), launcher, reports);
  const Descriptor changes(::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK));
  supervisor.on_change([&] {
    const std::uint64_t one = 1;
    (void)!::write(changes.get(), &one, sizeof one);
  });
  CAPSTAN_CHECK(supervisor.adopt());
  TaskRunner tasks(data, places, {instance_name(data), bin}, reports);
  CAPSTAN_CHECK(tasks.adopt());
  SessionHostProcess host(data, bin / "capstan", options.session_host);
  SandboxRunner sandboxes(data, host, reports);
  CAPSTAN_CHECK(sandboxes.adopt());
  cgroups.sweep(names_of(supervisor.ranks()));
  const std::string incarnation = random_hex(8);
  CAPSTAN_TRY(const auto logs,
              LogServer::start(data, supervisor, token, [&tasks](std::int64_t job) { return tasks.results_of(job); },
                               [&](http::Router& router) { add_sandbox_routes(router, host, token, incarnation); }));
  CAPSTAN_CHECK(lock.announce(data, incarnation, build_id(), logs->port()));
  log_info("worker running", "incarnation={} ranks={} logs_port={}", incarnation, supervisor.unended(),
           logs->port());

  const auto link = make_http_link(data.path(), token);
  SyncLoop sync({host_name(), incarnation, build_id(), host_resources().to_json(), to_json(capabilities),
                 fmt::format("http://127.0.0.1:{}", logs->port())},
                *link, supervisor, reports, {&tasks, &sandboxes});
  std::jthread conversation([&] { sync.run(); });
  bool stop_ranks = false;
  {
    HealthMonitor health(supervisor, reports, http_probe());
    stop_ranks = wait_for_end(signals, changes, health, sync, [&] { return keep_house(data, supervisor); });
  }
  if (stop_ranks) stop_all(supervisor, tasks, sandboxes, signals);
  sync.leave(stop_ranks);
  conversation.join();
  if (stop_ranks) host.stop();
  if (supervisor.unended() == 0) {
    cgroups.sweep({});
    cgroups.remove_instance();
  }
  log_info("worker leaves", "ranks={}", supervisor.unended());
  return {};
}

}  // namespace

int run_worker(const WorkerOptions& options) {
  log_configure("worker", LogLevel::kInfo);
  const auto done = run(options);
  if (done) return 0;
  log_error("worker cannot run", "why={}", done.error().message);
  return done.error().code == Code::kConflict ? kExitConflict : 1;
}

}  // namespace capstan::worker
