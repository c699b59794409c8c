// The library that a warm Python interpreter loads (launch/zygotes.h): it serves requests for first processes
// by forking the interpreter. In such a child's child, the callback runs the program in the interpreter.
#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "sandbox/launch/first_process.h"
#include "sandbox/launch/kernel.h"
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
  Fd root_mounts;

  bool greet(int socket) {
    Message message;
    if (receive_message(socket, message) != 1 || message.fds.empty()) return false;
    Unpacker in(message.bytes);
    if (in.kind() != MessageKind::kHello) return false;
    landlock_abi = static_cast<int>(in.u32());
    for (auto& filter : filters) {
      const std::string bytes = in.text();
      filter.resize(bytes.size() / sizeof(sock_filter));
      std::memcpy(filter.data(), bytes.data(), filter.size() * sizeof(sock_filter));
    }
    root_mounts = std::move(message.fds[0]);
    return in.good();
  }

  void answer(int socket, Message& message) {
    Unpacker in(message.bytes);
    if (in.kind() != MessageKind::kSpawn || message.fds.size() < 2) return;
    const auto network = static_cast<Network>(in.u32());
    const auto namespaces = static_cast<std::uint64_t>(in.i64());
    const std::uint32_t host_uid = in.u32();
    FirstProcess config{.socket = message.fds[0].get(),
                        .filter = filters[static_cast<std::size_t>(network)],
                        .network = network,
                        .host_uid = host_uid,
                        .landlock_abi = landlock_abi,
                        .run_code = run_command};
    for (std::size_t i = 2; i < message.fds.size(); ++i) config.cgroups.push_back(message.fds[i].get());
    int pidfd = -1;
    // The mount namespace comes after: it is made from the sandboxes' root, not from the host's, where this
    // process is.
    const pid_t pid = kernel::clone3((namespaces & ~std::uint64_t{CLONE_NEWNS}) | CLONE_PARENT,
                                     message.fds[1].get(), &pidfd);
    if (pid == 0) {
      if (::setns(root_mounts.get(), CLONE_NEWNS) != 0 || ::unshare(CLONE_NEWNS) != 0) ::_exit(126);
      become_first_process(config);
    }
    const Fd owned(pidfd);
    if (pid > 0)
      send_message(socket, Packer(MessageKind::kReady).u32(static_cast<std::uint32_t>(pid)).bytes(), {pidfd});
    else
      send_message(socket, Packer(MessageKind::kRefused).u32(static_cast<std::uint32_t>(errno)).bytes());
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
