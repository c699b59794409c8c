// How it works: every file is opened first, without blocking and without following links, and then looked at
// through its descriptor, so that what was checked is what is read. Parents are opened the same way before
// anything is changed in them.
#include "sandbox/root_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "base/text.h"
#include "sandbox/wire.h"

namespace capstan::sandbox {
namespace {

constexpr int kDepthMax = 64;

Result<void> check_path(const std::string& path) {
  if (path.empty() || path[0] != '/' || path.size() > 4000 || path.find('\0') != path.npos) {
    return fail(Code::kInvalid, "'{}' is not an absolute path inside the sandbox", path);
  }
  return {};
}

Fd open_at(int directory, const char* path, std::uint64_t flags, bool in_root, std::uint64_t mode = 0) {
  open_how how{};
  // openat2 takes nothing beside O_PATH that has no meaning there.
  how.flags = (flags & O_PATH) != 0 ? (flags & ~std::uint64_t{O_NONBLOCK}) | O_CLOEXEC : flags | O_CLOEXEC | O_NOCTTY;
  how.mode = mode;
  how.resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS |
                (in_root ? RESOLVE_IN_ROOT : RESOLVE_BENEATH | RESOLVE_NO_XDEV);
  return Fd(static_cast<int>(::syscall(SYS_openat2, directory, path, &how, sizeof how)));
}

std::unexpected<Error> failed(const std::string& path, int error) {
  if (error == ELOOP)
    return fail(Code::kDenied, "{} is or goes through a symbolic link, which is not followed", path);
  if (error == EXDEV) return fail(Code::kDenied, "{} leaves its directory", path);
  return fail_errno("cannot open " + path + " in the sandbox", error);
}

Result<Fd> open_inside(int root, const std::string& path, std::uint64_t flags, std::uint64_t mode = 0) {
  CAPSTAN_CHECK(check_path(path));
  Fd fd = open_at(root, path.c_str(), flags | O_NONBLOCK, true, mode);
  if (!fd) return failed(path, errno);
  struct statfs system {};
  if (::fstatfs(fd.get(), &system) != 0) return failed(path, errno);
  if (system.f_type == PROC_SUPER_MAGIC) return fail(Code::kDenied, "{} is in /proc", path);
  return fd;
}

// The directory that holds the path's last component, and that component.
struct Place {
  Fd parent;
  std::string name;
};
Result<Place> open_parent(int root, const std::string& path) {
  CAPSTAN_CHECK(check_path(path));
  const std::size_t slash = path.find_last_of('/');
  std::string name = path.substr(slash + 1);
  if (name.empty() || name == "." || name == "..")
    return fail(Code::kInvalid, "'{}' does not name a file", path);
  CAPSTAN_TRY(Fd parent, open_inside(root, slash == 0 ? "/" : path.substr(0, slash), O_PATH | O_DIRECTORY));
  return Place{std::move(parent), std::move(name)};
}

InsideEntry entry_of(const std::string& name, const struct stat& information) {
  const mode_t type = information.st_mode & S_IFMT;
  return {.name = name,
          .type = type == S_IFREG   ? 'f'
                  : type == S_IFDIR ? 'd'
                  : type == S_IFLNK ? 'l'
                                    : 'o',
          .bytes = information.st_size,
          .modified_ms = information.st_mtim.tv_sec * 1000 + information.st_mtim.tv_nsec / 1'000'000,
          .mode = information.st_mode & 07777};
}

Result<Fd> open_regular(int root, const std::string& path, struct stat& information) {
  CAPSTAN_TRY(Fd file, open_inside(root, path, O_RDONLY));
  if (::fstat(file.get(), &information) != 0) return failed(path, errno);
  if (!S_ISREG(information.st_mode)) return fail(Code::kDenied, "{} is not a regular file", path);
  return file;
}

using Directory = std::unique_ptr<DIR, int (*)(DIR*)>;
Directory read_directory(int fd) {
  return Directory(::fdopendir(::fcntl(fd, F_DUPFD_CLOEXEC, 3)), ::closedir);
}
bool is_dots(const char* name) { return std::string_view(name) == "." || std::string_view(name) == ".."; }

Result<void> remove_tree(int parent, const char* name, int depth) {
  if (::unlinkat(parent, name, 0) == 0) return {};
  if (errno != EISDIR && errno != EPERM) return failed(name, errno);
  if (depth > kDepthMax)
    return fail(Code::kExhausted, "more than {} directories within each other", kDepthMax);
  const Fd directory = open_at(parent, name, O_RDONLY | O_DIRECTORY, false);
  if (!directory) return failed(name, errno);
  const Directory entries = read_directory(directory.get());
  while (const dirent* entry = entries ? ::readdir(entries.get()) : nullptr) {
    if (!is_dots(entry->d_name)) CAPSTAN_CHECK(remove_tree(directory.get(), entry->d_name, depth + 1));
  }
  if (::unlinkat(parent, name, AT_REMOVEDIR) != 0) return failed(name, errno);
  return {};
}

class Copier {
 public:
  explicit Copier(const CopyLimits& limits) : limits_(limits) {}
  CopyReport report;

