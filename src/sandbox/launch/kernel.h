// System calls and structures that Debian 12's headers lack or wrap badly: new mount calls, clone3, Landlock.
//
// All return -1 with errno on failure.
#pragma once

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace capstan::sandbox::kernel {

inline int open_tree(int directory, const char* path, unsigned flags) {
  return static_cast<int>(::syscall(SYS_open_tree, directory, path, flags));
}
inline int move_mount(int from, const char* from_path, int to, const char* to_path, unsigned flags) {
  return static_cast<int>(::syscall(SYS_move_mount, from, from_path, to, to_path, flags));
}
inline int fsopen(const char* type) { return static_cast<int>(::syscall(SYS_fsopen, type, FSOPEN_CLOEXEC)); }
inline int fsconfig(int context, unsigned command, const char* key, const char* value) {
  return static_cast<int>(::syscall(SYS_fsconfig, context, command, key, value, 0));
}
inline int fsmount(int context, unsigned attributes) {
  return static_cast<int>(::syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes));
}
inline int set_mount_attributes(int mount, const char* path, unsigned flags, std::uint64_t set,
                                std::uint64_t propagation = 0) {
  mount_attr attributes{};
  attributes.attr_set = set;
  attributes.propagation = propagation;
  return static_cast<int>(::syscall(SYS_mount_setattr, mount, path, flags, &attributes, sizeof attributes));
}
// A detached copy of what is mounted at the path; AT_EMPTY_PATH is implied for an empty one.
inline int clone_tree(int directory, const char* path, bool recursive) {
  unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (recursive ? AT_RECURSIVE : 0u);
  return open_tree(directory, path, flags | (*path == '\0' ? AT_EMPTY_PATH : 0u));
}
// Mounts a detached tree at the path.
inline int attach(int mount, const char* path) {
  return move_mount(mount, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH);
}

// As fork(), with namespaces, into a version 2 cgroup (-1: the caller's), giving a pidfd. `number_at`: where
// the child's thread number is to be written, as fork() does for the C library; 0: nowhere.
inline pid_t clone3(std::uint64_t flags, int cgroup, int* pidfd, std::uintptr_t number_at = 0) {
  clone_args arguments{};
  arguments.flags = flags | CLONE_PIDFD;
  arguments.child_tid = number_at;
  if (number_at != 0) arguments.flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
  arguments.pidfd = reinterpret_cast<std::uintptr_t>(pidfd);
  arguments.exit_signal = (flags & CLONE_PARENT) != 0 ? 0 : 17;  // SIGCHLD
  if (cgroup >= 0) {
    arguments.flags |= CLONE_INTO_CGROUP;
    arguments.cgroup = static_cast<std::uint64_t>(cgroup);
  }
  return static_cast<pid_t>(::syscall(SYS_clone3, &arguments, sizeof arguments));
}

// Landlock as of ABI 7; older kernels take a prefix.
struct LandlockRuleset {
  std::uint64_t handled_access_fs = 0;
  std::uint64_t handled_access_net = 0;
  std::uint64_t scoped = 0;
};
inline constexpr int kLandlockCreateRuleset = 444, kLandlockAddRule = 445, kLandlockRestrictSelf = 446;
// 0: the kernel has no Landlock, or it is off.
inline int landlock_abi() {
  const long abi = ::syscall(kLandlockCreateRuleset, nullptr, 0, 1u /* LANDLOCK_CREATE_RULESET_VERSION */);
  return abi < 0 ? 0 : static_cast<int>(abi);
}

}  // namespace capstan::sandbox::kernel
