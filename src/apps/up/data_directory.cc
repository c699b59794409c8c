#include "apps/up/data_directory.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <utility>

#include "base/file.h"
#include "base/text.h"

namespace capstan::apps {
namespace {

namespace fs = std::filesystem;

std::optional<Identity> identity_of(const passwd* entry) {
  if (entry == nullptr) return std::nullopt;
  return Identity{entry->pw_uid, entry->pw_gid, entry->pw_name, false};
}

Result<void> give_to(const fs::path& path, const Identity& identity) {
  if (::geteuid() == 0 && ::lchown(path.c_str(), identity.uid, identity.gid) != 0) {
    return fail_errno("cannot give " + path.string() + " to " + identity.name, errno);
  }
  return {};
}

Result<std::string> read_or_make_token(const fs::path& path, const Identity& identity) {
  if (auto token = read_file(path, 1024)) return std::string(trim(*token));
  const std::string token = random_hex(32);
  CAPSTAN_CHECK(write_file_atomic(path, token + "\n", 0600));
  CAPSTAN_CHECK(give_to(path, identity));
  return token;
}

// The directory belongs to one user: somebody else's is refused, so that its tokens are never trusted.
Result<void> check_owner(const fs::path& path, const Identity& identity) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return fail_errno("cannot look at " + path.string(), errno);
  if (status.st_uid == identity.uid) return {};
  if (status.st_uid == 0 && ::geteuid() == 0) return give_to(path, identity);
  const passwd* owner = ::getpwuid(status.st_uid);
  return fail(Code::kDenied, "{} belongs to {}, not to {}; name another with --data-dir", path.string(),
              owner != nullptr ? owner->pw_name : std::to_string(status.st_uid), identity.name);
}

// Root may go everywhere, the user that the controller becomes may not: every folder above must let him
// through.
Result<void> check_reachable(const fs::path& path, const Identity& identity) {
  for (fs::path folder = path.parent_path(); folder != folder.root_path(); folder = folder.parent_path()) {
    struct stat status {};
    if (::stat(folder.c_str(), &status) != 0) return fail_errno("cannot look at " + folder.string(), errno);
    const unsigned needed = status.st_uid == identity.uid   ? S_IXUSR
                            : status.st_gid == identity.gid ? S_IXGRP
                                                            : S_IXOTH;
    if ((status.st_mode & needed) != 0) continue;
    return fail(
        Code::kDenied,
        "the controller runs as {}, who may not enter {}; name another --data-dir, such as /var/lib/capstan",
        identity.name, folder.string());
  }
  return {};
}

}  // namespace

Result<Identity> choose_identity() {
  if (::geteuid() != 0) {
    const auto self = identity_of(::getpwuid(::geteuid()));
    return self.value_or(Identity{::geteuid(), ::getegid(), std::to_string(::geteuid()), false});
  }
  std::optional<Identity> chosen;
  if (const char* sudo_uid = std::getenv("SUDO_UID")) {
    const auto uid = parse_int(sudo_uid);
    if (uid && *uid > 0) chosen = identity_of(::getpwuid(static_cast<uid_t>(*uid)));
  }
  if (!chosen) chosen = identity_of(::getpwnam("capstan"));
  if (!chosen) chosen = identity_of(::getpwnam("nobody"));
  if (!chosen)
    return fail(Code::kUnsupported,
                "this host has neither a user 'capstan' nor 'nobody' to run as; make one with useradd");
  chosen->drops_root = true;
  return *chosen;
}

Result<DataDirectory> DataDirectory::open(const fs::path& path, const Identity& identity) {
  DataDirectory directory;
  directory.path_ = fs::absolute(path).lexically_normal();
  CAPSTAN_CHECK(make_directories(directory.path_, 0700));
  CAPSTAN_CHECK(check_owner(directory.path_, identity));
  CAPSTAN_CHECK(check_reachable(directory.path_, identity));
  if (::chmod(directory.path_.c_str(), 0700) != 0)
    return fail_errno("cannot set the mode of " + path.string(), errno);

  const fs::path lock = directory.path_ / "lock";
  directory.lock_fd_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (directory.lock_fd_ < 0) return fail_errno("cannot open " + lock.string(), errno);
  if (::flock(directory.lock_fd_, LOCK_EX | LOCK_NB) != 0) {
    const std::string owner(trim(read_file(lock).value_or("unknown")));
    return fail(
        Code::kConflict,
        "Capstan already runs on {} as process {}; stop it first (capstan down), or name another --data-dir",
        directory.path_.string(), owner);
  }
  CAPSTAN_CHECK(give_to(lock, identity));
  const std::string pid = std::to_string(::getpid()) + "\n";
  if (::ftruncate(directory.lock_fd_, 0) != 0 ||
      ::pwrite(directory.lock_fd_, pid.data(), pid.size(), 0) < 0) {
    return fail_errno("cannot write " + lock.string(), errno);
  }
  CAPSTAN_CHECK(make_directories(directory.path_ / "log", 0700));  // the worker makes its own folders
  CAPSTAN_CHECK(give_to(directory.path_ / "log", identity));
  CAPSTAN_TRY(directory.control_token_, read_or_make_token(directory.path_ / "control.token", identity));
  CAPSTAN_TRY(directory.worker_token_, read_or_make_token(directory.path_ / "worker.token", identity));
  return directory;
}

DataDirectory::DataDirectory(DataDirectory&& other) noexcept
    : path_(std::move(other.path_)),
      control_token_(std::move(other.control_token_)),
      worker_token_(std::move(other.worker_token_)),
      lock_fd_(std::exchange(other.lock_fd_, -1)) {}

DataDirectory::~DataDirectory() {
  if (lock_fd_ >= 0) ::close(lock_fd_);
}

}  // namespace capstan::apps
