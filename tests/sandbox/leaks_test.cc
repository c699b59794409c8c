// Goal: after many runs of all kinds, with tasks, launchers, owners and whatever a launcher has for children
// killed at random, nothing is left: no cgroup, mount, descriptor, process, socket or file, and so no
// namespace, which only these hold. Method: random runs by seed, then a comparison with what was there
// before. This process takes the orphans of killed launchers, so that none is lost sight of; each must end by
// itself. RUNS sets how many (300; 10,000 in the slow test), SEED which.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <utility>

#include "base/file.h"
#include "base/prng.h"
#include "sandbox/cgroup.h"
#include "sandbox/launcher_link.h"

namespace capstan::sandbox {
namespace {

std::size_t entries(const char* directory) {
  std::size_t count = 0;
  for (std::filesystem::directory_iterator it(directory), end; it != end; ++it) ++count;
  return count;
}

// Living children of a process.
std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> children;
  const std::string task = std::to_string(parent);
  std::error_code error;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/" + task + "/task", error)) {
    std::ifstream file(thread.path() / "children");
    for (pid_t child = 0; file >> child;) children.push_back(child);
  }
  return children;
}

constexpr int kDepthMax = 3;

// Files where programs put what is temporary that are named as the instance, or that a user of its sandboxes
// owns.
void look_for_files(const std::string& instance, const std::filesystem::path& expected,
                    std::set<std::string>& files) {
  const std::uint32_t uids = host_uid_first(instance);
  constexpr auto kQuietly = std::filesystem::directory_options::skip_permission_denied;
  for (const char* directory : {"/tmp", "/var/tmp", "/dev/shm", "/run"}) {
    std::error_code error;  // others come and go meanwhile
    for (std::filesystem::recursive_directory_iterator it(directory, kQuietly, error), end;
         !error && it != end; it.increment(error)) {
      if (it->path() == expected || it.depth() == kDepthMax) it.disable_recursion_pending();
      if (it->path() == expected) continue;
      struct stat status {};
      const bool owned = ::lstat(it->path().c_str(), &status) == 0 && status.st_uid - uids < kUidsPerLauncher;
      if (owned || it->path().filename().string().find(instance) != std::string::npos)
        files.insert(it->path());
    }
  }
}

// What belongs to this test's launchers, by name, on the whole machine.
struct Left {
  std::set<std::string> processes, cgroups, files, sockets;
  std::size_t mounts = 0, descriptors = 0;
};

// The folder is the test's own, named as the instance; what launchers and their users make for themselves for
// a while goes below its temporary/.
Left look(const Cgroups& cgroups, const std::filesystem::path& folder, const std::string& instance) {
  Left left;
  const std::string program = folder / "capstan-sandbox";
  look_for_files(instance, folder, left.files);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder))
    left.files.insert(entry.path());
  std::ifstream sockets("/proc/net/unix");
  for (std::string line; std::getline(sockets, line);) {
    if (line.find(instance) != line.npos) left.sockets.insert(line.substr(line.rfind(' ') + 1));
  }
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::error_code error;
    const auto executable = std::filesystem::read_symlink(entry.path() / "exe", error);
    if (!error && executable == program) left.processes.insert(entry.path().filename());
  }
  for (const auto& base : cgroups.bases()) {
    std::error_code error;
    if (std::filesystem::exists(base.directory)) left.cgroups.insert(base.directory);
    for (const auto& entry : std::filesystem::directory_iterator(base.directory, error)) {
      if (entry.is_directory()) left.cgroups.insert(entry.path());
    }
  }
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) ++left.mounts;
  left.descriptors = entries("/proc/self/fd");
  return left;
}

class Chaos {
 public:
  Chaos(std::uint64_t seed, LauncherOptions options) : random_(seed), options_(std::move(options)) {}

