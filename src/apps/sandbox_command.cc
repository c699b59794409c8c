#include "apps/sandbox_command.h"

#include <unistd.h>

#include <cstdio>
#include <memory>
#include <set>

#include "apps/up/session_host.h"
#include "base/build_id.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "cli/api_client.h"
#include "cli/exit_code.h"
#include "sandbox/bubblewrap.h"
#include "sandbox/launcher.h"

namespace capstan::apps {
namespace {

using namespace capstan::sandbox;

struct Options {
  std::vector<std::string> without, binds, command;
  std::string lane = "process", network = "none", backend = "launcher", code_file;
  SandboxSpec spec;
  CommandLimits limits;
  double memory_mib = 256, tmpfs_mib = 64, cpus = 1, wall_s = 60, cpu_s = 60;
  bool usage = false;
};

LauncherOptions launcher_options(const Options& options) {
  return {.instance = "cli-" + std::to_string(::getpid()),
          .without = {options.without.begin(), options.without.end()},
          .ready = 0};
}

int complain(const Error& error) {
  std::fprintf(stderr, "capstan: %s\n", error.message.c_str());
  return error.code == Code::kInvalid ? int{cli::kUsage} : 1;
}

// One that runs on after an upgrade.
void say_of_session_host(const std::filesystem::path& data) {
  const auto text = read_file(data / kSessionsAddress, 64 << 10);
  const auto json = text ? Json::parse(*text) : fail(Code::kNotFound, "none");
  if (!json) return;
  const std::string build = json->get_string("build").value_or("unknown");
  if (build != build_id())
    std::printf("the session host that runs is of another build (%s, this program %s); it is replaced when its last session "
                "ends\n",
                build.c_str(), build_id().c_str());
}

int check(const Options& options, const std::filesystem::path& data) {
  const auto capabilities = check_host(launcher_options(options));
  if (!capabilities) return complain(capabilities.error());
  for (const auto& capability : *capabilities) {
    std::printf("%-17s %-4s %s\n", capability.name.c_str(), capability.ok ? "yes" : "NO",
                capability.why.c_str());
  }
  const auto lane = [](const char* name, const char* program, const char* what) {
    std::printf("%-17s %-4s %s\n", name, ::access(program, X_OK) == 0 ? "yes" : "-", what);
  };
  lane("python-zygote", "/usr/bin/python3", "lane, optional: needs /usr/bin/python3");
  lane("node-warm", "/usr/bin/node", "lane, optional: needs /usr/bin/node");
  lane("bubblewrap", "/usr/bin/bwrap", "backend, optional: without landlock, tmpfs_inodes and cpu_time");
  say_of_session_host(data);
  const auto good = require(*capabilities, {options.without.begin(), options.without.end()});
  if (!good) return complain(good.error());
  std::printf(
      "sandboxes work here. The kernel is shared: an exploit of the kernel is not stopped. Disk and network "
      "bandwidth are not limited.\n");
  return 0;
}

Result<void> add_binds(Options& options) {
  for (const auto& bind : options.binds) {
    const auto parts = split(bind, ':');
    const bool writable = parts.size() == 3 && parts[2] == "rw";
    if (parts.size() != 2 && !writable)
      return fail(Code::kInvalid, "bind '{}' is not HOST:INSIDE or HOST:INSIDE:rw", bind);
    options.spec.binds.push_back({std::string(parts[0]), std::string(parts[1]), writable});
  }
  return {};
}

Result<CommandResult> run_in(Options& options) {
  CAPSTAN_CHECK(add_binds(options));
  options.spec.lane = options.lane == "process"     ? Lane::kProcess
                      : options.lane == "node-warm" ? Lane::kNodeWarm
                                                    : Lane::kPythonZygote;
  options.spec.network = options.network == "none" ? Network::kNone : Network::kNamespace;
  options.spec.limits.memory_bytes = static_cast<std::int64_t>(options.memory_mib * (1 << 20));
  options.spec.limits.tmpfs_bytes = static_cast<std::int64_t>(options.tmpfs_mib * (1 << 20));
  options.spec.limits.milli_cpus = static_cast<std::int64_t>(options.cpus * 1000);
  CommandSpec command{.argv = options.command};
  command.limits = options.limits;
  command.limits.wall_ms = static_cast<std::int64_t>(options.wall_s * 1000);
  command.limits.cpu_ms = static_cast<std::int64_t>(options.cpu_s * 1000);
  if (!options.code_file.empty()) {
    CAPSTAN_TRY(command.code, read_file(options.code_file, 8 << 20));
  }
  if (options.spec.lane == Lane::kProcess) {
    command.stdin_fd = 0;
    command.stdout_fd = 1;
    command.stderr_fd = 2;
  }
  if (options.backend == "bubblewrap") {
    const LauncherOptions plain = launcher_options(options);
    return run_in_bubblewrap(options.spec, command, {.instance = plain.instance, .without = plain.without});
  }
  CAPSTAN_TRY(const auto launcher, Launcher::start(launcher_options(options)));
  return launcher->run(options.spec, command);
}

int run(Options& options) {
  const auto result = run_in(options);
  if (!result) return complain(result.error());
  std::fwrite(result->out.data(), 1, result->out.size(), stdout);
  std::fwrite(result->err.data(), 1, result->err.size(), stderr);
  if (result->ended != Ended::kExited || options.usage) {
    std::fprintf(stderr, "capstan: %s, exit code %d; %.1f ms wall, %.1f ms cpu, %.1f MiB peak%s\n",
                 ended_name(result->ended), result->exit_code,
                 static_cast<double>(result->usage.wall_us) / 1e3,
                 static_cast<double>(result->usage.cpu_us) / 1e3,
                 static_cast<double>(result->usage.memory_peak_bytes) / (1 << 20),
                 result->output_truncated ? ", output truncated" : "");
  }
  return result->exit_code;
}

}  // namespace

void add_sandbox(CLI::App& app, const cli::Globals& globals, int& exit_code) {
  CLI::App* sandbox =
      app.add_subcommand("sandbox", "Run programs that nobody trusts, on this machine (as root)");
  sandbox->require_subcommand(1);
  auto options = std::make_shared<Options>();  // shared by the options and the callbacks
  CLI::App* checks =
      sandbox->add_subcommand("check", "What this host can enforce; exit code 1 if something is missing");
  CLI::App* runs =
      sandbox->add_subcommand("run", "Run a command in a sandbox of its own; its exit code is the command's");
  for (CLI::App* each : {checks, runs}) {
    each->add_option("--without", options->without,
                     "do without this, if the host cannot enforce it (landlock, cgroup_memory, …)");
  }
  checks->callback([options, &globals, &exit_code] { exit_code = check(*options, cli::data_directory_of(globals.connection)); });
  runs->footer(
      "Example:\n  capstan sandbox run --memory 64 --wall 5 -- /bin/sh -c 'id; ls /'\n"
      "  capstan sandbox run --lane python-zygote --code task.py -- argument");
  runs->add_option("--lane", options->lane, "how it starts")
      ->check(CLI::IsMember({"process", "python-zygote", "node-warm"}))
      ->capture_default_str();
  runs->add_option(
          "--backend", options->backend,
          "launcher, or bubblewrap (needs --without cpu_time --without landlock --without tmpfs_inodes)")
      ->check(CLI::IsMember({"launcher", "bubblewrap"}))
      ->capture_default_str();
  runs->add_option("--code", options->code_file, "source file for the interpreter lanes")
      ->check(CLI::ExistingFile);
  runs->add_option("--network", options->network, "none, or a namespace with loopback only")
      ->check(CLI::IsMember({"none", "namespace"}))
      ->capture_default_str();
  runs->add_option("--memory", options->memory_mib, "MiB")->capture_default_str();
  runs->add_option("--tmpfs", options->tmpfs_mib, "MiB of files in /work, /tmp and /dev/shm")
      ->capture_default_str();
  runs->add_option("--inodes", options->spec.limits.tmpfs_inodes, "files there")->capture_default_str();
  runs->add_option("--cpus", options->cpus, "processors")->capture_default_str();
  runs->add_option("--pids", options->spec.limits.pids, "processes and threads")->capture_default_str();
  runs->add_option("--files", options->spec.limits.open_files, "open files per process")
      ->capture_default_str();
  runs->add_option("--wall", options->wall_s, "seconds")->capture_default_str();
  runs->add_option("--cpu-time", options->cpu_s, "seconds of processor time")->capture_default_str();
  runs->add_option("--bind", options->binds,
                   "HOST:INSIDE, or HOST:INSIDE:rw with --host-uid; INSIDE below /work or /mnt");
  runs->add_option("--host-uid", options->spec.host_uid, "owner of what is written to writable binds");
  runs->add_option("--template", options->spec.template_root, "directory that becomes the root");
  runs->add_flag("--usage", options->usage, "say what it used");
  runs->add_option("command", options->command, "after --");
  runs->callback([options, &exit_code] { exit_code = run(*options); });
}

}  // namespace capstan::apps
