// How it works: appends go to one file opened with O_APPEND; before a piece that would overflow the part, the
// parts are renamed upwards (.2 to .3, .1 to .2, the file to .1) and a new file is begun. Readers follow by
// inode.
#include "worker/shim/rotating_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

namespace capstan::shim {

RotatingLog::RotatingLog(int directory_fd, std::string name, std::int64_t bytes_max)
    : directory_fd_(directory_fd),
      name_(std::move(name)),
      part_bytes_max_(std::max(bytes_max, kLogBytesMin) / (kRotatedParts + 1)) {
  open_file();
}

RotatingLog::~RotatingLog() {
  if (fd_ >= 0) ::close(fd_);
}

void RotatingLog::open_file() {
  fd_ = ::openat(directory_fd_, name_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
  struct stat status {};
  part_bytes_ = fd_ >= 0 && ::fstat(fd_, &status) == 0 ? status.st_size : 0;
}

void RotatingLog::rotate() {
  for (int part = kRotatedParts; part > 0; --part) {
    const std::string from = part == 1 ? name_ : name_ + "." + std::to_string(part - 1);
    const std::string to = name_ + "." + std::to_string(part);
    ::renameat(directory_fd_, from.c_str(), directory_fd_, to.c_str());
  }
  if (fd_ >= 0) ::close(fd_);
  open_file();
}

bool RotatingLog::write_piece(std::string_view bytes) {
  if (fd_ < 0) open_file();
  while (fd_ >= 0 && !bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) break;
    part_bytes_ += written;
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  lost_bytes_ += static_cast<std::int64_t>(bytes.size());
  return bytes.empty();
}

void RotatingLog::append(std::string_view bytes) {
  if (lost_bytes_ > 0) {
    const std::int64_t lost = lost_bytes_;
    const std::string line =
        "\n[capstan] " + std::to_string(lost) + " bytes of output were lost: the disk was full\n";
    lost_bytes_ = 0;
    const std::int64_t before = part_bytes_;
    if (!write_piece(line)) {
      // Forget the part of the note that was not written; count only output.
      if (fd_ >= 0 && ::ftruncate(fd_, before) == 0) part_bytes_ = before;
      lost_bytes_ = lost + static_cast<std::int64_t>(bytes.size());
      return;
    }
  }
  while (!bytes.empty()) {
    if (part_bytes_ >= part_bytes_max_) rotate();
    const std::int64_t space = std::max<std::int64_t>(part_bytes_max_ - part_bytes_, 1);
    const std::size_t take = std::min(bytes.size(), static_cast<std::size_t>(space));
    if (!write_piece(bytes.substr(0, take))) {
      lost_bytes_ += static_cast<std::int64_t>(bytes.size() - take);
      return;
    }
    bytes.remove_prefix(take);
  }
}

void RotatingLog::note(std::string_view text) { append("[capstan] " + std::string(text) + "\n"); }

}  // namespace capstan::shim
