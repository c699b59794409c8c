// How it works: libarchive reads the archive; what it says is not believed. A name becomes a list of plain parts; its parent
// is opened with RESOLVE_IN_ROOT, which keeps links of the archive (lib → usr/lib) inside; the last part is made in it.
#include "agents/sessions/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <locale.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/text.h"
#include "sandbox/wire.h"

namespace capstan::agents {
namespace {

using sandbox::Fd;

constexpr std::size_t kPartsMax = 64, kReadBytes = 256 << 10;
constexpr mode_t kModeMask = 0777;

using Parts = std::vector<std::string>;

// Names are bytes in this program and UTF-8 for libarchive, for as long as this lives and in this thread alone.
class Utf8Names {
 public:
  Utf8Names() : locale_(::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr)) {
    if (locale_ != nullptr) before_ = ::uselocale(locale_);
  }
  ~Utf8Names() {
    if (locale_ == nullptr) return;
    ::uselocale(before_);
    ::freelocale(locale_);
  }

 private:
  locale_t locale_ = nullptr, before_ = nullptr;
};

Result<Parts> parts_of(const char* name) {
  if (name == nullptr) return fail(Code::kInvalid, "an entry's name cannot be read");
  const std::string_view text(name);
  if (text.starts_with('/')) return fail(Code::kInvalid, "'{}' is an absolute name", text);
  Parts parts;
  for (const std::string_view part : split(text, '/')) {
    if (part == "..") return fail(Code::kInvalid, "'{}' leads out of the archive", text);
    if (!part.empty() && part != ".") parts.emplace_back(part);
  }
  if (parts.size() > kPartsMax)
    return fail(Code::kInvalid, "'{}' is {} directories deep; {} are possible", text, parts.size(), kPartsMax);
  return parts;
}

std::string joined(const Parts& parts, std::size_t count) {
  std::string out;
  for (std::size_t i = 0; i < count; ++i) out += (i == 0 ? "" : "/") + parts[i];
  return out.empty() ? "." : out;
}

// A link at `parts` to this target stays inside. An absolute target is one of the sandbox's root.
bool stays_inside(const Parts& parts, std::string_view target) {
  if (target.starts_with('/')) return true;
  std::ptrdiff_t depth = std::ssize(parts) - 1;
  for (const std::string_view part : split(target, '/')) {
    if (part == "..") --depth;
    if (depth < 0) return false;
    if (!part.empty() && part != "." && part != "..") ++depth;
  }
  return true;
}

class Unpacking {
 public:
  Unpacking(int root, const UnpackLimits& limits) : root_(root), limits_(limits) {}

  Result<void> add(archive* from, archive_entry* entry) {
    CAPSTAN_TRY(const Parts parts, parts_of(::archive_entry_pathname(entry)));
    if (++entries_ > limits_.entries_max)
      return fail(Code::kExhausted, "more than {} entries, the most that a root may have", limits_.entries_max);
    const bool directory = ::archive_entry_filetype(entry) == AE_IFDIR;
    if (parts.empty()) {
      if (directory) return {};
      return fail(Code::kInvalid, "an entry without a name");
    }
    CAPSTAN_TRY(const Fd parent, open_directory(parts, parts.size() - 1, true));
    const std::string& name = parts.back();
    if (!directory && ::unlinkat(parent.get(), name.c_str(), 0) != 0 && errno != ENOENT)
      return fail_errno("cannot replace " + joined(parts, parts.size()), errno);
    if (const char* target = ::archive_entry_hardlink(entry)) return add_hard_link(parent.get(), name, target);
    switch (::archive_entry_filetype(entry)) {
      case AE_IFDIR: return add_directory(parent.get(), name, entry);
      case AE_IFREG: return add_file(parent.get(), name, from, entry);
      case AE_IFLNK: return add_link(parent.get(), parts, ::archive_entry_symlink(entry));
      default:
        return fail(Code::kInvalid, "'{}' is a device, pipe or socket; pack without it (tar --exclude='./dev/*')",
                    joined(parts, parts.size()));
    }
  }

