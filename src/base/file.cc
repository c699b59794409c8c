#include "base/file.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "base/assert.h"
#include "base/text.h"

namespace capstan {
namespace {

// Closes on every way out.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

Result<void> write_all(int fd, std::string_view bytes, const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return fail_errno("cannot write " + path.string(), errno);
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

}  // namespace

Result<std::string> read_file(const std::filesystem::path& path, std::uint64_t bytes_max) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) return fail_errno("cannot open " + path.string(), errno);
  std::string bytes;
  char buffer[1 << 16];
  for (;;) {
    const ssize_t count = ::read(file.fd, buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno("cannot read " + path.string(), errno);
    if (count == 0) return bytes;
    bytes.append(buffer, static_cast<std::size_t>(count));
    if (bytes.size() > bytes_max) {
      return fail(Code::kExhausted, "{} is larger than {} bytes", path.string(), bytes_max);
    }
  }
}

Result<void> write_file_atomic(const std::filesystem::path& path, std::string_view bytes, unsigned mode) {
  const std::filesystem::path temporary = path.string() + ".tmp-" + random_hex(4);
  const auto write_and_rename = [&]() -> Result<void> {
    const Descriptor file{::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)};
    if (file.fd < 0) return fail_errno("cannot create " + temporary.string(), errno);
    CAPSTAN_CHECK(write_all(file.fd, bytes, temporary));
    if (::fsync(file.fd) != 0) return fail_errno("cannot sync " + temporary.string(), errno);
    if (::rename(temporary.c_str(), path.c_str()) != 0)
      return fail_errno("cannot replace " + path.string(), errno);
    const std::filesystem::path parent = path.has_parent_path() ? path.parent_path() : ".";
    const Descriptor directory{::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (directory.fd < 0 || ::fsync(directory.fd) != 0)
      return fail_errno("cannot sync " + parent.string(), errno);
    return {};
  };
  auto result = write_and_rename();
  if (!result) ::unlink(temporary.c_str());
  return result;
}

Result<void> make_directories(const std::filesystem::path& path, unsigned mode) {
  std::filesystem::path made;
  for (const auto& part : path) {
    made /= part;
    if (std::filesystem::is_directory(made)) continue;
    const bool last = made == path;
    if (::mkdir(made.c_str(), last ? mode : 0755) != 0 && errno != EEXIST) {
      return fail_errno("cannot create directory " + made.string(), errno);
    }
  }
  return {};
}

std::string random_hex(int bytes) {
  CAPSTAN_ASSERT(bytes > 0 && bytes <= 256);
  std::vector<std::uint8_t> buffer(static_cast<std::size_t>(bytes));
  CAPSTAN_ASSERT(::getrandom(buffer.data(), buffer.size(), 0) == bytes);
  return hex(buffer);
}

}  // namespace capstan
