// How it works: what the sandbox is made of exists already, so that entering it takes two calls: all
// namespaces by the first process's pidfd, and the change of user inside.
#include "sandbox/launch/runner.h"

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "sandbox/launch/command_process.h"
#include "sandbox/launch/descriptors.h"
#include "sandbox/wire.h"

namespace capstan::sandbox {
namespace {

constexpr int kNamespaces = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP;

Fault enter(const Runner& runner, const SandboxSpec& spec) {
  for (const int cgroup : runner.cgroups) {
    if (::write(cgroup, "0", 1) != 1) return "join a cgroup";
    ::close(cgroup);
  }
  char nothing = 0;
  if (::read(runner.gate, &nothing, 1) != 0) return "wait for the first process";
  ::close(runner.gate);
  if (::setns(runner.first, kNamespaces) != 0) return "enter the sandbox";
  if (const Fault fault = join_user(runner.first, spec.uid)) return fault;
  ::close(runner.first);
  return runner.landlock_abi > 0 ? apply_landlock(runner.landlock_abi, writable_paths(spec), spec.network)
                                 : nullptr;
}

[[noreturn]] void refuse(const Runner& runner, std::uint32_t command, Fault fault) {
  const auto error = static_cast<std::uint32_t>(errno);
  send_message(runner.socket, Packer(MessageKind::kRefused).u32(command).text(fault).u32(error).bytes());
  ::_exit(127);
}

}  // namespace

void become_runner(const Runner& given, const SandboxSpec& spec) {
  Runner runner = given;
  std::vector<int*> kept = {&runner.socket, &runner.first, &runner.gate};
  for (int& cgroup : runner.cgroups) kept.push_back(&cgroup);
  keep_descriptors(kept);
  if (const Fault fault = enter(runner, spec)) refuse(runner, 0, fault);
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (int i = 0; i < 3; ++i) {
    if (!null || ::dup2(null.get(), i) < 0) refuse(runner, 0, "open /dev/null");
  }
  if (const Fault fault = apply_filter(runner.filter)) refuse(runner, 0, fault);
  runner.prepare();
  Message message;
  if (receive_message(runner.socket, message) != 1) ::_exit(1);  // the launcher is gone
  Unpacker in(message.bytes);
  const bool spawn = in.kind() == MessageKind::kSpawn;
  const std::uint32_t id = in.u32(), given_stdio = in.u32();
  CommandSpec command = in.command();
  if (!spawn || !in.good()) refuse(runner, id, "understand the launcher");
  add_default_env(command.env);
  CommandProcess process{.command = &command, .open_files = spec.limits.open_files};
  take_descriptors(process, given_stdio, message.fds, null.get());
  if (const Fault fault = prepare_command(process)) refuse(runner, id, fault);
  ::_exit(runner.run_code(command));
}

}  // namespace capstan::sandbox