  // Where a sandbox mounts its own; each must be a directory of its own, whatever the archive made of it.
  Result<void> add_mount_points() {
    for (const char* name : {"dev", "proc", "run", "tmp", "work", "mnt", "home"}) {
      struct stat found {};
      if (::mkdirat(root_, name, 0755) == 0) continue;
      if (::fstatat(root_, name, &found, AT_SYMLINK_NOFOLLOW) != 0) return fail_errno("cannot look at a directory", errno);
      if (!S_ISDIR(found.st_mode)) return fail(Code::kInvalid, "'{}' is no directory", name);
    }
    for (const char* name : {"dev/shm", "dev/pts"}) (void)::mkdirat(root_, name, 0755);
    (void)!::symlinkat("/work", root_, "home/user");
    return {};
  }

 private:
  Result<Fd> open_directory(const Parts& parts, std::size_t count, bool make) {
    const std::string path = joined(parts, count);
    if (path == last_path_ && last_) return Fd(::dup(last_.get()));
    Fd found = open_in_root(path);
    if (!found && errno == ENOENT && make && count > 0) {
      CAPSTAN_TRY(const Fd parent, open_directory(parts, count - 1, true));
      if (::mkdirat(parent.get(), parts[count - 1].c_str(), 0755) != 0)
        return fail(Code::kInvalid, "'{}' lies below a link that leads nowhere", path);
      found = open_in_root(path);
    }
    if (!found && (errno == ENOTDIR || errno == ENOENT || errno == ELOOP))
      return fail(Code::kInvalid, "'{}' is no directory of the archive", path);
    if (!found) return fail_errno("cannot open " + path, errno);
    last_path_ = path;
    last_.reset(::dup(found.get()));
    return found;
  }

  Fd open_in_root(const std::string& path) const {
    open_how how{};
    how.flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
    how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
    return Fd(static_cast<int>(::syscall(SYS_openat2, root_, path.c_str(), &how, sizeof how)));
  }

