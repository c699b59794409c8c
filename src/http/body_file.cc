#include "http/body_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

namespace capstan::http {
namespace {

// Some file systems have no files that never had a name.
int open_nameless(const std::filesystem::path& directory) {
  int fd = open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR)) return fd;
  std::string name = directory / "body-XXXXXX";
  fd = mkostemp(name.data(), O_CLOEXEC);
  if (fd >= 0) unlink(name.c_str());
  return fd;
}

std::unexpected<Error> failed(std::string_view what, const std::filesystem::path& where, int error) {
  const Code code = error == ENOSPC || error == EDQUOT ? Code::kExhausted : error == ENOENT ? Code::kNotFound : Code::kIo;
  return fail(code, "cannot {} {}: {}", what, where.string(), std::strerror(error));
}

}  // namespace

Result<std::shared_ptr<const BodyFile>> BodyFile::open(const std::filesystem::path& path) {
  auto file = std::make_shared<BodyFile>(nullptr);
  file->fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status {};
  if (file->fd_ < 0 || fstat(file->fd_, &status) != 0) return failed("read", path, errno);
  file->size_ = static_cast<std::uint64_t>(status.st_size);
  CAPSTAN_CHECK(file->finish());
  return std::shared_ptr<const BodyFile>(std::move(file));
}

BodyFile::~BodyFile() {
  if (mapped_ != nullptr) munmap(mapped_, size_);
  if (fd_ >= 0) close(fd_);
  if (room_) room_->bytes -= size_;
}

Result<void> BodyFile::append(std::string_view bytes) {
  if (fd_ < 0 && (fd_ = open_nameless(room_->directory)) < 0) return failed("keep a body in", room_->directory, errno);
  while (!bytes.empty()) {
    const ssize_t written = write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return failed("keep a body in", room_->directory, errno);
    size_ += static_cast<std::uint64_t>(written);
    bytes.remove_prefix(static_cast<std::size_t>(written));
    if ((room_->bytes += static_cast<std::uint64_t>(written)) > room_->bytes_max)
      return fail(Code::kExhausted, "large bodies may have {} bytes together; try again when others have been received",
                  room_->bytes_max);
  }
  return {};
}

Result<void> BodyFile::finish() {
  finished_ = true;
  if (size_ == 0) return {};
  void* const at = mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd_, 0);
  if (at == MAP_FAILED) return fail(Code::kIo, "cannot map a body of {} bytes: {}", size_, std::strerror(errno));
  mapped_ = at;
  return {};
}

}  // namespace capstan::http
