#include "worker/tasks/collect.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "worker/descriptor.h"

namespace capstan::worker {
namespace {

// Entries that are the worker's, and only those: nobody else could have put them there.
void give_to(int parent, const std::string& name, const RankUser& user) {
  const Descriptor entry(::openat(parent, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  struct stat status {};
  if (!entry || ::fstat(entry.get(), &status) != 0 || status.st_uid != ::geteuid()) return;
  if (S_ISDIR(status.st_mode)) {
    const std::unique_ptr<DIR, int (*)(DIR*)> list(::fdopendir(::dup(entry.get())), ::closedir);
    while (const dirent* below = list ? ::readdir(list.get()) : nullptr) {
      const std::string child = below->d_name;
      if (child != "." && child != "..") give_to(entry.get(), child, user);
    }
  }
  (void)!::fchown(entry.get(), user.uid, user.gid);
}

Result<Descriptor> open_folder(const std::string& directory, const std::string& below, const RankUser& user) {
  const AsUser as(user);
  const std::string folder = directory + "/" + below;
  for (const auto& made : {directory, folder}) {
    if (::mkdir(made.c_str(), 0755) != 0 && errno != EEXIST) return fail_errno("cannot make " + made, errno);
  }
  Descriptor opened(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!opened) return fail_errno("cannot open " + folder, errno);
  return opened;
}

// With the user's rights, once what a worker left that was killed while it copied is the user's.
void remove_earlier(int folder, const std::string& name, const RankUser& user) {
  if (user.switched) give_to(folder, name, user);
  const AsUser as(user);
  (void)sandbox::remove_inside(folder, "/" + name);
}

}  // namespace

Result<sandbox::CopyReport> collect(int box_root, const std::string& path, const std::string& directory,
                                    const std::string& below, const std::string& name, const RankUser& user,
                                    const sandbox::CopyLimits& limits) {
  CAPSTAN_TRY(const Descriptor folder, open_folder(directory, below, user));
  remove_earlier(folder.get(), name, user);
  auto copied =
      sandbox::copy_out(box_root, path, fmt::format("/proc/self/fd/{}/{}", folder.get(), name), limits);
  if (user.switched) give_to(folder.get(), name, user);
  return copied;
}

}  // namespace capstan::worker
