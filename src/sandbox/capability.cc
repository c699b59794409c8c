// How it works: the child does the very calls that a rank's start does; what it could not do is its exit
// status.
#include "sandbox/capability.h"

#include <grp.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace capstan::sandbox {
namespace {
constexpr unsigned kNobody = 65534;
}

Capability detect_user_switch() {
  Capability capability{.name = "user_switch", .ok = false, .why = {}};
  if (::geteuid() != 0) {
    capability.why = "not root: every rank runs as the user of this worker";
    return capability;
  }
  const pid_t child = ::fork();
  if (child == 0) {
    const bool good = ::setgroups(0, nullptr) == 0 && ::setresgid(kNobody, kNobody, kNobody) == 0 &&
                      ::setresuid(kNobody, kNobody, kNobody) == 0;
    ::_exit(good ? 0 : errno);
  }
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child || !WIFEXITED(status)) {
    capability.why = "a process for the check could not be run";
  } else if (WEXITSTATUS(status) != 0) {
    capability.why =
        std::string("root without the right to change users: ") + std::strerror(WEXITSTATUS(status));
  } else {
    capability.ok = true;
    capability.why = "ranks run as the user that their workload names";
  }
  return capability;
}

}  // namespace capstan::sandbox
