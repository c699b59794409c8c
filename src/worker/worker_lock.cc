// How it works: a new worker of another build signals the holder through a pidfd that it has checked against
// the recorded start ticks, so a recycled pid is never signalled.
#include "worker/worker_lock.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/syscall.h>

#include <cerrno>

#include "base/json.h"
#include "base/log.h"
#include "worker/shim/records.h"

namespace capstan::worker {
namespace {

struct Holder {
  Descriptor process;  // none if it cannot be told who it is
  std::string build;
};

Holder find_holder(const DataDirectory& data) {
  Holder holder;
  const auto text = read_below(data.worker_fd(), "worker.json");
  const auto json = text ? Json::parse(*text) : Result<Json>(Json());
  if (!json) return holder;
  const auto pid = static_cast<pid_t>(json->get_int("pid").value_or(0));
  holder.build = json->get_string("build").value_or("");
  if (pid <= 0) return holder;
  holder.process = Descriptor(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (shim::start_ticks(pid) != static_cast<std::uint64_t>(json->get_int("start_ticks").value_or(0)))
    holder.process.reset();
  return holder;
}

bool try_lock(int fd) { return ::flock(fd, LOCK_EX | LOCK_NB) == 0; }

bool lock_within(int fd, int timeout_ms) {
  for (int waited_ms = 0; waited_ms < timeout_ms; waited_ms += 20) {
    if (try_lock(fd)) return true;
    ::poll(nullptr, 0, 20);
  }
  return false;
}

}  // namespace

Result<WorkerLock> WorkerLock::acquire(const DataDirectory& data, const std::string& build) {
  WorkerLock lock;
  lock.lock_ =
      Descriptor(::openat(data.worker_fd(), "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock.lock_) return fail_errno("cannot open the worker's lock", errno);
  if (try_lock(lock.lock_.get())) return lock;
  // The holder may be about to write worker.json, or about to end: look a few times before deciding.
  for (int tries = 0; tries < 5; ++tries) {
    const Holder holder = find_holder(data);
    if (holder.process && holder.build == build) {
      return fail(Code::kConflict, "a worker of this build already runs on {}", data.path().string());
    }
    if (holder.process) {
      log_info("asking the worker of another build to leave", "build={}", holder.build);
      ::syscall(SYS_pidfd_send_signal, holder.process.get(), SIGUSR1, nullptr, 0);
      if (lock_within(lock.lock_.get(), kLeaveWaitMs)) return lock;
      log_warn("the worker of another build does not leave and is killed; its ranks run on");
      ::syscall(SYS_pidfd_send_signal, holder.process.get(), SIGKILL, nullptr, 0);
    }
    if (lock_within(lock.lock_.get(), 500)) return lock;
  }
  return fail(Code::kConflict, "the lock of the worker on {} is held by an unknown process",
              data.path().string());
}

Result<void> WorkerLock::announce(const DataDirectory& data, const std::string& incarnation,
                                  const std::string& build, int logs_port) const {
  const pid_t self = ::getpid();
  const Json json = Json::object({{"pid", static_cast<std::int64_t>(self)},
                                  {"start_ticks", shim::start_ticks(self)},
                                  {"incarnation", incarnation},
                                  {"build", build},
                                  {"logs_port", logs_port}});
  if (!shim::write_durably(data.worker_fd(), "worker.json", json.dump() + "\n"))
    return fail_errno("cannot write worker.json", errno);
  return {};
}

}  // namespace capstan::worker
