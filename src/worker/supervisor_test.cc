// Ranks with real processes: each test has its own data directory, and the shim is the real binary.
#include "worker/supervisor.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <fstream>

#include "base/file.h"
#include "base/text.h"

namespace capstan::worker {
namespace {

namespace fs = std::filesystem;

// One worker's insides over a data directory; a second one over the same directory is "the next worker".
struct House {
  explicit House(const fs::path& path, bool with_cgroups)
      : data(DataDirectory::open(path).value()),
        cgroups(with_cgroups ? sandbox::Cgroups::detect("test-" + path.filename().string())
                             : sandbox::Cgroups::detect_in({}, "none")),
        launcher(data, {path, data.owner(), "", ""}, cgroups, CAPSTAN_SHIM_BINARY),
        supervisor(std::make_unique<Supervisor>(RankStore(data.ranks_fd()), launcher, reports)) {}
  ~House() {
    supervisor.reset();
    cgroups.remove_instance();
  }

  DataDirectory data;
  sandbox::Cgroups cgroups;
  Launcher launcher;
  ReportQueue reports;
  std::unique_ptr<Supervisor> supervisor;
};

class SupervisorTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    path_ = fs::temp_directory_path() / ("capstan-worker-" + random_hex(6));
    fs::create_directories(path_);
    fs::permissions(path_, fs::perms::all);  // another user may own the job directory
    house_ = std::make_unique<House>(path_, GetParam());
  }
  void TearDown() override {
    for (const auto& rank : house_->supervisor->ranks()) house_->supervisor->stop(rank.id, 0, "end of test");
    EXPECT_TRUE(house_->supervisor->wait_all_ended(20'000));
    house_.reset();
    fs::remove_all(path_);
  }

  // The next worker: the old one's memory is gone, its ranks run on.
  void replace_worker() {
    house_ = std::make_unique<House>(path_, GetParam());
    ASSERT_TRUE(house_->supervisor->adopt());
  }

  Json effect(const RankId& id, const std::string& script) const {
    return Json::object({{"job", id.job},
                         {"attempt", id.attempt},
                         {"rank", id.rank},
                         {"name", "work"},
                         {"kind", "job"},
                         {"command", Json::array({"/bin/sh", "-c", script})},
                         {"grace_ms", 5000},
                         {"user", user_},
                         {"workdir", "/"},
                         {"log_bytes_max", 1 << 20}});
  }
  void start(const RankId& id, const std::string& script) { house_->supervisor->start(effect(id, script)); }

  // The first report of a type for a rank; waits at most 10 s.
  Json report(const RankId& id, const std::string& type) {
    for (int i = 0; i < 2000; ++i) {
      for (const Json& report : house_->reports.oldest()) {
        if (report.get_string("type") == type && RankId::from_json(report).value() == id) return report;
      }
      ::usleep(5'000);
    }
    ADD_FAILURE() << "no " << type << " for " << id.text();
    return Json::object();
  }
  std::string log_text(const RankId& id) const {
    return read_file(path_ / "logs" / std::to_string(id.job) / std::to_string(id.attempt) /
                     (std::to_string(id.rank) + ".log"))
        .value_or("");
  }
  void wait_for_log(const RankId& id, const std::string& text) const {
    for (int i = 0; i < 2000 && log_text(id).find(text) == std::string::npos; ++i) ::usleep(5'000);
    ASSERT_NE(log_text(id).find(text), std::string::npos) << log_text(id);
  }
  pid_t shim_pid(const RankId& id) const {
    return static_cast<pid_t>(RankStore(house_->data.ranks_fd()).shim(id)->get_int("pid").value());
  }
  static bool alive(pid_t pid) { return shim::start_ticks(pid) != 0; }
  static bool gone_soon(pid_t pid) {
    for (int i = 0; i < 1000 && alive(pid); ++i) ::usleep(5'000);
    return !alive(pid);
  }
  // The pid that a script wrote as "NAME=PID" into its log.
  pid_t pid_in_log(const RankId& id, const std::string& name) {
    wait_for_log(id, name + "=");
    ::usleep(20'000);
    const std::string text = log_text(id);
    const std::size_t at = text.find(name + "=") + name.size() + 1;
    return static_cast<pid_t>(std::atoi(text.c_str() + at));
  }

  std::string user_ = ::geteuid() == 0 ? "root" : "";
  fs::path path_;
  std::unique_ptr<House> house_;
};

INSTANTIATE_TEST_SUITE_P(Host, SupervisorTest, ::testing::Bool(), [](const auto& info) {
  return std::string(info.param ? "WithCgroups" : "WithoutCgroups");
});

TEST_P(SupervisorTest, AnExitCodeAndTheOutputAreKept) {
  start({1, 1, 0}, "echo out; echo err >&2; exit 7");
  report({1, 1, 0}, "rank_started");
  const Json end = report({1, 1, 0}, "rank_exited");
  EXPECT_EQ(end.get_int("exit_code"), 7);
  EXPECT_EQ(end.get_bool("lost"), false);
  EXPECT_EQ(end.get_bool("stopped"), false);
  EXPECT_EQ(log_text({1, 1, 0}), "out\nerr\n");
}

TEST_P(SupervisorTest, ASignalIsReportedAsSuch) {
  start({1, 1, 0}, "kill -SEGV $$");
  EXPECT_EQ(report({1, 1, 0}, "rank_exited").get_int("signal"), SIGSEGV);
}

TEST_P(SupervisorTest, AMissingProgramIsAFailedStartThatNamesIt) {
  Json bad = effect({1, 1, 0}, "");
  bad["command"] = Json::array({"/no/such/program"});
  house_->supervisor->start(bad);
  const Json failed = report({1, 1, 0}, "rank_start_failed");
  EXPECT_EQ(failed.get_string("message"), "cannot execute '/no/such/program': No such file or directory");
  EXPECT_EQ(failed.get_bool("retryable"), false);
  for (const Json& each : house_->reports.oldest()) EXPECT_NE(each.get_string("type"), "rank_started");
}

TEST_P(SupervisorTest, ARankIsStartedOnceHoweverOftenItIsAsked) {
  const std::string file = (path_ / "starts").string();
  for (int i = 0; i < 3; ++i) start({1, 1, 0}, "echo started >> " + file);
  report({1, 1, 0}, "rank_exited");
  start({1, 1, 0}, "echo started >> " + file);
  replace_worker();
  start({1, 1, 0}, "echo started >> " + file);
  ::usleep(100'000);
  EXPECT_EQ(read_file(file).value(), "started\n");
}

TEST_P(SupervisorTest, AStopIsATermThatTheRankCanHandle) {
  start({1, 1, 0}, "trap 'echo saving; exit 75' TERM; echo ready; while :; do sleep 0.05; done");
  wait_for_log({1, 1, 0}, "ready");
  house_->supervisor->stop({1, 1, 0}, 5000, "test");
  const Json end = report({1, 1, 0}, "rank_exited");
  EXPECT_EQ(end.get_int("exit_code"), 75);
  EXPECT_EQ(end.get_bool("stopped"), true);
}

TEST_P(SupervisorTest, ARankThatIgnoresTheTermIsKilledAfterTheGrace) {
  start({1, 1, 0}, "trap '' TERM; echo ready; while :; do sleep 0.05; done");
  wait_for_log({1, 1, 0}, "ready");
  const std::int64_t before = shim::monotonic_ms();
  house_->supervisor->stop({1, 1, 0}, 300, "test");
  EXPECT_EQ(report({1, 1, 0}, "rank_exited").get_int("signal"), SIGKILL);
  EXPECT_GE(shim::monotonic_ms() - before, 300);
}

TEST_P(SupervisorTest, ATimeoutStopsTheRankAndSaysSo) {
  Json limited = effect({1, 1, 0}, "sleep 1000");
  limited["timeout_ms"] = 200;
  house_->supervisor->start(limited);
  const Json end = report({1, 1, 0}, "rank_exited");
  EXPECT_EQ(end.get_int("signal"), SIGTERM);
  EXPECT_EQ(end.get_string("message"), "stopped: it ran longer than its timeout");
}

// Goal: a daemon that left its parents, session and group still ends with its rank, before the end is
// reported.
TEST_P(SupervisorTest, DaemonisedGrandchildrenEndWithTheirRank) {
  start({1, 1, 0},
        "setsid sh -c '(trap \"\" TERM HUP; echo daemon=$(exec sh -c \"echo \\$PPID\"); exec sleep 1000) &' "
        "& sleep 0.3; exit 3");
  const pid_t daemon = pid_in_log({1, 1, 0}, "daemon");
  EXPECT_EQ(report({1, 1, 0}, "rank_exited").get_int("exit_code"), 3);
  EXPECT_FALSE(alive(daemon));
}

// Goal: the worker's death is not noticed by ranks; the next worker knows those that run and those that
// ended.
TEST_P(SupervisorTest, TheNextWorkerAdoptsWhatRunsAndKnowsWhatEnded) {
  start({1, 1, 0}, "echo ready; while [ ! -e " + (path_ / "go").string() + " ]; do sleep 0.05; done; exit 5");
  start({1, 1, 1}, "exit 6");
  wait_for_log({1, 1, 0}, "ready");
  report({1, 1, 1}, "rank_exited");
  replace_worker();
  EXPECT_EQ(report({1, 1, 1}, "rank_exited").get_int("exit_code"), 6);
  report({1, 1, 0}, "rank_started");
  EXPECT_EQ(house_->supervisor->state_of({1, 1, 0}), RankState::kRunning);
  std::ofstream(path_ / "go") << "1";
  EXPECT_EQ(report({1, 1, 0}, "rank_exited").get_int("exit_code"), 5);
}

TEST_P(SupervisorTest, AnAdoptedRankCanBeStopped) {
  start({1, 1, 0}, "echo ready; exec sleep 1000");
  wait_for_log({1, 1, 0}, "ready");
  replace_worker();
  house_->supervisor->stop({1, 1, 0}, 5000, "test");
  EXPECT_EQ(report({1, 1, 0}, "rank_exited").get_int("signal"), SIGTERM);
}

// Goal: a rank that ends while no worker lives leaves its code behind.
TEST_P(SupervisorTest, AnExitBetweenTwoWorkersIsKnown) {
  start({1, 1, 0}, "echo ready; sleep 0.4; exit 9");
  wait_for_log({1, 1, 0}, "ready");
  house_.reset();
  ::usleep(600'000);
  house_ = std::make_unique<House>(path_, GetParam());
  ASSERT_TRUE(house_->supervisor->adopt());
  EXPECT_EQ(report({1, 1, 0}, "rank_exited").get_int("exit_code"), 9);
}

// Goal: SIGKILL to a shim ends its rank, daemons included, and the rank is reported as lost, only then.
TEST_P(SupervisorTest, AKilledShimLosesItsRankAndLeavesNothingRunning) {
  start({1, 1, 0}, "setsid sleep 1000 & echo daemon=$!; echo main=$$; exec sleep 1000");
  const pid_t daemon = pid_in_log({1, 1, 0}, "daemon");
  const pid_t main = pid_in_log({1, 1, 0}, "main");
  report({1, 1, 0}, "rank_started");
  ::kill(shim_pid({1, 1, 0}), SIGKILL);
  const Json end = report({1, 1, 0}, "rank_exited");
  EXPECT_EQ(end.get_bool("lost"), true);
  EXPECT_EQ(end.get_int("exit_code"), std::nullopt);
  EXPECT_FALSE(alive(daemon));
  EXPECT_FALSE(alive(main));
}

TEST_P(SupervisorTest, AShimKilledBetweenTwoWorkersIsFoundToBeLost) {
  start({1, 1, 0}, "setsid sleep 1000 & echo daemon=$!; exec sleep 1000");
  const pid_t daemon = pid_in_log({1, 1, 0}, "daemon");
  const pid_t shim = shim_pid({1, 1, 0});
  house_.reset();
  ::kill(shim, SIGKILL);
  ::waitpid(shim, nullptr, 0);
  house_ = std::make_unique<House>(path_, GetParam());
  ASSERT_TRUE(house_->supervisor->adopt());
  EXPECT_EQ(report({1, 1, 0}, "rank_exited").get_bool("lost"), true);
  EXPECT_TRUE(gone_soon(daemon));
}

// Goal: a worker that dies between claim and start leaves a claim that no one starts, reported as a failed
// start.
TEST_P(SupervisorTest, AClaimWithoutAShimIsAFailedStartAndIsNeverStarted) {
  ASSERT_TRUE(RankStore(house_->data.ranks_fd())
                  .claim({4, 2, 1}, Json::object({{"effect", effect({4, 2, 1}, "echo ran")}})));
  replace_worker();
  const Json failed = report({4, 2, 1}, "rank_start_failed");
  EXPECT_EQ(failed.get_bool("retryable"), true);
  start({4, 2, 1}, "echo ran");
  ::usleep(100'000);
  EXPECT_EQ(log_text({4, 2, 1}), "");
}

TEST_P(SupervisorTest, AForgottenRankLeavesNoRecord) {
  start({1, 1, 0}, "sleep 0.2");
  house_->supervisor->forget({1, 1, 0});  // refused: it runs
  report({1, 1, 0}, "rank_exited");
  EXPECT_TRUE(fs::exists(path_ / "worker/ranks/1-1-0"));
  house_->supervisor->forget({1, 1, 0});
  EXPECT_FALSE(fs::exists(path_ / "worker/ranks/1-1-0"));
  EXPECT_TRUE(house_->supervisor->ranks().empty());
}

TEST_P(SupervisorTest, AStopOfAnUnknownRankIsAnsweredAsLost) {
  house_->supervisor->stop({9, 1, 0}, 0, "test");
  EXPECT_EQ(report({9, 1, 0}, "rank_exited").get_bool("lost"), true);
}

// Goal: the environment is what the controller said plus the documented additions, and no descriptor leaks
// in.
TEST_P(SupervisorTest, TheEnvironmentIsExactAndNoDescriptorLeaks) {
  ::setenv("SECRET_OF_THE_WORKER", "1", 1);
  Json with_env = effect({1, 1, 0},
                         "env | cut -d= -f1 | sort | tr '\\n' ' '; echo; ls /proc/self/fd | tr '\\n' ' '; "
                         "echo $WHERE; ulimit -c; "
                         "grep NoNewPrivs /proc/self/status");
  with_env["env"] =
      Json::object({{"RANK", "3"}, {"WHERE", "in ${CAPSTAN_JOB_DIR}"}, {"PATH", "/usr/bin:/bin"}});
  house_->supervisor->start(with_env);
  report({1, 1, 0}, "rank_exited");
  const std::string text = log_text({1, 1, 0});
  EXPECT_NE(
      text.find("CAPSTAN_JOB_DIR CAPSTAN_RANK_MARK CAPSTAN_SHARE HOME LANG PATH PWD RANK TMPDIR USER WHERE "),
      std::string::npos)
      << text;
  EXPECT_NE(text.find("0 1 2 3 in "), std::string::npos) << text;  // 3: the directory that ls reads
  EXPECT_NE(text.find("/jobs/work"), std::string::npos) << text;
  EXPECT_NE(text.find("NoNewPrivs:\t1"), std::string::npos) << text;
}

TEST_P(SupervisorTest, APortThatIsTakenIsARetryableFailedStart) {
  const Descriptor listener(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length);
  Json service = effect({1, 1, 0}, "exit 0");
  service["port"] = ntohs(address.sin_port);
  house_->supervisor->start(service);
  EXPECT_EQ(report({1, 1, 0}, "rank_start_failed").get_bool("retryable"), true);
}

TEST_P(SupervisorTest, AMemoryHogIsReportedAsOom) {
  if (!house_->cgroups.can("cgroup_memory")) GTEST_SKIP() << "cgroup_memory is not available on this host";
  Json hog = effect({1, 1, 0}, "exec dd if=/dev/zero of=/dev/null bs=200M count=1");
  hog["resources"] = Json::object({{"memory_bytes", 48 << 20}});
  house_->supervisor->start(hog);
  const Json end = report({1, 1, 0}, "rank_exited");
  EXPECT_EQ(end.get_bool("oom"), true);
  EXPECT_EQ(end.get_int("signal"), SIGKILL);
}

TEST_P(SupervisorTest, TheLogStaysWithinItsBound) {
  Json noisy =
      effect({1, 1, 0},
             "i=0; while [ $i -lt 3000 ]; do echo \"line $i "
             "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"; i=$((i+1)); done");
  noisy["log_bytes_max"] = 65536;
  house_->supervisor->start(noisy);
  report({1, 1, 0}, "rank_exited");
  std::uintmax_t bytes = 0;
  for (const auto& file : fs::directory_iterator(path_ / "logs/1/1")) bytes += fs::file_size(file);
  EXPECT_LE(bytes, 65536u);
  EXPECT_GT(bytes, 40000u);
  EXPECT_NE(log_text({1, 1, 0}).find("line 2999 "), std::string::npos);
}

// Goal: by default a root worker's ranks are not root, and have exactly the named user's rights.
TEST_P(SupervisorTest, ARankOfARootWorkerRunsAsTheNamedUser) {
  if (::geteuid() != 0) GTEST_SKIP() << "user_switch is not available: not root";
  user_ = "nobody";
  start({1, 1, 0}, "id -u; id -G; touch /etc/capstan-test-must-fail; echo $HOME $USER");
  report({1, 1, 0}, "rank_exited");
  EXPECT_EQ(log_text({1, 1, 0}).substr(0, 12), "65534\n65534\n") << log_text({1, 1, 0});
  user_ = "";
  start({1, 1, 1}, "id -u");
  report({1, 1, 1}, "rank_exited");
  EXPECT_EQ(log_text({1, 1, 1}), "65534\n");  // the data directory is root's: not root, but nobody
  user_ = "no-such-user-here";
  start({1, 1, 2}, "id -u");
  EXPECT_EQ(report({1, 1, 2}, "rank_start_failed").get_string("message"),
            "user 'no-such-user-here' does not exist on this host");
}

}  // namespace
}  // namespace capstan::worker
