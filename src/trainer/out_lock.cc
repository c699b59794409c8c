// How it works: the file holds the owner's pid for the message; the lock itself is flock's.
#include "trainer/out_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/text.h"

namespace capstan::trainer {

Result<OutLock> OutLock::take(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "lock";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return std::unexpected(fail_errno(fmt::format("cannot open {}", path.string()), errno).error());
  OutLock lock(fd);
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    char owner[32] = {};
    const ssize_t length = ::pread(fd, owner, sizeof owner - 1, 0);
    return fail(Code::kConflict, "{} is in use by another run (pid {}); choose another --out",
                folder.string(), length > 0 ? trim(owner) : "unknown");
  }
  const std::string pid = std::to_string(::getpid()) + "\n";
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, pid.data(), pid.size(), 0) < 0) {
    return std::unexpected(fail_errno(fmt::format("cannot write {}", path.string()), errno).error());
  }
  return lock;
}

OutLock::OutLock(OutLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

OutLock& OutLock::operator=(OutLock&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

OutLock::~OutLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace capstan::trainer
