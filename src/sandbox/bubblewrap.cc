// How it works: a fork joins the cgroups, becomes a user that no account has and executes bwrap, which makes
// the namespaces without privileges; this process waits on the pipes and the pidfd, and ends all by cgroup.
#include "sandbox/bubblewrap.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <initializer_list>
#include <optional>

#include "base/text.h"
#include "sandbox/cgroup.h"
#include "sandbox/cgroup_files.h"
#include "sandbox/output.h"
#include "sandbox/start_program.h"
#include "sandbox/validate.h"

namespace capstan::sandbox {
namespace {

constexpr const char* kProgram = "/usr/bin/bwrap";
constexpr std::uint32_t kUserOutside = 0x6fffffff;  // below those of launchers; no account has it
constexpr std::int64_t kOtherTmpfsBytes = 1 << 20;
constexpr std::int64_t kOwnProcesses = 3;  // bwrap itself, process 1, and one on the way
constexpr int kPollMsMax = 100;

using Clock = std::chrono::steady_clock;

Result<void> check(const SandboxSpec& spec, const CommandSpec& command, const BubblewrapOptions& options) {
  CAPSTAN_CHECK(validate(spec));
  CAPSTAN_CHECK(validate(command));
  if (spec.lane != Lane::kProcess || spec.long_lived)
    return fail(
        Code::kInvalid,
        "bubblewrap runs one command in the process lane; sessions and interpreter lanes need the launcher");
  if (command.terminal) return fail(Code::kInvalid, "a terminal needs the launcher");
  if (::access(kProgram, X_OK) != 0) return fail(Code::kUnsupported, "{} is not installed", kProgram);
  std::string missing;
  for (const auto& lack : bubblewrap_lacks()) {
    if (!options.without.contains(lack)) missing += (missing.empty() ? "" : ", ") + lack;
  }
  if (missing.empty()) return {};
  return fail(Code::kUnsupported,
              "bubblewrap cannot enforce {}: accept that with --without, or use the launcher", missing);
}

// What the launcher's filter is, in memory, as bwrap wants it.
Result<Fd> filter_of(const SandboxSpec& spec, const BubblewrapOptions& options) {
  Fd memory(::memfd_create("filter", MFD_CLOEXEC));
  if (!memory) return fail_errno("cannot make a memory file", errno);
  const std::string network = spec.network == Network::kNone ? "none" : "namespace";
  CAPSTAN_TRY(const pid_t pid,
              start_program(launcher_program(options.program), {"--filter", network}, -1, memory.get()));
  int status = 0;
  ::waitpid(pid, &status, 0);
  if (status != 0 || ::lseek(memory.get(), 0, SEEK_END) <= 0 || ::lseek(memory.get(), 0, SEEK_SET) != 0)
    return fail(Code::kUnsupported, "the launcher's program did not give its filter");
  return memory;
}

std::vector<std::string> arguments(const SandboxSpec& spec, const CommandSpec& command, int filter) {
  std::vector<std::string> words = {"bwrap",
                                    "--unshare-all",
                                    "--uid",
                                    std::to_string(spec.uid),
                                    "--gid",
                                    std::to_string(spec.uid),
                                    "--hostname",
                                    spec.hostname,
                                    "--new-session",
                                    "--die-with-parent",
                                    "--cap-drop",
                                    "ALL",
                                    "--clearenv",
                                    "--seccomp",
                                    std::to_string(filter)};
  const auto add = [&](std::initializer_list<std::string> more) { words.insert(words.end(), more); };
  if (spec.template_root.empty()) {
    add({"--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/sbin", "/sbin",
         "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"});
    for (const char* file : {"/etc/ld.so.cache", "/etc/alternatives", "/etc/ssl/certs", "/etc/localtime"})
      add({"--ro-bind-try", file, file});
  } else {
    add({"--ro-bind", spec.template_root, "/"});
  }
  const std::string other = std::to_string(kOtherTmpfsBytes);
  add({"--proc", "/proc", "--dev", "/dev", "--size", other, "--tmpfs", "/dev/shm", "--size", other, "--tmpfs",
       "/tmp"});
  add({"--size", std::to_string(spec.limits.tmpfs_bytes), "--tmpfs", "/work"});
  for (const Bind& bind : spec.binds)
    add({bind.writable ? "--bind" : "--ro-bind", bind.host_path, bind.path});
  for (const char* entry : {"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/work", "LANG=C.UTF-8"}) {
    const std::string_view text(entry);
    add({"--setenv", std::string(text.substr(0, text.find('='))),
         std::string(text.substr(text.find('=') + 1))});
  }
  for (const auto& entry : command.env) {
    const std::size_t at = std::min(entry.find('='), entry.size() - 1);
    add({"--setenv", entry.substr(0, at), entry.substr(at + 1)});
  }
  add({"--chdir", command.cwd, "--"});
  words.insert(words.end(), command.argv.begin(), command.argv.end());
  return words;
}

// The cgroups of one command, removed on every way out.
struct Group {
  Cgroups cgroups;
  std::vector<std::string> directories{};
  ~Group() {
    for (const auto& directory : directories) kill_cgroup(directory);
    for (int tried = 0;
         tried < 200 && !std::all_of(directories.begin(), directories.end(),
                                     [](const auto& each) { return cgroup_processes(each).empty(); });
         ++tried)
      ::usleep(5'000);
    Cgroups::remove(directories);
    cgroups.remove_instance();
  }
};

Result<void> make_group(Group& group, const SandboxSpec& spec, const BubblewrapOptions& options) {
  for (const char* needed : {"cgroup_memory", "cgroup_cpu", "cgroup_pids", "cgroup_kill"}) {
    if (!group.cgroups.can(needed) && !options.without.contains(needed))
      return fail(Code::kUnsupported, "this host cannot enforce {}", needed);
  }
  const Limits limits{.memory_bytes = spec.limits.memory_bytes,
                      .milli_cpus = spec.limits.milli_cpus,
                      .pids_max = spec.limits.pids + kOwnProcesses};
  CAPSTAN_TRY(group.directories, group.cgroups.create("one", limits));
  // A rank's ceiling is never below one CPU; a sandbox's is what its spec says.
  const std::string quota = std::to_string(std::max<std::int64_t>(spec.limits.milli_cpus * 100, 1000));
  for (const auto& directory : group.directories) {
    if (!write_cgroup_file(directory, "cpu.cfs_quota_us", quota))
      write_cgroup_file(directory, "cpu.max", quota + " 100000");
  }
  return {};
}

struct Child {
  std::vector<char*> argv{};
  std::vector<std::string> directories{};
  int stdio[3] = {-1, -1, -1};
  std::uint32_t user = 0;
  rlim_t files = 0;
};

// In the fork, where only system calls are safe.
[[noreturn]] void become_bubblewrap(const Child& child, int filter) {
  for (const auto& directory : child.directories) {
    if (!join_cgroup(directory)) ::_exit(126);
  }
  for (int i = 0; i < 3; ++i) {
    if (::dup2(child.stdio[i], i) < 0) ::_exit(126);
  }
  const rlimit files{child.files, child.files}, none{0, 0};
  if (::setrlimit(RLIMIT_NOFILE, &files) != 0 || ::setrlimit(RLIMIT_CORE, &none) != 0) ::_exit(126);
  ::fcntl(filter, F_SETFD, 0);
  sigset_t mask;
  ::sigemptyset(&mask);
  ::sigprocmask(SIG_SETMASK, &mask, nullptr);
  if (::setgroups(0, nullptr) != 0 || ::setresgid(child.user, child.user, child.user) != 0 ||
      ::setresuid(child.user, child.user, child.user) != 0)
    ::_exit(126);
  char* nothing[] = {nullptr};
  ::execve(kProgram, child.argv.data(), nothing);
  ::_exit(126);
}

// Reads until the process is dead or must die; why it must.
std::optional<Ended> watch(Output& output, int pidfd, const CommandLimits& limits,
                           const std::vector<std::string>& directories) {
  const auto deadline = Clock::now() + std::chrono::milliseconds(limits.wall_ms);
  std::optional<Ended> why;
  bool open[2] = {true, true};
  for (;;) {
    pollfd watched[3] = {{open[0] ? output.read_fd(Stream::kOut) : -1, POLLIN, 0},
                         {open[1] ? output.read_fd(Stream::kErr) : -1, POLLIN, 0},
                         {pidfd, POLLIN, 0}};
    ::poll(watched, 3, kPollMsMax);
    if (watched[0].revents != 0) open[0] = output.read(Stream::kOut);
    if (watched[1].revents != 0) open[1] = output.read(Stream::kErr);
    if (watched[2].revents != 0) return why;
    if (!why && output.over()) why = Ended::kOutput;
    if (!why && Clock::now() >= deadline) why = Ended::kWallTime;
    if (why) {
      for (const auto& directory : directories) kill_cgroup(directory);
    }
  }
}

void add_usage(CommandResult& result, const std::vector<std::string>& directories) {
  for (const auto& directory : directories) {
    const std::string times = read_cgroup_file(directory, "cpu.stat");
    for (const auto line : split(times, '\n')) {
      if (line.starts_with("usage_usec ")) result.usage.cpu_us = parse_int(line.substr(11)).value_or(0);
    }
    for (const char* file : {"memory.max_usage_in_bytes", "memory.peak"}) {
      const auto peak = parse_int(trim(read_cgroup_file(directory, file)));
      if (peak) result.usage.memory_peak_bytes = *peak;
    }
  }
}

}  // namespace

const std::vector<std::string>& bubblewrap_lacks() {
  static const std::vector<std::string> lacks = {"cpu_time", "landlock", "tmpfs_inodes"};
  return lacks;
}

Result<CommandResult> run_in_bubblewrap(const SandboxSpec& spec, const CommandSpec& command,
                                        const BubblewrapOptions& options) {
  CAPSTAN_CHECK(check(spec, command, options));
  CAPSTAN_TRY(const Fd filter, filter_of(spec, options));
  Group group{.cgroups = Cgroups::detect("bubblewrap-" + options.instance)};
  CAPSTAN_CHECK(make_group(group, spec, options));
  Output output;
  CAPSTAN_CHECK(output.make(command, {}));
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  auto words = arguments(spec, command, filter.get());
  Child child{.directories = group.directories,
              .stdio = {command.stdin_fd >= 0 ? command.stdin_fd : null.get(),
                        command.stdout_fd >= 0 ? command.stdout_fd : output.write_fd(Stream::kOut),
                        command.stderr_fd >= 0 ? command.stderr_fd : output.write_fd(Stream::kErr)},
              .user = spec.host_uid != 0 ? spec.host_uid : kUserOutside,
              .files = static_cast<rlim_t>(spec.limits.open_files)};
  for (auto& word : words) child.argv.push_back(word.data());
  child.argv.push_back(nullptr);
  const auto begun = Clock::now();
  const pid_t pid = ::fork();
  if (pid == 0) become_bubblewrap(child, filter.get());
  if (pid < 0) return fail_errno("cannot fork", errno);
  output.close_write();
  const Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  const auto why = watch(output, pidfd.get(), command.limits, group.directories);
  int status = 0;
  ::waitpid(pid, &status, 0);
  CommandResult result;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.signal = result.exit_code > 128 ? result.exit_code - 128 : 0;  // as bwrap says it
  if (result.signal != 0) result.ended = Ended::kSignalled;
  for (const auto& directory : group.directories) {
    if (result.signal == SIGKILL && cgroup_oom_kills(directory) > 0) result.ended = Ended::kMemory;
  }
  if (why) result.ended = *why;
  add_usage(result, group.directories);
  result.usage.wall_us = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - begun).count();
  output.drain();
  output.put_into(result);
  return result;
}

}  // namespace capstan::sandbox
