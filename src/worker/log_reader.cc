// How it works: the open file is recognised among the parts by its inode. When its end is reached and it is
// not the newest part any more, it cannot grow: one more read, then the next newer part is opened.
#include "worker/log_reader.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>

#include "worker/shim/rotating_log.h"

namespace capstan::worker {
namespace {

constexpr std::size_t kReadBytes = 64 * 1024;

std::string read_some(int fd) {
  std::string bytes(kReadBytes, '\0');
  const ssize_t count = fd < 0 ? 0 : ::read(fd, bytes.data(), bytes.size());
  bytes.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
  return bytes;
}

std::int64_t size_of(int fd) {
  struct stat status {};
  return fd >= 0 && ::fstat(fd, &status) == 0 ? status.st_size : 0;
}

}  // namespace

LogReader::LogReader(Descriptor directory, std::string name, std::optional<std::int64_t> tail_bytes)
    : directory_(std::move(directory)), name_(std::move(name)) {
  if (tail_bytes) {
    skip_to_tail(*tail_bytes);
    return;
  }
  for (int part = shim::kRotatedParts; part >= 0 && !current_; --part) current_ = open_part(part);
}

Descriptor LogReader::open_part(int part) const {
  const std::string file = part == 0 ? name_ : name_ + "." + std::to_string(part);
  return Descriptor(::openat(directory_.get(), file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
}

int LogReader::part_of_current() const {
  struct stat mine {
  }, other{};
  if (::fstat(current_.get(), &mine) != 0) return -1;
  for (int part = 0; part <= shim::kRotatedParts; ++part) {
    const std::string file = part == 0 ? name_ : name_ + "." + std::to_string(part);
    if (::fstatat(directory_.get(), file.c_str(), &other, AT_SYMLINK_NOFOLLOW) == 0 &&
        other.st_ino == mine.st_ino)
      return part;
  }
  return -1;
}

void LogReader::skip_to_tail(std::int64_t tail_bytes) {
  std::int64_t wanted = std::max<std::int64_t>(tail_bytes, 0);
  for (int part = 0; part <= shim::kRotatedParts; ++part) {
    Descriptor file = open_part(part);
    if (!file) break;
    const std::int64_t size = size_of(file.get());
    current_ = std::move(file);
    if (size > wanted) {
      // From the byte before the place, so that a line that begins exactly there is kept.
      std::int64_t at = size - wanted;
      char byte = 0;
      for (--at; at < size && ::pread(current_.get(), &byte, 1, at) == 1 && byte != '\n'; ++at) {
      }
      ::lseek(current_.get(), std::min(at + 1, size), SEEK_SET);
      return;
    }
    wanted -= size;
  }
}

bool LogReader::advance() {
  const int part = current_ ? part_of_current() : -1;
  if (part == 0) return false;
  Descriptor next;
  // Rotated away or nothing open yet: the oldest there is. Else the next newer.
  for (int candidate = part > 0 ? part - 1 : shim::kRotatedParts; candidate >= 0 && !next; --candidate)
    next = open_part(candidate);
  if (!next) return false;
  current_ = std::move(next);
  return true;
}

std::string LogReader::read() {
  for (int tries = 0; tries <= shim::kRotatedParts + 1; ++tries) {
    std::string bytes = read_some(current_.get());
    if (!bytes.empty()) return bytes;
    if (current_ && part_of_current() == 0) return {};
    bytes = read_some(current_.get());  // what was written between the read and the rotation
    if (!bytes.empty()) return bytes;
    if (!advance()) return {};
  }
  return {};
}

}  // namespace capstan::worker
