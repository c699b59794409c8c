#include "apps/up/worker_process.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <optional>
#include <utility>

#include "base/build_id.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "worker/shim/records.h"

namespace capstan::apps {
namespace {

constexpr int kStopWaitMs = 120'000;

struct Recorded {
  pid_t pid = 0;
  std::uint64_t start_ticks = 0;
  std::string build;
};

std::optional<Recorded> read_record(const std::filesystem::path& data) {
  const auto text = read_file(data / "worker/worker.json", 64 << 10);
  if (!text) return std::nullopt;
  const auto json = Json::parse(*text);
  if (!json) return std::nullopt;
  return Recorded{static_cast<pid_t>(json->get_int("pid").value_or(0)),
                  static_cast<std::uint64_t>(json->get_int("start_ticks").value_or(0)),
                  json->get_string("build").value_or("")};
}

bool runs(const Recorded& record) {
  return record.pid > 0 && record.start_ticks > 0 && shim::start_ticks(record.pid) == record.start_ticks;
}

}  // namespace

WorkerProcess::WorkerProcess(std::filesystem::path data, Shipped shipped)
    : data_(std::move(data)), shipped_(std::move(shipped)) {}

bool WorkerProcess::is_alive() const {
  const auto record = read_record(data_);
  return record && runs(*record) && record->build == build_id();
}

Result<void> WorkerProcess::start() const {
  const std::string program = (shipped_.bin / "capstan").string();
  const std::string log = (data_ / "log/worker.log").string();
  // Twice forked, so that the worker is no child of this process and never a zombie of it.
  const pid_t middle = ::fork();
  if (middle < 0) return fail_errno("cannot fork for the worker", errno);
  if (middle == 0) {
    ::setsid();
    if (::fork() != 0) ::_exit(0);
    const int null = ::open("/dev/null", O_RDONLY);
    const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0600);
    if (null < 0 || out < 0) ::_exit(1);
    ::dup2(null, STDIN_FILENO);
    ::dup2(out, STDOUT_FILENO);
    ::dup2(out, STDERR_FILENO);
    ::close_range(3, ~0u, 0);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::signal(signal, SIG_DFL);
    const std::array<const char*, 7> argv{
        "capstan", "worker", "--data-dir", data_.c_str(), "--share", shipped_.share.c_str(), nullptr};
    ::execv(program.c_str(), const_cast<char* const*>(argv.data()));
    ::_exit(127);
  }
  int status = 0;
  while (::waitpid(middle, &status, 0) < 0 && errno == EINTR) {
  }
  return {};
}

bool WorkerProcess::stop() const {
  const auto record = read_record(data_);
  if (!record || !runs(*record)) return false;
  ::kill(record->pid, SIGTERM);
  for (int waited_ms = 0; waited_ms < kStopWaitMs && runs(*record); waited_ms += 50) ::usleep(50'000);
  return true;
}

}  // namespace capstan::apps
