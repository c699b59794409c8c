// How it works: the user namespace comes last, when every mount is made, so that mount, pid and other
// namespaces belong to the host's user namespace: even a capability won inside would have no power over them.
#include "sandbox/launch/confine.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "sandbox/launch/kernel.h"
#include "sandbox/wire.h"

namespace capstan::sandbox {
namespace {

bool write_in(int directory, const char* path, const char* text) {
  const Fd file(::openat(directory, path, O_WRONLY | O_CLOEXEC));
  const auto size = static_cast<ssize_t>(std::strlen(text));
  return file && ::write(file.get(), text, static_cast<std::size_t>(size)) == size;
}

Fault drop_capabilities() {
  unsigned long capability = 0;  // the first that the kernel does not know is refused as invalid
  while (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0) ++capability;
  if (errno != EINVAL || capability <= CAP_SETPCAP) return "drop the bounding set";
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2]{};
  if (::syscall(SYS_capset, &header, none) != 0) return "drop capabilities";
  return nullptr;
}

constexpr std::uint64_t kReadAccess =
    LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_EXECUTE;
constexpr std::uint64_t kTruncate = 1ull << 14, kIoctlDevice = 1ull << 15;  // ABI 3 and 5
constexpr std::uint64_t kNetworkBind = 1, kNetworkConnect = 2;              // ABI 4
constexpr std::uint64_t kScopeAbstractUnix = 1, kScopeSignal = 2;           // ABI 6

std::uint64_t handled_by(int abi) {
  std::uint64_t access = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;
  if (abi >= 2) access |= LANDLOCK_ACCESS_FS_REFER;
  if (abi >= 3) access |= kTruncate;
  if (abi >= 5) access |= kIoctlDevice;
  return access;
}

bool allow_below(int ruleset, const char* path, std::uint64_t access) {
  const Fd directory(::open(path, O_PATH | O_CLOEXEC));
  landlock_path_beneath_attr rule{};
  rule.allowed_access = access;
  rule.parent_fd = directory.get();
  return directory && ::syscall(kernel::kLandlockAddRule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) == 0;
}

}  // namespace

Fault become_user(int proc, std::uint32_t host_uid, std::uint32_t uid) {
  if (::setgroups(0, nullptr) != 0) return "drop groups";
  if (::syscall(SYS_setresgid, host_uid, host_uid, host_uid) != 0) return "change group";
  if (::syscall(SYS_setresuid, host_uid, host_uid, host_uid) != 0) return "change user";
  // A process of another user is not dumpable, and then may not even map its own user.
  if (::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0) return "become dumpable";
  if (::unshare(CLONE_NEWUSER) != 0) return "make a user namespace";
  char map[64];
  std::snprintf(map, sizeof map, "%u %u 1", uid, host_uid);
  if (!write_in(proc, "1/setgroups", "deny") || !write_in(proc, "1/uid_map", map) ||
      !write_in(proc, "1/gid_map", map)) {
    return "map the user";
  }
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return "become undumpable";
  if (const Fault fault = drop_capabilities()) return fault;
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 ? nullptr : "give up new privileges";
}

Fault join_user(int process, std::uint32_t uid) {
  if (::setgroups(0, nullptr) != 0) return "drop groups";
  if (::setns(process, CLONE_NEWUSER) != 0) return "join the user namespace";
  if (::syscall(SYS_setresgid, uid, uid, uid) != 0) return "change group";
  if (::syscall(SYS_setresuid, uid, uid, uid) != 0) return "change user";
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return "become undumpable";
  if (const Fault fault = drop_capabilities()) return fault;
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 ? nullptr : "give up new privileges";
}

std::vector<std::string> writable_paths(const SandboxSpec& spec) {
  std::vector<std::string> paths = {"/work", "/tmp", "/dev/shm"};
  for (const auto& bind : spec.binds) {
    if (bind.writable) paths.push_back(bind.path);
  }
  return paths;
}

Fault apply_landlock(int abi, const std::vector<std::string>& writable, Network network) {
  const std::uint64_t handled = handled_by(abi);
  kernel::LandlockRuleset attributes{.handled_access_fs = handled};
  std::size_t size = sizeof(std::uint64_t);
  if (abi >= 4) {
    if (network == Network::kNone) attributes.handled_access_net = kNetworkBind | kNetworkConnect;
    size = 2 * sizeof(std::uint64_t);
  }
  if (abi >= 6) {
    attributes.scoped = kScopeAbstractUnix | kScopeSignal;
    size = sizeof attributes;
  }
  const Fd ruleset(static_cast<int>(::syscall(kernel::kLandlockCreateRuleset, &attributes, size, 0)));
  if (!ruleset) return "make a Landlock ruleset";
  const std::uint64_t write = handled & ~(LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK);
  const std::uint64_t devices =
      (kReadAccess | LANDLOCK_ACCESS_FS_WRITE_FILE | kTruncate | kIoctlDevice) & handled;
  bool good = allow_below(ruleset.get(), "/", kReadAccess) && allow_below(ruleset.get(), "/dev", devices);
  for (const auto& path : writable) good = good && allow_below(ruleset.get(), path.c_str(), write);
  if (!good) return "add a Landlock rule";
  return ::syscall(kernel::kLandlockRestrictSelf, ruleset.get(), 0) == 0 ? nullptr : "apply Landlock";
}

Fault apply_filter(std::span<const sock_filter> program) {
  sock_fprog code{static_cast<unsigned short>(program.size()), const_cast<sock_filter*>(program.data())};
  return ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &code) == 0 ? nullptr
                                                                        : "load the system call filter";
}

}  // namespace capstan::sandbox