  Result<void> copy(int source, int parent, const std::string& name, int depth) {
    struct stat information {};
    if (::fstat(source, &information) != 0) return failed(name, errno);
    if (S_ISREG(information.st_mode)) return copy_file(source, information, parent, name);
    if (S_ISDIR(information.st_mode)) return copy_directory(source, parent, name, depth);
    ++report.skipped;
    return {};
  }

 private:
  Result<void> copy_file(int source, const struct stat& information, int parent, const std::string& name) {
    if (++report.files > limits_.files_max)
      return fail(Code::kExhausted, "more than {} files", limits_.files_max);
    const unsigned mode = (information.st_mode & 0111) != 0 ? 0755 : 0644;
    const Fd target(
        ::openat(parent, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode));
    if (!target) return fail_errno("cannot make " + name, errno);
    char buffer[64 << 10];
    for (ssize_t count = 0; (count = ::read(source, buffer, sizeof buffer)) != 0;) {
      if (count < 0) return fail_errno("cannot read " + name, errno);
      report.bytes += count;  // as read, not as the size said: the file may grow meanwhile
      if (report.bytes > limits_.bytes_max)
        return fail(Code::kExhausted, "more than {} bytes", limits_.bytes_max);
      if (::write(target.get(), buffer, static_cast<std::size_t>(count)) != count)
        return fail_errno("cannot write " + name, errno);
    }
    return {};
  }

