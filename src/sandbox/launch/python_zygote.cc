// The library that a warm Python interpreter loads (launch/zygotes.h): it serves requests for runners by
// forking the interpreter into the pid namespace of a sandbox. In the child, the callback runs the program.
#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "sandbox/launch/kernel.h"
#include "sandbox/launch/runner.h"
#include "sandbox/wire.h"

namespace {

using namespace capstan::sandbox;
using RunCode = int (*)(const char* code, char** argv, char** env);

RunCode run_code = nullptr;

int run_command(const CommandSpec& command) {
  std::vector<char*> argv, env;
  for (const auto& text : command.argv) argv.push_back(const_cast<char*>(text.c_str()));
  for (const auto& text : command.env) env.push_back(const_cast<char*>(text.c_str()));
  argv.push_back(nullptr);
  env.push_back(nullptr);
  return run_code(command.code.c_str(), argv.data(), env.data());
}

struct Server {
  int landlock_abi = 0;
  std::vector<sock_filter> filters[2];
  Fd own_pids;                   // our own pid namespace, for our own children
  std::uintptr_t number_at = 0;  // where the C library keeps the number of this thread

  bool greet(int socket) {
    Message message;
    if (receive_message(socket, message) != 1) return false;
    Unpacker in(message.bytes);
    if (in.kind() != MessageKind::kHello) return false;
    landlock_abi = static_cast<int>(in.u32());
    for (auto& filter : filters) {
      const std::string bytes = in.text();
      filter.resize(bytes.size() / sizeof(sock_filter));
      std::memcpy(filter.data(), bytes.data(), filter.size() * sizeof(sock_filter));
    }
    own_pids.reset(::open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC));
    return in.good() && own_pids && ::prctl(PR_GET_TID_ADDRESS, &number_at, 0, 0, 0) == 0;
  }

  // Descriptors: as Zygotes::Birth has them.
  void answer(int socket, Message& message) {
    Unpacker in(message.bytes);
    if (in.kind() != MessageKind::kSpawn || message.fds.size() < 4) return;
    const SandboxSpec spec = in.sandbox();
    Runner runner{.socket = message.fds[0].get(),
                  .first = message.fds[1].get(),
                  .gate = message.fds[2].get(),
                  .filter = filters[static_cast<std::size_t>(spec.network)],
                  .landlock_abi = landlock_abi,
                  .run_code = run_command};
    for (std::size_t i = 4; i < message.fds.size(); ++i) runner.cgroups.push_back(message.fds[i].get());
    int pidfd = -1;
    pid_t pid = -1;
    if (::setns(runner.first, CLONE_NEWPID) == 0) {
      pid = kernel::clone3(CLONE_PARENT, message.fds[3].get(), &pidfd, number_at);
      if (pid == 0) become_runner(runner, spec);
    }
    const int error = errno;
    const Fd owned(pidfd);
    ::setns(own_pids.get(), CLONE_NEWPID);
    if (pid > 0)
      send_message(socket, Packer(MessageKind::kReady).u32(static_cast<std::uint32_t>(pid)).bytes(), {pidfd});
    else
      send_message(socket, Packer(MessageKind::kRefused).u32(static_cast<std::uint32_t>(error)).bytes());
  }
};

}  // namespace

// Returns when the launcher is gone.
extern "C" __attribute__((visibility("default"))) int capstan_python_zygote_serve(int socket,
                                                                                  RunCode callback) {
  run_code = callback;
  Server server;
  if (!server.greet(socket)) return 1;
  for (Message message; receive_message(socket, message) == 1;) {
    server.answer(socket, message);
    message.fds.clear();
  }
  return 0;
}
