// How it works: plain open, read, write on cgroupfs. A file is written with one write(2), as cgroupfs
// demands.
#include "sandbox/cgroup_files.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace capstan::sandbox {

bool write_cgroup_file(const std::string& directory, const char* file, std::string_view value) {
  const std::string path = directory + "/" + file;
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool good = ::write(fd, value.data(), value.size()) == static_cast<ssize_t>(value.size());
  ::close(fd);
  return good;
}

bool join_cgroup(const std::string& directory) { return write_cgroup_file(directory, "cgroup.procs", "0"); }

std::string read_cgroup_file(const std::string& directory, const char* file) {
  const std::string path = directory + "/" + file;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  std::string text;
  char buffer[4096];
  while (text.size() < 64 * 1024) {
    const ssize_t count = ::read(fd, buffer, sizeof buffer);
    if (count <= 0) break;
    text.append(buffer, static_cast<std::size_t>(count));
  }
  ::close(fd);
  return text;
}

std::vector<pid_t> cgroup_processes(const std::string& directory) {
  std::vector<pid_t> processes;
  const std::string text = read_cgroup_file(directory, "cgroup.procs");
  for (const char* at = text.c_str(); *at != '\0';) {
    char* end = nullptr;
    const long pid = std::strtol(at, &end, 10);
    if (end == at) break;
    if (pid > 0) processes.push_back(static_cast<pid_t>(pid));  // 0: a process of another pid namespace
    at = end;
    while (*at == '\n') ++at;
  }
  return processes;
}

void kill_cgroup(const std::string& directory) {
  if (write_cgroup_file(directory, "cgroup.kill", "1")) return;
  for (const pid_t pid : cgroup_processes(directory)) ::kill(pid, SIGKILL);
}

std::int64_t cgroup_oom_kills(const std::string& directory) {
  std::string text = read_cgroup_file(directory, "memory.events");
  if (text.empty()) text = read_cgroup_file(directory, "memory.oom_control");
  const std::size_t at = text.find("oom_kill ");
  return at == text.npos ? 0 : std::strtoll(text.c_str() + at + std::strlen("oom_kill "), nullptr, 10);
}

}  // namespace capstan::sandbox
