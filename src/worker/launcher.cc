// How it works: posix_spawn (no copy of this threaded process's memory) with the three descriptors of the
// shim placed at fixed numbers; they are first lifted above those numbers so that placing one cannot
// overwrite another.
#include "worker/launcher.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <map>

namespace capstan::worker {
namespace {

std::unexpected<LaunchError> refuse(std::string message, bool retryable = false) {
  return std::unexpected(LaunchError{std::move(message), retryable});
}

// A port that something else holds would make the rank fail later and less clearly. 0, or errno's value.
int try_port(std::int64_t port) {
  const Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) return 0;  // cannot know
  const int on = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ? 0 : errno;
}

Descriptor memory_file(const std::string& bytes) {
  Descriptor file(::memfd_create("capstan-launch", MFD_CLOEXEC));
  if (!file) return file;
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t written = ::write(file.get(), bytes.data() + done, bytes.size() - done);
    if (written <= 0) return {};
    done += static_cast<std::size_t>(written);
  }
  return file;
}

// The same open file at a number that no placement uses.
Descriptor lifted(int fd) { return Descriptor(::fcntl(fd, F_DUPFD_CLOEXEC, 16)); }

}  // namespace

Launcher::Launcher(const DataDirectory& data, Places places, const sandbox::Cgroups& cgroups,
                   std::filesystem::path shim)
    : data_(data), places_(std::move(places)), cgroups_(cgroups), shim_(std::move(shim)) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) open_files_max_ = static_cast<std::int64_t>(limit.rlim_cur);
}

std::expected<Launch, LaunchError> Launcher::prepare(const StartSpec& spec, const std::string& mark) {
  if (const int error = spec.port > 0 ? try_port(spec.port) : 0; error == EADDRINUSE) {
    return refuse(fmt::format("port {} is taken by another program", spec.port), true);
  } else if (error != 0) {
    return refuse(fmt::format("port {} cannot be used: {}", spec.port, std::strerror(error)));
  }
  const auto user = resolve_user(spec.user, data_.owner());
  if (!user) return refuse(user.error().message);
  const auto job = job_directory(places_, *user, spec.name);
  if (!job) return refuse(job.error().message, job.error().code == Code::kExhausted);
  const auto shipped = shipped_for(places_, *user);
  if (!shipped) return refuse(shipped.error().message, shipped.error().code == Code::kExhausted);
  const HostPaths paths{job->string(), shipped->share.string(), shipped->bin.string()};

  Launch launch;
  shim::LaunchRecord& record = launch.record;
  for (const auto& argument : spec.command) record.command.push_back(expand(argument, paths));
  record.environment = rank_environment(spec, paths, user->name, user->home, mark);
  record.workdir = spec.workdir.empty() ? paths.job_directory : spec.workdir;
  record.log_name = std::to_string(spec.id.rank) + ".log";
  record.log_bytes_max = spec.log_bytes_max;
  record.grace_ms = spec.grace_ms;
  record.open_files_max = open_files_max_;
  record.timeout_ms = spec.timeout_ms;
  if (user->switched) {
    record.uid = user->uid;
    record.gid = user->gid;
    record.groups = user->groups;
  }
  auto job_logs = open_own_directory(data_.logs_fd(), std::to_string(spec.id.job), 0755);
  if (!job_logs) return refuse(job_logs.error().message, true);
  auto logs = open_own_directory(job_logs->get(), std::to_string(spec.id.attempt), 0755);
  if (!logs) return refuse(logs.error().message, true);
  launch.log_directory = *std::move(logs);
  auto groups = cgroups_.create(
      spec.id.text(),
      {.memory_bytes = spec.memory_bytes, .milli_cpus = spec.milli_cpus, .pids_max = kRankPidsMax});
  if (!groups) return refuse(groups.error().message, true);
  record.cgroups = *std::move(groups);
  return launch;
}

std::expected<pid_t, LaunchError> Launcher::start(const RankId& id, const Launch& launch,
                                                  const Descriptor& claim) {
  const Descriptor encoded = memory_file(shim::encode(launch.record));
  const Descriptor record = lifted(encoded.get());
  const Descriptor rank_directory = lifted(claim.get());
  const Descriptor log_directory = lifted(launch.log_directory.get());
  if (!encoded || !record || !rank_directory || !log_directory) {
    return refuse(std::string("cannot prepare the shim: ") + std::strerror(errno), true);
  }
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  ::posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, record.get(), shim::kRecordFd);
  ::posix_spawn_file_actions_adddup2(&actions, rank_directory.get(), shim::kRankDirFd);
  ::posix_spawn_file_actions_adddup2(&actions, log_directory.get(), shim::kLogDirFd);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t all;
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &all);  // the shim reads its signals from a descriptor
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
  std::string program = "capstan-shim", argument = id.text(), environment = "LANG=C.UTF-8";
  char* arguments[] = {program.data(), argument.data(), nullptr};
  char* variables[] = {environment.data(), nullptr};
  pid_t pid = -1;
  const int error = ::posix_spawn(&pid, shim_.c_str(), &actions, &attributes, arguments, variables);
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0)
    return refuse("cannot start " + shim_.string() + ": " + std::strerror(error),
                  error == EAGAIN || error == ENOMEM);
  return pid;
}

}  // namespace capstan::worker
