// How it works: the launcher's root (launch/template_root.h) has the mount points; this process has a copy of
// that mount namespace of its own. A tree can only be cloned from where it is attached (before Linux 6.15),
// so the writable /proc lies below the read-only one that covers it, and the tmpfs as a whole is at /run,
// which only root may enter.
#include "sandbox/launch/first_mounts.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "sandbox/launch/kernel.h"

namespace capstan::sandbox {
namespace {

// The root and three directories of the tmpfs itself are inodes, too.
constexpr std::int64_t kOwnInodes = 4;

bool set_number(int context, const char* key, std::int64_t value) {
  return kernel::fsconfig(context, FSCONFIG_SET_STRING, key, std::to_string(value).c_str()) == 0;
}

bool set_tmpfs_limits(int context, const BoxLimits& limits) {
  return set_number(context, "size", limits.tmpfs_bytes) &&
         set_number(context, "nr_inodes", limits.tmpfs_inodes + kOwnInodes);
}

bool attach_directory(const char* from, const char* path) {
  const Fd tree(kernel::clone_tree(AT_FDCWD, from, false));
  return tree && kernel::attach(tree.get(), path) == 0;
}

Fault mount_terminals() {
  const Fd context(kernel::fsopen("devpts"));
  if (!context || kernel::fsconfig(context.get(), FSCONFIG_SET_STRING, "ptmxmode", "0666") != 0 ||
      kernel::fsconfig(context.get(), FSCONFIG_SET_STRING, "mode", "0620") != 0 ||
      kernel::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr) != 0) {
    return "make terminals";
  }
  const Fd mount(kernel::fsmount(context.get(), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC));
  return mount && kernel::attach(mount.get(), "/dev/pts") == 0 ? nullptr : "mount terminals";
}

// The mount point lies in the sandbox's own tmpfs (below /work or /mnt), so it can be made.
Fault attach_bind(const Bind& bind, int tree) {
  struct stat source {};
  if (::fstat(tree, &source) != 0) return "look at a bind";
  for (std::size_t at = bind.path.find('/', 1); at != bind.path.npos; at = bind.path.find('/', at + 1)) {
    ::mkdir(bind.path.substr(0, at).c_str(), 0755);
  }
  if (S_ISDIR(source.st_mode)) {
    ::mkdir(bind.path.c_str(), 0755);
  } else {
    Fd(::open(bind.path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0644));
  }
  return kernel::attach(tree, bind.path.c_str()) == 0 ? nullptr : "attach a bind";
}

}  // namespace

Fault FirstMounts::make(std::uint32_t host_uid) {
  if (const Fault fault = make_proc()) return fault;
  return make_tmpfs(host_uid);
}

Fault FirstMounts::make_proc() {
  const Fd context(kernel::fsopen("proc"));
  if (!context || kernel::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr) != 0)
    return "make /proc";
  proc_.reset(kernel::fsmount(context.get(), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
  if (!proc_ || kernel::attach(proc_.get(), "/proc") != 0) return "mount /proc";
  const Fd visible(kernel::clone_tree(AT_FDCWD, "/proc", false));
  if (!visible || kernel::set_mount_attributes(visible.get(), "", AT_EMPTY_PATH, MOUNT_ATTR_RDONLY) != 0 ||
      kernel::attach(visible.get(), "/proc") != 0) {
    return "mount /proc read-only";
  }
  for (const char* path : {"/proc/kallsyms", "/proc/kcore"}) {
    const Fd nothing(kernel::clone_tree(AT_FDCWD, "/dev/null", false));
    if (!nothing || (kernel::attach(nothing.get(), path) != 0 && errno != ENOENT))
      return "mask a file of /proc";
  }
  return nullptr;
}

Fault FirstMounts::make_tmpfs(std::uint32_t host_uid) {
  tmpfs_context_.reset(kernel::fsopen("tmpfs"));
  if (!tmpfs_context_ || !set_tmpfs_limits(tmpfs_context_.get(), BoxLimits{}) ||
      kernel::fsconfig(tmpfs_context_.get(), FSCONFIG_SET_STRING, "mode", "0700") != 0 ||
      kernel::fsconfig(tmpfs_context_.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr) != 0) {
    return "make a tmpfs";
  }
  tmpfs_.reset(kernel::fsmount(tmpfs_context_.get(), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV));
  if (!tmpfs_) return "mount a tmpfs";
  owner_ = host_uid;
  const int root = tmpfs_.get();
  if (::mkdirat(root, "work", 0755) != 0 || ::fchownat(root, "work", host_uid, host_uid, 0) != 0 ||
      ::mkdirat(root, "tmp", 0) != 0 || ::fchmodat(root, "tmp", 01777, 0) != 0 ||
      ::mkdirat(root, "shm", 0) != 0 || ::fchmodat(root, "shm", 01777, 0) != 0) {
    return "make directories";
  }
  if (kernel::attach(root, "/run") != 0 || !attach_directory("/run/work", "/work") ||
      !attach_directory("/run/tmp", "/tmp") || !attach_directory("/run/shm", "/dev/shm")) {
    return "mount directories";
  }
  return nullptr;
}

Fault FirstMounts::finish(const SandboxSpec& spec, const std::vector<Fd>& binds) {
  const BoxLimits defaults;
  if (spec.limits.tmpfs_bytes != defaults.tmpfs_bytes || spec.limits.tmpfs_inodes != defaults.tmpfs_inodes) {
    if (!set_tmpfs_limits(tmpfs_context_.get(), spec.limits) ||
        kernel::fsconfig(tmpfs_context_.get(), FSCONFIG_CMD_RECONFIGURE, nullptr, nullptr) != 0) {
      return "limit the tmpfs";
    }
  }
  if (spec.host_uid != owner_ && ::fchownat(tmpfs_.get(), "work", spec.host_uid, spec.host_uid, 0) != 0) {
    return "give /work to its user";
  }
  if (binds.size() != spec.binds.size()) return "receive binds";
  const bool at_mnt = std::any_of(spec.binds.begin(), spec.binds.end(),
                                  [](const Bind& bind) { return bind.path.starts_with("/mnt/"); });
  if (at_mnt && (::mkdirat(tmpfs_.get(), "mnt", 0755) != 0 || !attach_directory("/run/mnt", "/mnt")))
    return "make /mnt";
  for (std::size_t i = 0; i < binds.size(); ++i) {
    if (const Fault fault = attach_bind(spec.binds[i], binds[i].get())) return fault;
  }
  tmpfs_.reset();
  tmpfs_context_.reset();
  return spec.long_lived ? mount_terminals() : nullptr;
}

}  // namespace capstan::sandbox
