// How it works: directories are made with the rank user's own file system rights (AsUser), so that root never
// writes where that user could have put a symbolic link, and never creates what the user could not have
// created.
#include "worker/places.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/file.h"
#include "worker/descriptor.h"

namespace capstan::worker {
namespace {

namespace fs = std::filesystem;

// mkdir -p below `top` with the calling thread's rights; the last one must then belong to the user.
Result<void> make_for_user(const fs::path& top, const fs::path& below, const RankUser& user) {
  fs::path made = top;
  struct stat status {};
  for (const auto& part : below) {
    made /= part;
    if (::mkdir(made.c_str(), 0700) != 0 && errno != EEXIST)
      return fail_errno("cannot make directory " + made.string(), errno);
    if (::lstat(made.c_str(), &status) != 0)
      return fail_errno("cannot examine directory " + made.string(), errno);
    if (!S_ISDIR(status.st_mode) || status.st_uid != user.uid) {
      return fail(Code::kDenied, "{} must be a directory of user '{}' (it belongs to uid {})", made.string(),
                  user.name, status.st_uid);
    }
  }
  return {};
}

// The directory that user may write in and reach: D for its owner, else one of the user's own in /var/tmp.
struct Ground {
  fs::path top, below;
};
Ground ground_for(const Places& places, const RankUser& user) {
  if (user.uid == places.data_owner) return {places.data_directory, {}};
  return {"/var/tmp", "capstan-" + std::to_string(user.uid)};
}

// Whether the user can read and enter the directory, tried rather than computed.
bool readable(const fs::path& directory, const RankUser& user) {
  const AsUser as(user);
  return static_cast<bool>(Descriptor(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC))) &&
         ::faccessat(AT_FDCWD, directory.c_str(), X_OK, AT_EACCESS) == 0;
}

bool same(const struct stat& original, const fs::path& copy) {
  struct stat status {};
  return ::stat(copy.c_str(), &status) == 0 && status.st_size == original.st_size &&
         status.st_mtim.tv_sec == original.st_mtim.tv_sec &&
         status.st_mtim.tv_nsec == original.st_mtim.tv_nsec;
}

Result<void> copy_bytes(int in, int out) {
  std::vector<char> buffer(1 << 20);
  for (;;) {
    const ssize_t count = ::read(in, buffer.data(), buffer.size());
    if (count == 0) return {};
    if (count < 0) return fail_errno("read", errno);
    for (ssize_t done = 0; done < count;) {
      const ssize_t written = ::write(out, buffer.data() + done, static_cast<std::size_t>(count - done));
      if (written < 0) return fail_errno("write", errno);
      done += written;
    }
  }
}

// One file: read with the worker's rights, written with the user's, in place by rename.
Result<void> copy_file(const fs::path& from, const fs::path& to, const RankUser& user) {
  const Descriptor in(::open(from.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status {};
  if (!in || ::fstat(in.get(), &status) != 0) return fail_errno("cannot read " + from.string(), errno);
  const AsUser as(user);
  if (same(status, to)) return {};
  const fs::path temporary = to.string() + ".tmp-" + random_hex(4);
  const Descriptor out(
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700 & status.st_mode));
  if (!out) return fail_errno("cannot create " + temporary.string(), errno);
  if (auto copied = copy_bytes(in.get(), out.get()); !copied) {
    ::unlink(temporary.c_str());
    return std::unexpected(
        std::move(copied).error().with_context("cannot copy " + from.string() + " to " + to.string()));
  }
  const timespec times[2] = {status.st_atim, status.st_mtim};
  ::futimens(out.get(), times);
  if (::rename(temporary.c_str(), to.c_str()) != 0) return fail_errno("cannot replace " + to.string(), errno);
  return {};
}

Result<void> copy_tree(const fs::path& from, const fs::path& top, const fs::path& below,
                       const RankUser& user) {
  {
    const AsUser as(user);
    CAPSTAN_CHECK(make_for_user(top, below, user));
  }
  std::error_code error;
  for (fs::directory_iterator it(from, error), end; !error && it != end; it.increment(error)) {
    const fs::path name = it->path().filename();
    if (it->is_directory(error)) {
      CAPSTAN_CHECK(copy_tree(it->path(), top, below / name, user));
    } else if (it->is_regular_file(error)) {
      CAPSTAN_CHECK(copy_file(it->path(), top / below / name, user));
    }
  }
  if (error) return fail(Code::kIo, "cannot list {}: {}", from.string(), error.message());
  return {};
}

// `from` itself, or an up-to-date copy of the parts that ranks need.
Result<fs::path> reachable(const fs::path& from, const char* kind, std::initializer_list<const char*> parts,
                           const Places& places, const RankUser& user) {
  std::error_code error;
  if (from.empty() || !fs::is_directory(from, error) || readable(from, user)) return from;
  const Ground ground = ground_for(places, user);
  for (const char* part : parts) {
    const fs::path original = from / part;
    const fs::path below = ground.below / kind;
    if (fs::is_directory(original, error)) {
      CAPSTAN_CHECK(copy_tree(original, ground.top, below / part, user));
    } else if (fs::is_regular_file(original, error)) {
      {
        const AsUser as(user);
        CAPSTAN_CHECK(make_for_user(ground.top, below, user));
      }
      CAPSTAN_CHECK(copy_file(original, ground.top / below / part, user));
    }
  }
  return ground.top / ground.below / kind;
}

}  // namespace

Result<fs::path> job_directory(const Places& places, const RankUser& user, const std::string& name) {
  if (name.empty() || name.size() > 255 || name.find('/') != name.npos || name[0] == '.') {
    return fail(Code::kInvalid, "'{}' cannot be the name of a job directory", name);
  }
  const Ground ground = ground_for(places, user);
  const fs::path below = ground.below / "jobs" / name;
  const AsUser as(user);
  CAPSTAN_CHECK(make_for_user(ground.top, below, user));
  return ground.top / below;
}

Result<Shipped> shipped_for(const Places& places, const RankUser& user) {
  Shipped shipped;
  CAPSTAN_TRY(shipped.bin,
              reachable(places.bin, "bin",
                        {"capstan", "capstan-engine", "capstan-train", "capstan-eval-abacus"}, places, user));
  CAPSTAN_TRY(shipped.share, reachable(places.share, "share", {"models", "examples"}, places, user));
  return shipped;
}

}  // namespace capstan::worker
