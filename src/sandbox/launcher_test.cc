// Goal: what the launcher promises, against the real kernel: programs run, limits bite and are named,
// sessions hold several commands, and nothing is left. Each test skips, by name, what this host cannot
// enforce.
#include "sandbox/launcher.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.h"
#include "sandbox/cgroup.h"
#include "sandbox/sandbox_testing.h"
#include "sandbox/wire.h"

namespace capstan::sandbox {
namespace {

class LauncherTest : public SandboxTest {
 protected:
  static CommandResult run(const std::string& script, const SandboxSpec& spec = {},
                           CommandLimits limits = {}) {
    auto result = launcher_->run(spec, {.argv = {"/bin/sh", "-c", script}, .limits = limits});
    EXPECT_TRUE(result) << result.error().message;
    return result ? *result : CommandResult{};
  }
};

TEST_F(LauncherTest, AProgramRunsAndItsOutputAndExitCodeComeBack) {
  const auto result = run("echo hello; echo oops >&2; exit 3");
  EXPECT_EQ(result.ended, Ended::kExited);
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_EQ(result.out, "hello\n");
  EXPECT_EQ(result.err, "oops\n");
  EXPECT_FALSE(result.output_truncated);
  EXPECT_GT(result.usage.cpu_us, 0);
  EXPECT_GT(result.usage.memory_peak_bytes, 0);
}

TEST_F(LauncherTest, InsideThereIsAnotherUserAnotherHostNameAndOnlyItsOwnProcesses) {
  const auto result = run(
      "id -u; hostname; echo $HOME; pwd; ls /proc > p; grep -c '^[0-9]' p; cat /proc/self/cgroup | cut -d: "
      "-f3 | sort -u");
  EXPECT_EQ(result.out, "1000\nsandbox\n/work\n/work\n3\n/\n") << result.err;
}

// Goal: what a cgroup's last user had and did is not its next user's. Method: one after the other, so that
// groups are used again.
TEST_F(LauncherTest, ALimitAboveTheDefaultHoldsForItsSandboxOnlyAndUsageStartsAtNothing) {
  for (int i = 0; i < 2; ++i) {
    const SandboxSpec large{.limits = {.memory_bytes = 320 << 20}},
        little{.limits = {.memory_bytes = 48 << 20}};
    EXPECT_EQ(run("head -c 270m /dev/zero | tail > /dev/null", large).ended, Ended::kExited);
    EXPECT_EQ(run("head -c 80m /dev/zero | tail > /dev/null", little).ended, Ended::kMemory);
    const auto small = run("true");
    EXPECT_EQ(small.ended, Ended::kExited);
    EXPECT_LT(small.usage.memory_peak_bytes, 32 << 20);
    EXPECT_LT(small.usage.cpu_us, 1'000'000);
  }
}

// Goal: ready ones of a shape serve it like any other, and one that was killed while it waited is not handed
// out.
TEST_F(LauncherTest, SandboxesOfARepeatedShapeAreWhatTheirSpecSays) {
  const SandboxSpec shape{.limits = {.tmpfs_bytes = 1 << 20}, .hostname = "shape"};
  for (int i = 0; i < 12; ++i) {
    const auto result = run("hostname; head -c 2m /dev/zero > /tmp/a", shape);
    EXPECT_EQ(result.out, "shape\n");
    EXPECT_NE(result.err.find("No space left"), std::string::npos) << result.err;
  }
}

// Goal: the one way out of a network namespace is the socket that the owner holds, and nobody inside has it.
TEST_F(LauncherTest, ASocketThatListensInsideIsHandedToTheOwnerOnly) {
  const SandboxSpec spec{.network = Network::kNamespace, .listen_port = 3128};
  for (int i = 0; i < 3; ++i) {  // a ready one of this shape, too
    const auto box = launcher_->create(spec);
    ASSERT_TRUE(box) << box.error().message;
    const Fd listener((*box)->take_listener());
    ASSERT_TRUE(listener);
    EXPECT_EQ((*box)->take_listener(), -1);
    CommandSpec talk{.argv = {"/bin/bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/3128; echo in >&3; cat <&3; ls /proc/1/fd"}};
    const auto command = (*box)->start(talk);
    ASSERT_TRUE(command);
    pollfd ready{listener.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&ready, 1, 10'000), 1);
    Fd peer(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    char heard[3];
    ASSERT_EQ(::read(peer.get(), heard, sizeof heard), 3);
    ASSERT_EQ(::write(peer.get(), "out\n", 4), 4);
    peer.reset();
    const auto result = (*command)->wait();
    ASSERT_TRUE(result);
    EXPECT_EQ(result->out, "out\n") << result->err;  // what process 1 holds is not to be seen
    const auto other = (*box)->run({.argv = {"/bin/bash", "-c", "exec 3<>/dev/tcp/192.0.2.1/80"}});
    ASSERT_TRUE(other);
    EXPECT_NE(other->err.find("unreachable"), std::string::npos) << other->err;
  }
  EXPECT_FALSE(launcher_->create({.listen_port = 3128}));
  EXPECT_FALSE(launcher_->run(spec, {.argv = {"/bin/true"}}));
}

TEST_F(LauncherTest, AProgramThatDoesNotExistIsAnErrorWithItsReason) {
  const auto result = launcher_->run({}, {.argv = {"/no/such/program"}});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Code::kNotFound);
  EXPECT_EQ(result.error().message, "cannot run the program: No such file or directory");
}

TEST_F(LauncherTest, ASignalIsReportedAsAShellWould) {
  const auto result = run("kill -SEGV $$");
  EXPECT_EQ(result.ended, Ended::kSignalled);
  EXPECT_EQ(result.signal, SIGSEGV);
  EXPECT_EQ(result.exit_code, 128 + SIGSEGV);
}

TEST_F(LauncherTest, AMemoryBombEndsAtItsLimitAndIsReportedAsMemory) {
  const auto result = run("head -c 200m /dev/zero | tail", {.limits = {.memory_bytes = 32 << 20}});
  EXPECT_EQ(result.ended, Ended::kMemory);
  EXPECT_LE(result.usage.memory_peak_bytes, 32 << 20);
}

TEST_F(LauncherTest, FilesInMemoryCountAsMemoryAndMeetTheirOwnLimits) {
  EXPECT_NE(
      run("head -c 2m /dev/zero > /tmp/a", {.limits = {.tmpfs_bytes = 1 << 20}}).err.find("No space left"),
      std::string::npos);
  const auto inodes = run("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do : > /work/$i || exit 9; done",
                          {.limits = {.tmpfs_inodes = 10}});
  EXPECT_NE(inodes.exit_code, 0);
  const auto bomb = run("head -c 100m /dev/zero > /dev/shm/a; exit 0",
                        {.limits = {.memory_bytes = 32 << 20, .tmpfs_bytes = 1 << 30}});
  EXPECT_LE(bomb.usage.memory_peak_bytes, 32 << 20);
}

TEST_F(LauncherTest, ForksBeyondTheLimitFail) {
  const auto result =
      run("for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait", {.limits = {.pids = 4}}, {.wall_ms = 3000});
  EXPECT_NE(result.err.find("Cannot fork"), std::string::npos) << result.err;
}

TEST_F(LauncherTest, WallTimeEndsAProgramThatIgnoresEverything) {
  const auto result = run("trap '' TERM INT HUP; while :; do sleep 1; done", {}, {.wall_ms = 300});
  EXPECT_EQ(result.ended, Ended::kWallTime);
  EXPECT_EQ(result.exit_code, 137);
  EXPECT_GE(result.usage.wall_us, 300'000);
}

TEST_F(LauncherTest, CpuTimeCountsAllProcessesTogether) {
  const auto result = run("for i in 1 2 3 4; do (while :; do :; done) & done; wait",
                          {.limits = {.milli_cpus = 2000}}, {.wall_ms = 20'000, .cpu_ms = 400});
  EXPECT_EQ(result.ended, Ended::kCpuTime);
  EXPECT_GE(result.usage.cpu_us, 400'000);
}

TEST_F(LauncherTest, OutputBeyondItsLimitIsTruncatedAndMarked) {
  const auto result = run("head -c 3m /dev/zero; echo done >&2", {}, {.output_bytes = 1000});
  EXPECT_EQ(result.ended, Ended::kExited);
  EXPECT_EQ(result.out.size() + result.err.size(), 1000u);
  EXPECT_TRUE(result.output_truncated);
  EXPECT_EQ(result.usage.output_bytes, (3 << 20) + 5);
}

TEST_F(LauncherTest, AFloodOfOutputEndsTheProgram) {
  const auto result = run("yes", {}, {.output_bytes = 1000, .output_bytes_max = 4 << 20});
  EXPECT_EQ(result.ended, Ended::kOutput);
}

TEST_F(LauncherTest, ADaemonThatHoldsOutputOpenDelaysNothingAndIsGone) {
  const auto result = run("setsid sh -c 'sleep 100' & echo started", {}, {.wall_ms = 20'000});
  EXPECT_EQ(result.ended, Ended::kExited);
  EXPECT_EQ(result.out, "started\n");
}

TEST_F(LauncherTest, ReadOnlyAndWritableDirectoriesAreBoundIn) {
  const auto directory = std::filesystem::temp_directory_path() / ("capstan-bind-" + random_hex(4));
  std::filesystem::create_directories(directory);
  ASSERT_TRUE(write_file_atomic(directory / "in", "input"));
  ASSERT_EQ(::chown(directory.c_str(), 54321, 54321), 0);
  SandboxSpec spec{.binds = {{directory, "/mnt/in", false}, {directory, "/work/deep/out", true}},
                   .host_uid = 54321};
  const auto result = run("cat /mnt/in/in; echo x > /mnt/in/y; cp /mnt/in/in /work/deep/out/copy", spec);
  EXPECT_EQ(result.out, "input") << result.err;
  EXPECT_NE(result.err.find("Read-only"), std::string::npos) << result.err;
  EXPECT_EQ(read_file(directory / "copy").value_or(""), "input");
  std::filesystem::remove_all(directory);
  spec.host_uid = 0;
  EXPECT_EQ(launcher_->run(spec, {.argv = {"true"}}).error().code, Code::kInvalid);
}

TEST_F(LauncherTest, ALongLivedSandboxRunsSeveralCommandsInTheSameRoot) {
  auto box = launcher_->create({});
  ASSERT_TRUE(box) << box.error().message;
  EXPECT_EQ((*box)->run({.argv = {"sh", "-c", "echo kept > file"}})->exit_code, 0);
  const auto daemon = (*box)->run({.argv = {"sh", "-c", "sleep 100 >/dev/null 2>&1 & echo $! > pid"}});
  EXPECT_EQ(daemon->exit_code, 0);
  const auto second = (*box)->run({.argv = {"sh", "-c", "cat file; kill -0 $(cat pid) && echo alive"}});
  EXPECT_EQ(second->out, "kept\nalive\n") << second->err;
  const auto both =
      (*box)->start({.argv = {"sh", "-c", "while [ ! -e go ]; do sleep 0.01; done; echo went"}});
  ASSERT_TRUE(both);
  EXPECT_EQ((*box)->run({.argv = {"touch", "go"}})->exit_code, 0);
  EXPECT_EQ((*both)->wait()->out, "went\n");
  const auto bomb = (*box)->run(
      {.argv = {"sh", "-c", "head -c 200m /dev/zero | tail"}, .limits = {.memory_bytes = 16 << 20}});
  EXPECT_EQ(bomb->ended, Ended::kMemory);
  const auto slow = (*box)->run({.argv = {"sleep", "100"}, .limits = {.wall_ms = 100}});
  EXPECT_EQ(slow->ended, Ended::kWallTime);
  EXPECT_TRUE((*box)->alive());
  EXPECT_GT((*box)->usage()->cpu_us, 0);
  EXPECT_GT((*box)->usage()->memory_bytes, 0);
}

TEST_F(LauncherTest, AFrozenSandboxStandsStillUntilItIsThawed) {
  auto box = launcher_->create({});
  ASSERT_TRUE(box) << box.error().message;
  auto counting =
      (*box)->start({.argv = {"sh", "-c", "i=0; while :; do i=$((i+1)); echo $i > n; sleep 0.005; done"}});
  ASSERT_TRUE(counting);
  const auto number = [&] {
    const int fd = ::openat((*box)->root_fd(), "work/n", O_RDONLY | O_CLOEXEC);
    char text[32] = {};
    (void)!::read(fd, text, sizeof text - 1);
    ::close(fd);
    return std::atoi(text);
  };
  for (int i = 0; i < 5000 && number() < 5; ++i) ::usleep(1000);
  ASSERT_GE(number(), 5);
  ASSERT_TRUE((*box)->freeze());
  ::usleep(20'000);
  const int frozen = number();
  ::usleep(60'000);
  EXPECT_EQ(number(), frozen);
  ASSERT_TRUE((*box)->thaw());
  for (int i = 0; i < 5000 && number() <= frozen; ++i) ::usleep(1000);
  EXPECT_GT(number(), frozen);
  (*counting)->signal(SIGTERM);
  const auto ended = (*counting)->wait();
  EXPECT_EQ(ended->ended, Ended::kSignalled);
  EXPECT_EQ(ended->signal, SIGTERM);
}

TEST_F(LauncherTest, KillEndsACommandOrTheWholeSandboxAndSaysSo) {
  auto box = launcher_->create({});
  ASSERT_TRUE(box) << box.error().message;
  auto one = (*box)->start({.argv = {"sleep", "100"}});
  auto other = (*box)->start({.argv = {"sleep", "100"}});
  (*one)->kill();
  EXPECT_EQ((*one)->wait()->ended, Ended::kKilled);
  (*box)->kill();
  EXPECT_EQ((*other)->wait()->ended, Ended::kKilled);
  EXPECT_FALSE((*box)->run({.argv = {"true"}}));
}

TEST_F(LauncherTest, AWrongSpecIsRefusedWithWhatWouldBeRight) {
  EXPECT_NE(launcher_->run({.uid = 0}, {.argv = {"true"}}).error().message.find("1000"), std::string::npos);
  EXPECT_NE(launcher_->run({}, {.argv = {}}).error().message.find("argv"), std::string::npos);
  EXPECT_EQ(launcher_->run({.limits = {.memory_bytes = 1}}, {.argv = {"true"}}).error().code, Code::kInvalid);
  EXPECT_EQ(launcher_->run({.binds = {{"/tmp", "/etc/x"}}}, {.argv = {"true"}}).error().code, Code::kInvalid);
  EXPECT_EQ(launcher_->run({.template_root = "/no/such"}, {.argv = {"true"}}).error().code, Code::kNotFound);
}

// Goal: a command line and an environment beyond one packet arrive whole.
TEST_F(LauncherTest, ALargeEnvironmentArrives) {
  CommandSpec command{.argv = {"/bin/sh", "-c", "echo ${#BIG}"}, .env = {"BIG=" + std::string(100'000, 'x')}};
  EXPECT_EQ(launcher_->run({}, command)->out, "100000\n");
}

TEST_F(LauncherTest, AtItsEndALauncherTakesItsCgroupsAlongAndThoseOfOneThatWasKilled) {
  for (const bool killed : {false, true}) {
    const std::string instance = "end-" + random_hex(4);
    auto launcher = Launcher::start({.instance = instance});
    ASSERT_TRUE(launcher) << launcher.error().message;
    const Cgroups cgroups = Cgroups::detect("sandbox-" + instance);
    const auto running = (*launcher)->start({}, {.argv = {"/bin/sleep", "50"}});
    ASSERT_TRUE(running) << running.error().message;
    if (killed) ::kill((*launcher)->process_id(), SIGKILL);
    launcher->reset();
    EXPECT_EQ((*running)->wait()->ended, Ended::kLost);
    for (const auto& base : cgroups.bases()) EXPECT_NE(::access(base.directory.c_str(), F_OK), 0) << killed;
  }
}

TEST_F(LauncherTest, WithANetworkNamespaceLoopbackWorksAndNothingElse) {
  const auto result =
      run("cat /proc/net/dev | tail -n +3 | cut -d: -f1 | tr -d ' '", {.network = Network::kNamespace});
  EXPECT_EQ(result.out, "lo\n");
}

TEST_F(LauncherTest, NodeSourceRunsInAProcessThatWasStartedAheadAndServesOnce) {
  if (::access("/usr/bin/node", X_OK) != 0) GTEST_SKIP() << "/usr/bin/node is not installed";
  const SandboxSpec spec{.lane = Lane::kNodeWarm, .tenant = "t"};
  CommandSpec command{.argv = {"one"}, .env = {"A=b"}};
  command.limits.wall_ms = 50'000;
  command.code =
      "console.log(process.argv[2], process.env.A, typeof require('fs').readFileSync, globalThis.seen);\n"
      "globalThis.seen = 1; process.exit(5);";
  for (int i = 0; i < 3; ++i) {
    const auto result = launcher_->run(spec, command);
    ASSERT_TRUE(result) << result.error().message;
    EXPECT_EQ(result->out, "one b function undefined\n") << result->err;
    EXPECT_EQ(result->exit_code, 5);
  }
  command.code = "for (;;) {}";
  command.limits.wall_ms = 100;
  EXPECT_EQ(launcher_->run(spec, command)->ended, Ended::kWallTime);
}

}  // namespace
}  // namespace capstan::sandbox