  Result<void> add_directory(int parent, const std::string& name, archive_entry* entry) {
    if (::mkdirat(parent, name.c_str(), 0755) != 0 && errno != EEXIST) return fail_errno("cannot make " + name, errno);
    const Fd made(::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    // A link to a directory (lib → usr/lib) that came before stays as it is; a file does not become a directory.
    if (!made) return errno == ELOOP || errno == ENOTDIR ? check_link(parent, name) : fail_errno("cannot open " + name, errno);
    if (::fchmod(made.get(), ::archive_entry_perm(entry) & (kModeMask | S_ISVTX)) == 0) return {};
    return fail_errno("cannot change " + name, errno);
  }

  static Result<void> check_link(int parent, const std::string& name) {
    struct stat found {};
    if (::fstatat(parent, name.c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(found.st_mode)) return {};
    return fail(Code::kInvalid, "'{}' is a file and a directory", name);
  }

  Result<void> add_file(int parent, const std::string& name, archive* from, archive_entry* entry) {
    const std::int64_t size = ::archive_entry_size(entry);
    if (size < 0 || size > limits_.bytes_max - bytes_) return too_large();
    const Fd file(::openat(parent, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!file) return fail_errno("cannot make " + name, errno);
    bytes_ += size;
    for (;;) {
      const void* bytes = nullptr;
      std::size_t count = 0;
      la_int64_t offset = 0;
      const int step = ::archive_read_data_block(from, &bytes, &count, &offset);
      if (step == ARCHIVE_EOF) break;
      if (step != ARCHIVE_OK) return fail(Code::kInvalid, "'{}': {}", name, ::archive_error_string(from));
      if (offset < 0 || offset > size || static_cast<std::int64_t>(count) > size - offset)
        return fail(Code::kInvalid, "'{}' has more bytes than it says", name);
      for (std::size_t done = 0; done < count;) {
        const ssize_t wrote = ::pwrite(file.get(), static_cast<const char*>(bytes) + done, count - done,
                                       offset + static_cast<off_t>(done));
        if (wrote <= 0) return fail_errno("cannot write " + name, errno);
        done += static_cast<std::size_t>(wrote);
      }
    }
    const timespec time{::archive_entry_mtime(entry), ::archive_entry_mtime_nsec(entry)};
    const timespec times[2] = {time, time};
    if (::ftruncate(file.get(), size) != 0 || ::fchmod(file.get(), ::archive_entry_perm(entry) & kModeMask) != 0 ||
        ::futimens(file.get(), times) != 0)
      return fail_errno("cannot finish " + name, errno);
    return {};
  }

  Result<void> add_hard_link(int parent, const std::string& name, const char* target) {
    CAPSTAN_TRY(const Parts parts, parts_of(target));
    if (parts.empty()) return fail(Code::kInvalid, "'{}' is a link to nothing", name);
    CAPSTAN_TRY(const Fd directory, open_directory(parts, parts.size() - 1, false));
    if (::linkat(directory.get(), parts.back().c_str(), parent, name.c_str(), 0) == 0) return {};
    return fail(Code::kInvalid, "'{}' is a link to '{}', which is no file before it", name, target);
  }

  Result<void> add_link(int parent, const Parts& parts, const char* target) {
    if (target == nullptr || !stays_inside(parts, target))
      return fail(Code::kInvalid, "the link '{}' leads out of the archive", joined(parts, parts.size()));
    if (::symlinkat(target, parent, parts.back().c_str()) != 0) return fail_errno("cannot make a link", errno);
    return {};
  }

  std::unexpected<Error> too_large() const {
    return fail(Code::kExhausted, "more than {} bytes unpacked, the most that a root may have", limits_.bytes_max);
  }

  const int root_;
  const UnpackLimits limits_;
  std::int64_t bytes_ = 0, entries_ = 0;
  std::string last_path_;  // the directory that was opened last: entries come in order
  Fd last_;
};

Result<void> unpack_all(archive* from, int root, const UnpackLimits& limits) {
  Unpacking unpacking(root, limits);
  for (;;) {
    archive_entry* entry = nullptr;
    const int step = ::archive_read_next_header(from, &entry);
    if (step == ARCHIVE_EOF) return unpacking.add_mount_points();
    if (step != ARCHIVE_OK) return fail(Code::kInvalid, "is no whole tar archive: {}", ::archive_error_string(from));
    CAPSTAN_CHECK(unpacking.add(from, entry));
  }
}

}  // namespace

Result<void> unpack_root(const std::filesystem::path& path, const std::filesystem::path& directory,
                         const UnpackLimits& limits) {
  const Utf8Names utf8;
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return fail_errno("cannot open " + path.string(), errno);
  CAPSTAN_CHECK(make_directories(directory, 0755));
  const Fd root(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root) return fail_errno("cannot open " + directory.string(), errno);
  const std::unique_ptr<archive, int (*)(archive*)> from(::archive_read_new(), ::archive_read_free);
  ::archive_read_support_format_tar(from.get());
  ::archive_read_support_filter_gzip(from.get());
  ::archive_read_support_filter_zstd(from.get());
  auto done = ::archive_read_open_fd(from.get(), file.get(), kReadBytes) == ARCHIVE_OK
                  ? unpack_all(from.get(), root.get(), limits)
                  : fail(Code::kInvalid, "is no tar archive: {}", ::archive_error_string(from.get()));
  if (!done) return std::unexpected(std::move(done.error()).with_context(path.string()));
  return ::syncfs(root.get()) == 0 ? Result<void>{} : fail_errno("cannot write " + directory.string(), errno);
}

}  // namespace capstan::agents