  void run(int runs) {
    start();
    for (int i = 0; i < runs && !testing::Test::HasFatalFailure(); ++i) {
      const auto dice = random_.below(100);
      if (dice < 70)
        one_command();
      else if (dice < 94)
        session();
      else if (dice < 96)
        kill_child_of_launcher();
      else if (dice < 99)
        kill_launcher();
      else
        kill_owner();
      // Not all at the end: orphans that nobody waits for use up the machine's process numbers.
      for (const pid_t child : children_of(::getpid())) {
        if (child != launcher_->process_id()) ::waitpid(child, nullptr, WNOHANG);
      }
    }
    launcher_.reset();
  }

 private:
  void start() {
    launcher_.reset();
    auto started = Launcher::start(options_);
    ASSERT_TRUE(started) << started.error().message;
    launcher_ = std::move(*started);
  }

  CommandSpec command() {
    constexpr const char* kScripts[] = {"true",
                                        "exit 7",
                                        "sleep 0.02",
                                        "setsid sleep 50 & true",
                                        "sleep 50",
                                        "echo x > /tmp/f; kill -9 $$",
                                        "mkfifo /work/p; echo x > /dev/shm/f; sleep 0.01"};
    CommandSpec spec{.argv = {"/bin/sh", "-c", kScripts[random_.below(std::size(kScripts))]}};
    spec.limits.wall_ms = 1 + static_cast<std::int64_t>(random_.below(60));
    return spec;
  }

  SandboxSpec sandbox() {
    SandboxSpec spec{.network = random_.below(4) == 0 ? Network::kNamespace : Network::kNone};
    if (random_.below(4) == 0) spec.limits.memory_bytes = 300 << 20;
    if (random_.below(8) == 0) spec.binds = {{"/usr/share", "/mnt/share", false}};
    return spec;
  }

  CommandSpec code() {
    constexpr const char* kSources[] = {
        "pass", "raise SystemExit(3)", "import time; time.sleep(50)",
        "import os\nif os.fork() == 0: os.setsid(); os.execv('/bin/sleep', ['x', '50'])",
        "import os; os.kill(os.getpid(), 9)"};
    CommandSpec spec = command();
    spec.argv.clear();
    spec.code = kSources[random_.below(std::size(kSources))];
    return spec;
  }

  void one_command() {
    const bool python = random_.below(5) == 0 && ::access("/usr/bin/python3", X_OK) == 0;
    SandboxSpec spec = sandbox();
    if (python) spec.lane = Lane::kPythonZygote, spec.tenant = random_.below(2) == 0 ? "one" : "two";
    auto started = launcher_->start(spec, python ? code() : command());
    ASSERT_TRUE(started) << started.error().message;
    if (random_.below(4) == 0) {
      ::usleep(static_cast<unsigned>(random_.below(5000)));
      (*started)->kill();
    }
    (void)(*started)->wait();
  }

  void session() {
    SandboxSpec spec;
    const bool python = random_.below(5) == 0 && ::access("/usr/bin/python3", X_OK) == 0;
    if (python) spec.lane = Lane::kPythonZygote;
    auto box = launcher_->create(spec);
    // Who has just killed a process that waited for its sandbox may be told so by the one that gets it.
    if (std::exchange(killed_, false) && !box) return;
    ASSERT_TRUE(box) << box.error().message;
    std::vector<std::unique_ptr<Command>> running;
    for (std::uint64_t n = random_.below(4); n > 0; --n) {
      auto started = (*box)->start(python ? code() : command());
      if (started) running.push_back(std::move(*started));
    }
    if (random_.below(3) == 0) (void)(*box)->freeze();
    if (random_.below(2) == 0)
      (*box)->kill();
    else
      (void)(*box)->thaw();
    for (auto& one : running) (void)one->wait();
  }

  // A first process, a runner, a warm interpreter; perhaps one that waits for its first use.
  void kill_child_of_launcher() {
    auto running = launcher_->start(sandbox(), command());
    ASSERT_TRUE(running) << running.error().message;
    const auto children = children_of(launcher_->process_id());
    if (!children.empty()) ::kill(children[random_.below(children.size())], SIGKILL);
    killed_ = true;
    (void)(*running)->wait();
  }

