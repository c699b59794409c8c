// How it works: openat with O_NOFOLLOW per component, fstat for the owner, and no path lookups afterwards.
#include "worker/data_directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

namespace capstan::worker {
namespace {
constexpr std::size_t kReadBytesMax = 1 << 20;
}

Result<Descriptor> open_own_directory(int parent_fd, const std::string& name, unsigned mode) {
  if (::mkdirat(parent_fd, name.c_str(), mode) != 0 && errno != EEXIST)
    return fail_errno("cannot make directory " + name, errno);
  Descriptor directory(::openat(parent_fd, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!directory) return fail_errno("cannot open directory " + name, errno);
  struct stat status {};
  if (::fstat(directory.get(), &status) != 0) return fail_errno("cannot examine directory " + name, errno);
  if (status.st_uid != ::geteuid()) {
    return fail(
        Code::kDenied,
        "directory {} belongs to uid {}, but the worker runs as uid {}: use another data directory, or "
        "start Capstan as before",
        name, status.st_uid, ::geteuid());
  }
  if ((status.st_mode & 022) != 0)
    return fail(Code::kDenied, "directory {} is writable by other users", name);
  return directory;
}

Result<DataDirectory> DataDirectory::open(const std::filesystem::path& path) {
  DataDirectory data;
  std::error_code error;
  data.path_ = std::filesystem::absolute(path, error).lexically_normal();
  const Descriptor top(::open(data.path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!top) return fail_errno("cannot open data directory " + data.path_.string(), errno);
  struct stat status {};
  if (::fstat(top.get(), &status) != 0)
    return fail_errno("cannot examine data directory " + data.path_.string(), errno);
  data.owner_ = status.st_uid;
  CAPSTAN_TRY(data.worker_, open_own_directory(top.get(), "worker", 0755));
  CAPSTAN_TRY(data.ranks_, open_own_directory(data.worker_.get(), "ranks", 0700));
  CAPSTAN_TRY(data.logs_, open_own_directory(top.get(), "logs", 0755));
  return data;
}

Result<std::string> read_below(int directory_fd, const std::string& name) {
  const Descriptor file(::openat(directory_fd, name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (!file) return fail_errno("cannot open " + name, errno);
  std::string bytes;
  char buffer[16 * 1024];
  for (;;) {
    const ssize_t count = ::read(file.get(), buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno("cannot read " + name, errno);
    if (count == 0) return bytes;
    bytes.append(buffer, static_cast<std::size_t>(count));
    if (bytes.size() > kReadBytesMax)
      return fail(Code::kExhausted, "{} is larger than {} bytes", name, kReadBytesMax);
  }
}

Result<std::vector<std::string>> names_below(int directory_fd) {
  const int copy = ::openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);  // closed with `directory`
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(copy < 0 ? nullptr : ::fdopendir(copy), ::closedir);
  if (!directory) {
    const int error = errno;
    if (copy >= 0) ::close(copy);
    return fail_errno("cannot list a directory of the worker's", error);
  }
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(directory.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  return names;
}

}  // namespace capstan::worker
