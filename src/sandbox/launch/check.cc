// How it works: a child does the very call that a sandbox's start does; its exit status is errno.
#include "sandbox/launch/check.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "sandbox/launch/confine.h"
#include "sandbox/launch/filter.h"
#include "sandbox/launch/kernel.h"

namespace capstan::sandbox {
namespace {

// errno of the check, 0 if it is good.
template <class Check>
int try_in_child(Check check) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(check() ? 0 : errno == 0 ? EIO : errno);
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child) return EIO;
  return WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
}

void say(const char* name, int error, const std::string& good) {
  std::printf("%s\t%s\t%s\n", name, error == 0 ? "yes" : "no",
              error == 0 ? good.c_str() : std::strerror(error));
}

// The children of these make their namespace by clone3, as sandboxes do.
int try_namespace(std::uint64_t flag) {
  return try_in_child([flag] {
    int pidfd = -1;
    const pid_t child = kernel::clone3(flag, -1, &pidfd);
    if (child == 0) ::_exit(0);
    return child > 0 && ::waitpid(child, nullptr, 0) == child;
  });
}

bool make_mounts() {
  if (::unshare(CLONE_NEWNS) != 0) return false;
  if (kernel::set_mount_attributes(AT_FDCWD, "/", AT_RECURSIVE, 0, 1 << 18 /* MS_PRIVATE */) != 0)
    return false;
  const int context = kernel::fsopen("tmpfs");
  return context >= 0 && kernel::fsconfig(context, FSCONFIG_SET_STRING, "size", "1m") == 0 &&
         kernel::fsconfig(context, FSCONFIG_SET_STRING, "nr_inodes", "16") == 0 &&
         kernel::fsconfig(context, FSCONFIG_CMD_CREATE, nullptr, nullptr) == 0 &&
         kernel::attach(kernel::fsmount(context, MOUNT_ATTR_NOSUID), "/proc") == 0;
}

bool load_filter() {
  const auto program = compile_filter(Network::kNone);
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && apply_filter(program) == nullptr;
}

// The kernel's own name of a process that cannot become another's.
bool open_pidfd() { return ::syscall(SYS_pidfd_open, ::getpid(), 0) >= 0; }

}  // namespace

int print_filter(const char* network) {
  const bool none = std::strcmp(network, "none") == 0;
  if (!none && std::strcmp(network, "namespace") != 0) return 2;
  const auto program = compile_filter(none ? Network::kNone : Network::kNamespace);
  const auto size = static_cast<ssize_t>(program.size() * sizeof(sock_filter));
  return ::write(1, program.data(), static_cast<std::size_t>(size)) == size ? 0 : 1;
}

int print_checks() {
  say("root", ::geteuid() == 0 ? 0 : EPERM, "runs as root");
  constexpr struct {
    const char* name;
    std::uint64_t flag;
  } kNamespaces[] = {{"namespace_user", CLONE_NEWUSER}, {"namespace_pid", CLONE_NEWPID},
                     {"namespace_mount", CLONE_NEWNS},  {"namespace_ipc", CLONE_NEWIPC},
                     {"namespace_uts", CLONE_NEWUTS},   {"namespace_cgroup", CLONE_NEWCGROUP},
                     {"namespace_net", CLONE_NEWNET}};
  for (const auto& each : kNamespaces) say(each.name, try_namespace(each.flag), "by clone3");
  say("pidfd", try_in_child(open_pidfd), "processes are watched and killed by descriptor");
  say("mounts", try_in_child(make_mounts), "tmpfs with size and inode limits by the new mount calls");
  say("seccomp", try_in_child(load_filter), "a filter of system calls");
  const int abi = kernel::landlock_abi();
  say("landlock", abi > 0 ? 0 : ENOSYS,
      "ABI " + std::to_string(abi) +
          (abi >= 6 ? "" : ": abstract sockets are kept apart by network namespaces"));
  return 0;
}

}  // namespace capstan::sandbox
