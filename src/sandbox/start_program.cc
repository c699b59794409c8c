#include "sandbox/start_program.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>

#include <filesystem>

namespace capstan::sandbox {

std::string launcher_program(const std::string& given) {
  if (!given.empty()) return given;
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (self.parent_path() / "capstan-sandbox").string();
}

Result<pid_t> start_program(const std::string& program, std::vector<std::string> arguments, int socket,
                            int out) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  if (out >= 0)
    ::posix_spawn_file_actions_adddup2(&actions, out, 1);
  else
    ::posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  if (socket >= 0) ::posix_spawn_file_actions_adddup2(&actions, socket, 3);
  sigset_t none, all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (auto& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  // No secret of this process may be in the environment of what forks sandboxes.
  char* nothing[] = {nullptr};
  pid_t pid = -1;
  const int error = ::posix_spawn(&pid, program.c_str(), &actions, &attributes, argv.data(), nothing);
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (error != 0) return fail_errno("cannot start " + program, error);
  return pid;
}

}  // namespace capstan::sandbox