  Result<void> copy_directory(int source, int parent, const std::string& name, int depth) {
    if (++report.files > limits_.files_max)
      return fail(Code::kExhausted, "more than {} files", limits_.files_max);
    if (depth > limits_.depth_max)
      return fail(Code::kExhausted, "more than {} directories within each other", limits_.depth_max);
    if (::mkdirat(parent, name.c_str(), 0755) != 0) return fail_errno("cannot make " + name, errno);
    const Fd target(::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    const Directory entries = read_directory(source);
    if (!target || !entries) return fail_errno("cannot open " + name, errno);
    while (const dirent* entry = ::readdir(entries.get())) {
      if (is_dots(entry->d_name)) continue;
      const Fd inner = open_at(source, entry->d_name, O_RDONLY | O_NONBLOCK, false);
      // A link, a socket, another mount, or gone meanwhile.
      if (!inner)
        ++report.skipped;
      else
        CAPSTAN_CHECK(copy(inner.get(), target.get(), entry->d_name, depth + 1));
    }
    return {};
  }

  const CopyLimits& limits_;
};

}  // namespace

Result<std::string> read_inside(int root, const std::string& path, std::int64_t bytes_max) {
  struct stat information {};
  CAPSTAN_TRY(const Fd file, open_regular(root, path, information));
  if (information.st_size > bytes_max)
    return fail(Code::kExhausted, "{} has {} bytes; at most {} are read", path, information.st_size,
                bytes_max);
  std::string bytes;
  char buffer[64 << 10];
  for (ssize_t count = 0; (count = ::read(file.get(), buffer, sizeof buffer)) > 0;) {
    bytes.append(buffer, static_cast<std::size_t>(count));
    if (static_cast<std::int64_t>(bytes.size()) > bytes_max)
      return fail(Code::kExhausted, "{} grew beyond {} bytes", path, bytes_max);
  }
  return bytes;
}

Result<void> make_directory_inside(int root, const std::string& path, std::uint32_t host_uid) {
  CAPSTAN_CHECK(check_path(path));
  for (std::size_t at = path.find('/', 1);; at = path.find('/', at + 1)) {
    const std::string part = path.substr(0, at);
    if (part.size() > 1 && part.back() != '/') {
      CAPSTAN_TRY(const Place place, open_parent(root, part));
      if (::mkdirat(place.parent.get(), place.name.c_str(), 0755) == 0) {
        if (::fchownat(place.parent.get(), place.name.c_str(), host_uid, host_uid, AT_SYMLINK_NOFOLLOW) != 0)
          return failed(part, errno);
      } else if (errno != EEXIST) {
        return fail_errno("cannot make " + part + " in the sandbox", errno);
      }
    }
    if (at == path.npos) break;
  }
  CAPSTAN_TRY(const Fd directory, open_inside(root, path, O_PATH | O_DIRECTORY));
  return {};
}

Result<void> write_inside(int root, const std::string& path, std::string_view bytes, std::uint32_t host_uid) {
  CAPSTAN_CHECK(check_path(path));
  const std::size_t slash = path.find_last_of('/');
  if (slash > 0) CAPSTAN_CHECK(make_directory_inside(root, path.substr(0, slash), host_uid));
  CAPSTAN_TRY(const Place place, open_parent(root, path));
  const Fd file =
      open_at(place.parent.get(), place.name.c_str(), O_WRONLY | O_CREAT | O_NONBLOCK, false, 0644);
  struct stat information {};
  if (!file || ::fstat(file.get(), &information) != 0) return failed(path, errno);
  if (!S_ISREG(information.st_mode)) return fail(Code::kDenied, "{} is not a regular file", path);
  if (::fchown(file.get(), host_uid, host_uid) != 0 || ::ftruncate(file.get(), 0) != 0)
    return failed(path, errno);
  for (std::size_t at = 0; at < bytes.size();) {
    const ssize_t count = ::write(file.get(), bytes.data() + at, bytes.size() - at);
    if (count < 0) return fail_errno("cannot write " + path + " in the sandbox", errno);
    at += static_cast<std::size_t>(count);
  }
  return {};
}

Result<std::vector<InsideEntry>> list_inside(int root, const std::string& path, std::size_t entries_max) {
  CAPSTAN_TRY(const Fd directory, open_inside(root, path, O_RDONLY | O_DIRECTORY));
  const Directory entries = read_directory(directory.get());
  std::vector<InsideEntry> list;
  while (const dirent* entry = entries ? ::readdir(entries.get()) : nullptr) {
    struct stat information {};
    if (is_dots(entry->d_name) ||
        ::fstatat(directory.get(), entry->d_name, &information, AT_SYMLINK_NOFOLLOW) != 0)
      continue;
    if (list.size() == entries_max)
      return fail(Code::kExhausted, "{} has more than {} entries", path, entries_max);
    list.push_back(entry_of(entry->d_name, information));
  }
  std::sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return list;
}

Result<InsideEntry> stat_inside(int root, const std::string& path) {
  CAPSTAN_TRY(const Place place, open_parent(root, path));
  struct stat information {};
  if (::fstatat(place.parent.get(), place.name.c_str(), &information, AT_SYMLINK_NOFOLLOW) != 0)
    return failed(path, errno);
  return entry_of(place.name, information);
}

Result<void> remove_inside(int root, const std::string& path) {
  CAPSTAN_TRY(const Place place, open_parent(root, path));
  return remove_tree(place.parent.get(), place.name.c_str(), 0);
}

Result<void> rename_inside(int root, const std::string& from, const std::string& to) {
  CAPSTAN_TRY(const Place old_place, open_parent(root, from));
  CAPSTAN_TRY(const Place new_place, open_parent(root, to));
  if (::renameat(old_place.parent.get(), old_place.name.c_str(), new_place.parent.get(),
                 new_place.name.c_str()) != 0) {
    return fail_errno("cannot rename " + from + " in the sandbox", errno);
  }
  return {};
}

Result<CopyReport> copy_out(int root, const std::string& path, const std::string& destination,
                            const CopyLimits& limits) {
  CAPSTAN_TRY(const Fd source, open_inside(root, path, O_RDONLY));
  const std::size_t slash = destination.find_last_of('/');
  const std::string directory = slash == destination.npos ? "."
                                : slash == 0              ? "/"
                                                          : destination.substr(0, slash);
  const Fd parent(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!parent) return fail_errno("cannot open " + directory, errno);
  Copier copier(limits);
  CAPSTAN_CHECK(copier.copy(source.get(), parent.get(),
                            destination.substr(slash == destination.npos ? 0 : slash + 1), 0));
  return copier.report;
}

}  // namespace capstan::sandbox
