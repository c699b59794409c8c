// How it works: pip writes to /work, which is memory of the sandbox; when it has ended, the sandbox stands still and the tree is
// copied (file_tree.h), so that whatever a package's build did, nothing of it is followed or run here.
#include "agents/sessions/pip.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <vector>

#include "agents/egress/egress.h"
#include "agents/sessions/file_tree.h"
#include "base/file.h"
#include "base/text.h"

namespace capstan::agents {
namespace {

constexpr std::string_view kWheelsInside = "/mnt/wheels";
constexpr std::size_t kLinesKept = 6, kLineBytesMax = 400;

// Debian keeps a wheel of pip for its virtual environments, which serves where python3-pip is not installed.
constexpr const char* kScript = R"(umask 022
command -v python3 >/dev/null || { echo "the root has no python3" >&2; exit 1; }
if python3 -c 'import pip' 2>/dev/null; then exec python3 -m pip "$@"; fi
for wheel in /usr/share/python-wheels/pip-*.whl; do
  [ -f "$wheel" ] && exec python3 "$wheel/pip" "$@"
done
echo "the root has no pip; Debian's python3-pip-whl would do" >&2
exit 1)";

// Login shells set PATH anew; bash reads this after that, unless a person types to it.
constexpr std::string_view kBashEnv = R"(case ":$PATH:" in *:/mnt/packages/bin:*) ;; *) PATH="/mnt/packages/bin:$PATH" ;; esac
)";

// The last lines of what arrives in pieces.
class Tail {
 public:
  explicit Tail(const std::function<void(std::string_view)>& on_line) : on_line_(on_line) {}
  void add(std::string_view piece) {
    const std::lock_guard lock(mutex_);
    for (const char c : piece) {
      if (c == '\n' || c == '\r')
        end_line();
      else if (line_.size() < kLineBytesMax)
        line_ += c;
    }
  }
  std::string text() {
    const std::lock_guard lock(mutex_);
    end_line();
    return fmt::format("{}", fmt::join(lines_, "\n"));
  }

 private:
  void end_line() {
    const std::string line(trim(line_));
    line_.clear();
    if (line.empty()) return;
    on_line_(line);
    lines_.push_back(line);
    if (lines_.size() > kLinesKept) lines_.erase(lines_.begin());
  }
  const std::function<void(std::string_view)>& on_line_;
  std::mutex mutex_;
  std::string line_;
  std::vector<std::string> lines_;
};

sandbox::BoxLimits limits() {
  const std::int64_t half = static_cast<std::int64_t>(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGESIZE) / 2;
  const std::int64_t bytes = std::min(kLayerBytesMax, half);
  return {.memory_bytes = bytes + (1LL << 30),
          .milli_cpus = 2000,
          .pids = 512,
          .tmpfs_bytes = bytes,
          .tmpfs_inodes = kLayerFilesMax,
          .open_files = 4096};
}

Result<std::unique_ptr<sandbox::Sandbox>> make_box(sandbox::Launcher& launcher, const Template& form) {
  sandbox::SandboxSpec spec{.limits = limits(), .template_root = form.root.string()};
  if (!form.packages.wheels.empty())
    spec.binds.push_back({.host_path = form.packages.wheels, .path = std::string(kWheelsInside)});
  if (!form.packages.index.empty()) {
    spec.network = sandbox::Network::kNamespace;
    spec.listen_port = kEgressPort;
  }
  return launcher.create(spec);
}

sandbox::CommandSpec command_of(const Template& form) {
  const PackageList& list = form.packages;
  sandbox::CommandSpec command{
      .argv = {"/bin/sh", "-c", kScript, "pip", "install", "--target", "/work/packages", "--no-input", "--no-cache-dir",
               "--disable-pip-version-check", "--no-warn-script-location", "--progress-bar", "off", "--retries", "2"},
      .env = {"HOME=/work", "TMPDIR=/tmp", "PIP_CONFIG_FILE=/dev/null"}};
  // The python3 that sessions find.
  if (const auto path = form.env.find("PATH"); path != form.env.end()) command.env.push_back("PATH=" + path->second);
  auto& argv = command.argv;
  if (!list.wheels.empty()) argv.insert(argv.end(), {"--find-links", std::string(kWheelsInside)});
  if (list.index.empty()) {
    argv.push_back("--no-index");
  } else {
    argv.insert(argv.end(), {"--index-url", list.index});
    // Who names an index without TLS means it.
    if (const auto url = http::parse_url(list.index); url && !url->tls)
      argv.insert(argv.end(), {"--trusted-host", fmt::format("{}:{}", url->host, url->port)});
    for (const char* name : {"http_proxy", "https_proxy"})
      command.env.push_back(fmt::format("{}=http://127.0.0.1:{}", name, kEgressPort));
  }
  argv.push_back("--");
  argv.insert(argv.end(), list.python.begin(), list.python.end());
  command.limits = {.wall_ms = kInstallMs, .cpu_ms = 2 * kInstallMs};
  return command;
}

Result<void> run_pip(sandbox::Sandbox& box, const Template& form, const std::function<void(std::string_view)>& progress,
                     std::stop_token stop) {
  Tail tail(progress);
  const auto on_output = [&](sandbox::Stream, std::string_view piece) { tail.add(piece); };
  CAPSTAN_TRY(const auto command, box.start(command_of(form), {.on_output = on_output, .on_end = {}}));
  const std::stop_callback kill(stop, [&] { command->kill(); });
  CAPSTAN_TRY(const sandbox::CommandResult result, command->wait());
  if (result.ended == sandbox::Ended::kExited && result.exit_code == 0) return {};
  if (result.ended != sandbox::Ended::kExited)
    return fail(Code::kUnavailable, "pip ended by {}: {}", sandbox::ended_name(result.ended), tail.text());
  return fail(Code::kUnavailable, "{}", tail.text());
}

Result<void> copy_out(sandbox::Sandbox& box, const std::filesystem::path& directory) {
  CAPSTAN_CHECK(write_file_atomic(directory / ".bash_env", kBashEnv, 0644));
  CAPSTAN_CHECK(box.freeze());
  const sandbox::Fd work(::openat(box.root_fd(), "work", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  const sandbox::Fd from(::openat(work.get(), "packages", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  const sandbox::Fd to(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!from || !to) return fail(Code::kUnavailable, "pip has installed nothing");
  CAPSTAN_CHECK(copy_tree(from.get(), to.get(),
                          {.owner = ::geteuid(), .bytes_max = kLayerBytesMax, .files_max = kLayerFilesMax}));
  return ::syncfs(to.get()) == 0 ? Result<void>{} : fail_errno("cannot write " + directory.string(), errno);
}

}  // namespace

Result<void> install_python(const PipWorld& world, const Template& form, const std::filesystem::path& directory,
                            const std::function<void(std::string_view line)>& progress, std::stop_token stop) {
  CAPSTAN_TRY(const auto box, make_box(world.launcher, form));
  std::shared_ptr<Egress> egress;  // shared with the loop
  if (sandbox::Fd listener(box->take_listener()); listener)
    egress = Egress::start(world.loop, world.lookups, std::move(listener), form.packages.allow);
  auto done = run_pip(*box, form, progress, stop);
  if (egress) egress->stop();
  if (!done) return done;
  return copy_out(*box, directory);
}

}  // namespace capstan::agents
