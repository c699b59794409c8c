#include "agents/sessions/file_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <memory>
#include <string>
#include <string_view>

#include "sandbox/wire.h"

namespace capstan::agents {
namespace {

using sandbox::Fd;

constexpr int kDepthMax = 64;

class TreeCopier {
 public:
  explicit TreeCopier(const TreeLimits& limits) : limits_(limits) {}

  Result<void> directory(int from, int to, int depth) {
    if (depth > kDepthMax) return fail(Code::kExhausted, "more than {} directories within each other", kDepthMax);
    const std::unique_ptr<DIR, int (*)(DIR*)> entries(::fdopendir(::fcntl(from, F_DUPFD_CLOEXEC, 3)), ::closedir);
    if (!entries) return fail_errno("cannot list a directory", errno);
    while (const dirent* entry = ::readdir(entries.get())) {
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") CAPSTAN_CHECK(one(from, to, entry->d_name, depth));
    }
    return {};
  }

 private:
  Result<void> one(int from, int to, const char* name, int depth) {
    struct stat about {};
    if (::fstatat(from, name, &about, AT_SYMLINK_NOFOLLOW) != 0) return {};  // gone meanwhile
    if (++files_ > limits_.files_max) return fail(Code::kExhausted, "more than {} files", limits_.files_max);
    if (S_ISLNK(about.st_mode)) return link(from, to, name);
    if (S_ISREG(about.st_mode)) return file(from, to, name);
    if (!S_ISDIR(about.st_mode)) return {};
    if (::mkdirat(to, name, about.st_mode & 0777) != 0 && errno != EEXIST)
      return fail_errno(std::string("cannot make ") + name, errno);
    const Fd inner_from(::openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    const Fd inner_to(::openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!inner_from || !inner_to) return fail_errno(std::string("cannot open ") + name, errno);
    CAPSTAN_CHECK(directory(inner_from.get(), inner_to.get(), depth + 1));
    return give(inner_to.get(), name);
  }

  Result<void> link(int from, int to, const char* name) {
    char target[PATH_MAX];
    const ssize_t size = ::readlinkat(from, name, target, sizeof target - 1);
    if (size < 0) return {};
    target[size] = '\0';
    if (::symlinkat(target, to, name) != 0) return fail_errno(std::string("cannot make ") + name, errno);
    if (::fchownat(to, name, limits_.owner, limits_.owner, AT_SYMLINK_NOFOLLOW) != 0)
      return fail_errno(std::string("cannot give away ") + name, errno);
    return {};
  }

  Result<void> file(int from, int to, const char* name) {
    const Fd source(::openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat about {};
    if (!source || ::fstat(source.get(), &about) != 0 || !S_ISREG(about.st_mode)) return {};
    const Fd target(::openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, about.st_mode & 0777));
    if (!target) return fail_errno(std::string("cannot make ") + name, errno);
    char buffer[64 << 10];
    for (ssize_t count = 0; (count = ::read(source.get(), buffer, sizeof buffer)) != 0;) {
      if (count < 0) return fail_errno(std::string("cannot read ") + name, errno);
      bytes_ += count;
      if (bytes_ > limits_.bytes_max) return fail(Code::kExhausted, "more than {} bytes", limits_.bytes_max);
      for (ssize_t done = 0; done < count;) {
        const ssize_t written = ::write(target.get(), buffer + done, static_cast<std::size_t>(count - done));
        if (written < 0) return fail_errno(std::string("cannot write ") + name, errno);
        done += written;
      }
    }
    return give(target.get(), name);
  }

  Result<void> give(int fd, const char* name) {
    if (::fchown(fd, limits_.owner, limits_.owner) == 0) return {};
    return fail_errno(std::string("cannot give away ") + name, errno);
  }

  const TreeLimits& limits_;
  std::int64_t bytes_ = 0, files_ = 0;
};

}  // namespace

Result<void> copy_tree(int from, int to, const TreeLimits& limits) {
  return TreeCopier(limits).directory(from, to, 0);
}

}  // namespace capstan::agents