  // The launcher dies with sandboxes running; the next request starts another.
  void kill_launcher() {
    auto running = launcher_->start({}, {.argv = {"/bin/sleep", "50"}});
    auto box = launcher_->create({});
    ::kill(launcher_->process_id(), SIGKILL);
    ASSERT_TRUE(running && box);
    const auto result = (*running)->wait();
    EXPECT_TRUE(result && result->ended == Ended::kLost);
  }

  // A process that owns a launcher dies; a launcher of the same name then has the place.
  void kill_owner() {
    launcher_.reset();
    int ready[2];
    ASSERT_EQ(::pipe2(ready, O_CLOEXEC), 0);
    const pid_t owner = ::fork();
    if (owner == 0) {
      auto launcher = Launcher::start(options_);
      auto running =
          launcher ? (*launcher)->start({}, {.argv = {"/bin/sleep", "50"}}) : std::unexpected(Error{});
      (void)!::write(ready[1], running ? "y" : "n", 1);
      ::pause();
    }
    char answer = 0;
    (void)!::read(ready[0], &answer, 1);
    EXPECT_EQ(answer, 'y');
    ::kill(owner, SIGKILL);
    ::waitpid(owner, nullptr, 0);
    ::close(ready[0]);
    ::close(ready[1]);
    start();
  }

  Prng random_;
  LauncherOptions options_;
  std::unique_ptr<Launcher> launcher_;
  bool killed_ = false;  // a child of the launcher, since the last session
};

TEST(LeaksTest, NothingIsLeftAfterManyRunsWithRandomKills) {
  ASSERT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
  LauncherOptions options;
  options.instance = "leaks-" + random_hex(4);
  // A copy of the launcher under a name of its own, so that its processes can be told from all others.
  const auto folder = std::filesystem::temp_directory_path() / ("capstan-" + options.instance);
  options.program = folder / "capstan-sandbox";
  std::filesystem::create_directories(folder / "temporary");
  ::setenv("TMPDIR", (folder / "temporary").c_str(), 1);
  const auto built = std::filesystem::path(CAPSTAN_SANDBOX).parent_path();
  for (const char* name : {"capstan-sandbox", "libcapstan-python-zygote.so"})
    std::filesystem::copy_file(built / name, folder / name);
  const auto capabilities = check_host(options);
  ASSERT_TRUE(capabilities) << capabilities.error().message;
  if (const auto good = require(*capabilities, {}); !good) {
    std::filesystem::remove_all(folder);
    GTEST_SKIP() << good.error().message;
  }
  const Cgroups cgroups = Cgroups::detect("sandbox-" + options.instance);
  cgroups.remove_instance();
  const Left before = look(cgroups, folder, options.instance);
  const char* runs = std::getenv("RUNS");
  const char* seed = std::getenv("SEED");
  Chaos(seed != nullptr ? std::strtoull(seed, nullptr, 10) : 1, options)
      .run(runs != nullptr ? std::atoi(runs) : 300);
  // Those of killed launchers are taken down by the kernel, in its own time.
  Left after = look(cgroups, folder, options.instance);
  const auto reap = [] {
    while (::waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    return children_of(::getpid());
  };
  auto orphans = reap();
  for (int i = 0; i < 500 && !(after.processes.empty() && after.cgroups.empty() && after.sockets.empty() &&
                               orphans.empty());
       ++i) {
    ::usleep(10'000);
    after = look(cgroups, folder, options.instance);
    orphans = reap();
  }
  EXPECT_TRUE(orphans.empty()) << orphans.size() << " orphans live on";
  EXPECT_EQ(after.processes, before.processes);
  EXPECT_EQ(after.cgroups, before.cgroups);
  EXPECT_EQ(after.files, before.files);
  EXPECT_EQ(after.sockets, before.sockets);
  EXPECT_EQ(after.mounts, before.mounts);
  EXPECT_EQ(after.descriptors, before.descriptors);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace capstan::sandbox
