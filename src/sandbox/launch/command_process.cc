#include "sandbox/launch/command_process.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>

namespace capstan::sandbox {
namespace {

constexpr const char* kDefaultEnv[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/work", "LANG=C.UTF-8"};

bool set_limit(int resource, std::uint64_t soft, std::uint64_t hard) {
  const rlimit limit{soft, hard};
  return ::setrlimit(static_cast<__rlimit_resource>(resource), &limit) == 0;
}

}  // namespace

void take_descriptors(CommandProcess& process, std::uint32_t given, const std::vector<Fd>& fds, int null) {
  std::size_t next = 0;
  for (int i = 0; i < 3; ++i) {
    const bool has = (given >> i & 1) != 0 && next < fds.size();
    process.stdio[i] = has ? fds[next++].get() : null;
  }
  for (; next < fds.size(); ++next) process.cgroups.push_back(fds[next].get());
}

void add_default_env(std::vector<std::string>& env) {
  for (const char* entry : kDefaultEnv) {
    const std::string name(entry, std::strchr(entry, '=') + 1);
    if (std::none_of(env.begin(), env.end(),
                     [&](const std::string& given) { return given.starts_with(name); })) {
      env.emplace_back(entry);
    }
  }
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> list;
  for (auto& text : texts) list.push_back(text.data());
  list.push_back(nullptr);
  return list;
}

Fault prepare_command(const CommandProcess& process) {
  for (const int cgroup : process.cgroups) {
    if (::write(cgroup, "0", 1) != 1) return "join a cgroup";
  }
  ::setsid();
  for (int i = 0; i < 3; ++i) {
    if (::dup2(process.stdio[i], i) < 0) return "connect standard input and output";
  }
  if (process.command->terminal && ::ioctl(0, TIOCSCTTY, 0) != 0) return "take the terminal";
  const auto seconds = static_cast<std::uint64_t>(process.command->limits.cpu_ms / 1000 + 1);
  const auto files = static_cast<std::uint64_t>(process.open_files);
  if (!set_limit(RLIMIT_CORE, 0, 0) || !set_limit(RLIMIT_NOFILE, files, files) ||
      !set_limit(RLIMIT_CPU, seconds, seconds + 1)) {
    return "set limits";
  }
  if (::chdir(process.command->cwd.c_str()) != 0) return "enter the working directory";
  if (::close_range(3, ~0u, 0) != 0) return "close descriptors";
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  return nullptr;
}

}  // namespace capstan::sandbox
