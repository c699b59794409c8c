// Goal: chunks of real tasks in real sandboxes: every way to end is told apart, nothing is lost or run twice
// over a worker's death. Method: a TaskRunner as the worker has it; the controller is this test. As root;
// else skipped by name.
#include "worker/tasks/task_runner.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "base/file.h"

namespace capstan::worker {
namespace {

namespace fs = std::filesystem;

class TaskRunnerTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "sandboxes need root";
    const auto capabilities = sandbox::check_host({.program = CAPSTAN_BIN "/capstan-sandbox"});
    ASSERT_TRUE(capabilities) << capabilities.error().message;
    if (const auto good = sandbox::require(*capabilities, {}); !good) GTEST_SKIP() << good.error().message;
    fs::create_directories(path_);
    auto data = DataDirectory::open(path_);
    ASSERT_TRUE(data) << data.error().message;
    data_.emplace(*std::move(data));
    begin();
  }
  void TearDown() override {
    runner_.reset();
    fs::remove_all(path_);
  }

  // A worker's life; the one before ends as abruptly as a destructor can.
  void begin() {
    runner_.reset();
    reports_ = std::make_unique<ReportQueue>();
    runner_ = std::make_unique<TaskRunner>(*data_, Places{path_, 0, CAPSTAN_BIN, {}},
                                           TaskRunnerOptions{instance_, CAPSTAN_BIN}, *reports_);
    const auto adopted = runner_->adopt();
    ASSERT_TRUE(adopted) << adopted.error().message;
  }

  Json effect(const std::string& sandbox, std::vector<std::string> command, std::int64_t count) {
    Json words = Json::array();
    for (auto& word : command) words.push_back(word);
    return Json::object({{"id", 1},
                         {"type", "start_rank"},
                         {"job", 1},
                         {"attempt", 1},
                         {"rank", 0},
                         {"name", "a"},
                         {"kind", "tasks"},
                         {"user", "root"},
                         {"command", words},
                         {"env", Json::object({{"X", "x{index}"}})},
                         {"resources", Json::object({{"milli_cpus", 1000}, {"memory_bytes", 64 << 20}})},
                         {"timeout_ms", 2000},
                         {"chunk", Json::object({{"first", 100},
                                                 {"count", count},
                                                 {"retries", retries_},
                                                 {"backoff_ms", 1},
                                                 {"sandbox", Json::parse(sandbox).value()}})}});
  }

  // The chunk's last report.
  Json end_of(const RankId& id) {
    for (int i = 0; i < 6'000; ++i) {
      for (const Json& report : reports_->oldest()) {
        if (report.get_int("rank") == id.rank && *report.get_string("type") != "rank_started") return report;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ADD_FAILURE() << "the chunk did not end";
    return Json::object();
  }
  Json run(const std::string& sandbox, std::vector<std::string> command, std::int64_t count) {
    runner_->start(effect(sandbox, std::move(command), count));
    return end_of({1, 1, 0});
  }
  std::map<std::int64_t, Json> results() {
    std::map<std::int64_t, Json> out;
    std::ifstream file(under_job("results-1-"));
    for (std::string line; std::getline(file, line);) {
      const auto json = Json::parse(line);
      EXPECT_TRUE(json) << line;
      if (!json) continue;
      EXPECT_TRUE(out.emplace(*json->get_int("index"), *json).second) << "twice: " << line;
    }
    return out;
  }
  // The one file or directory of the array whose name begins so; else no path that exists.
  fs::path under_job(const std::string& begin) {
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(path_ / "jobs/a", ignored)) {
      if (entry.path().filename().string().starts_with(begin)) return entry.path();
    }
    return path_ / "none";
  }
  std::string end_name(std::int64_t index) { return results().at(index).get_string("end").value_or("?"); }
  std::string out_of(std::int64_t index) { return results().at(index).get_string("out").value_or("?"); }

  const std::string instance_ = "runner-test-" + random_hex(4);
  const fs::path path_ = fs::temp_directory_path() / ("capstan-" + instance_);
  std::int64_t retries_ = 0;
  std::optional<DataDirectory> data_;
  std::unique_ptr<ReportQueue> reports_;
  std::unique_ptr<TaskRunner> runner_;
};

constexpr const char* kWays = R"(case $CAPSTAN_TASK_INDEX in
100) echo "$X {index} $CAPSTAN_TASK_ATTEMPT";;
101) echo bad >&2; exit 3;;
102) kill -TERM $$;;
103) exec python3 -I -S -c 'x = bytearray(200 << 20)';;
104) sleep 60;;
105) no-such-program;;
106) setsid sleep 60 >/dev/null 2>&1 & echo left something;;
esac)";

void check_ways(const std::map<std::int64_t, Json>& results) {
  const std::vector<std::string> expected = {"succeeded", "exit", "signal",   "memory",
                                             "timeout",   "exit", "succeeded"};
  ASSERT_EQ(results.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const Json& line = results.at(static_cast<std::int64_t>(100 + i));
    EXPECT_EQ(line.get_string("end"), expected[i]) << line.dump();
    EXPECT_EQ(line.get_bool("ok"), expected[i] == "succeeded");
  }
  EXPECT_EQ(results.at(100).get_string("out"), "x100 100 1\n");
  EXPECT_EQ(results.at(101).get_int("exit_code"), 3);
  EXPECT_EQ(results.at(101).get_string("err"), "bad\n");
  EXPECT_EQ(results.at(105).get_int("exit_code"), 127);
}

TEST_F(TaskRunnerTest, EveryWayToEndIsToldApartInASandboxEach) {
  const Json report = run("{}", {"/bin/sh", "-c", kWays}, 7);
  check_ways(results());
  const Json tally = *report.find("tally");
  EXPECT_EQ(tally.get_int("succeeded"), 2);
  EXPECT_EQ(tally.get_int("memory"), 1);
  EXPECT_EQ(tally.get_int("timeout"), 1);
  EXPECT_GT(tally.get_int("cpu_us").value_or(0), 0);
  EXPECT_GT(tally.get_int("memory_peak_bytes").value_or(0), 60 << 20);
}

TEST_F(TaskRunnerTest, AndInOneSandboxThatTheyShare) {
  run(R"({"batch":7,"chunk":7})", {"/bin/sh", "-c", kWays}, 7);
  check_ways(results());
}

TEST_F(TaskRunnerTest, PythonCodeRunsOnceForEachTaskAndEndsAsItSays) {
  const std::string code = R"(import os, sys, time
i = int(os.environ['CAPSTAN_TASK_INDEX'])
print(i * i, sys.stdin.read().strip(), 'seen' in globals())
seen = True
if i == 101: sys.exit(4)
if i == 102: 1 / 0
if i == 103: time.sleep(60)
if i == 104: x = bytearray(200 << 20)
if i == 105: os.kill(os.getpid(), 15)
if i == 106 and os.fork() == 0: raise ValueError
)";
  std::ofstream lines(path_ / "lines");
  for (int i = 0; i < 200; ++i) lines << "line" << i << "\n";
  lines.close();
  for (const std::int64_t batch : {1, 50}) {
    fs::remove_all(path_ / "jobs");
    begin();
    const Json sandbox = Json::object({{"lane", "python"},
                                       {"code", code},
                                       {"batch", batch},
                                       {"chunk", 50},
                                       {"input", (path_ / "lines").string()}});
    Json start = effect(sandbox.dump(), {}, 10);
    start["rank"] = batch;
    runner_->start(start);
    const Json report = end_of({1, 1, batch});
    EXPECT_EQ(out_of(100), "10000 line100 False\n");
    EXPECT_EQ(out_of(109), "11881 line109 False\n");
    EXPECT_EQ(results().at(101).get_int("exit_code"), 4);
    EXPECT_NE(results().at(102).get_string("err")->find("ZeroDivisionError"), std::string::npos);
    EXPECT_EQ(end_name(103), "timeout");
    EXPECT_EQ(results().at(104).get_bool("ok"), false);  // MemoryError or killed, as the kernel has it
    EXPECT_EQ(end_name(105), "signal");
    EXPECT_EQ(end_name(106), "succeeded");
    EXPECT_EQ(report.find("tally")->get_int("succeeded"), 5) << report.dump();
  }
}

TEST_F(TaskRunnerTest, NodeCodeRunsInASandboxEach) {
  if (::access("/usr/bin/node", X_OK) != 0) GTEST_SKIP() << "there is no /usr/bin/node";
  run(R"json({"lane":"node","code":"console.log(process.env.CAPSTAN_TASK_INDEX * 2)"})json", {}, 2);
  EXPECT_EQ(out_of(101), "202\n");
}

// Goal: a task that fails is tried again, alone, and its tries are counted; what it wrote the last time is
// what is kept.
TEST_F(TaskRunnerTest, AFailedTaskIsTriedAgain) {
  retries_ = 2;
  const Json report = run(
      R"({"batch":4,"chunk":4})",
      {"/bin/sh", "-c",
       "echo $CAPSTAN_TASK_ATTEMPT; [ {index} != 101 ] && [ {index} != 102 -o $CAPSTAN_TASK_ATTEMPT = 2 ]"},
      4);
  EXPECT_EQ(results().at(101).get_int("tries"), 3);
  EXPECT_EQ(out_of(101), "3\n");
  EXPECT_EQ(end_name(102), "succeeded");
  EXPECT_EQ(results().at(102).get_int("tries"), 2);
  EXPECT_EQ(report.find("tally")->get_int("retries"), 3);
}

TEST_F(TaskRunnerTest, FilesAreCollectedWithoutFollowingLinksAndOutputIsBounded) {
  const std::string script =
      "mkdir out; echo {index} > out/n; ln -s /etc/passwd out/link; "
      "ln -s /etc other; head -c 100000 /dev/zero | tr '\\0' x";
  for (const std::int64_t batch : {1, 2}) {
    fs::remove_all(path_ / "jobs");
    begin();
    Json start = effect(
        Json::object({{"batch", batch}, {"chunk", 2}, {"collect", "/work/out"}, {"output_bytes", 1000}})
            .dump(),
        {"/bin/sh", "-c", batch == 1 ? script : "rm -rf out other; " + script}, 2);
    start["rank"] = batch;
    runner_->start(start);
    end_of({1, 1, batch});
    EXPECT_EQ(out_of(101).size(), 1000u);
    EXPECT_EQ(results().at(101).get_bool("truncated"), true);
    const fs::path collected = under_job("collected-1-") / "0";
    EXPECT_EQ(read_file(collected / "101/n").value_or("?"), "101\n");
    EXPECT_FALSE(fs::exists(fs::symlink_status(collected / "101/link")));
  }
}

// Goal: for a user other than the worker's, what is collected is his, also what nobody else may read, and a
// template is one that he can enter.
TEST_F(TaskRunnerTest, FilesAndTemplatesAreThoseOfTheArraysUser) {
  const RankUser nobody = *resolve_user("nobody", 0);
  for (const char* directory : {"proc", "dev", "run", "tmp", "work", "mnt"})
    fs::create_directories(path_ / "template" / directory);
  fs::copy_file(CAPSTAN_BIN "/capstan-batch", path_ / "template/program");
  const auto start = [&](const std::string& name, std::int64_t chunk, const Json& sandbox,
                         std::vector<std::string> command) {
    Json effect_ = effect(sandbox.dump(), std::move(command), 1);
    effect_["user"] = "nobody";
    effect_["name"] = name;
    effect_["job"] = chunk;
    effect_["rank"] = chunk;
    runner_->start(effect_);
    return end_of({chunk, 1, chunk});
  };
  const std::string name = instance_;
  Json report = start(name, 5, Json::object({{"collect", "/work/out"}}),
                      {"/bin/sh", "-c", "mkdir -p out/in; umask 77; echo secret > out/in/f"});
  EXPECT_EQ(report.find("tally")->get_int("succeeded"), 1) << report.dump();
  const fs::path job = fs::path("/var/tmp") / fmt::format("capstan-{}", nobody.uid) / "jobs" / name;
  bool found = false;
  for (const auto& entry : fs::recursive_directory_iterator(job)) {
    struct stat status {};
    ASSERT_EQ(::lstat(entry.path().c_str(), &status), 0);
    EXPECT_EQ(status.st_uid, nobody.uid) << entry.path();
    found = found || (entry.path().filename() == "f" && read_file(entry.path()).value_or("") == "secret\n");
  }
  EXPECT_TRUE(found);
  const Json template_root = Json::object({{"template", (path_ / "template").string()}});
  report = start(name, 6, template_root, {"/program"});
  EXPECT_EQ(report.find("tally")->get_int("exit"), 1) << report.dump();  // it ran, and said how it is used
  fs::permissions(path_ / "template", fs::perms::owner_all);
  report = start(name, 7, template_root, {"/program"});
  EXPECT_NE(report.get_string("message").value_or("").find("cannot open the template"), std::string::npos)
      << report.dump();
  fs::remove_all(job);
}

TEST_F(TaskRunnerTest, AWorkerThatDiesLosesNothingAndRunsNothingTwice) {
  runner_->start(effect(R"({"batch":5,"chunk":200})", {"/bin/sh", "-c", "echo {index}; sleep 0.01"}, 200));
  for (int life = 0; life < 4; ++life) {
    std::this_thread::sleep_for(std::chrono::milliseconds(400));
    begin();
  }
  const Json report = end_of({1, 1, 0});
  EXPECT_EQ(report.get_int("exit_code"), 0);
  EXPECT_EQ(report.find("tally")->get_int("succeeded"), 200);
  EXPECT_EQ(results().size(), 200u);
  // Its end is said again until it is forgotten.
  begin();
  EXPECT_EQ(end_of({1, 1, 0}).find("tally")->get_int("succeeded"), 200);
  EXPECT_TRUE(runner_->forget({1, 1, 0}));
  begin();
  Json ranks = Json::array();
  runner_->add_ranks(ranks);
  EXPECT_EQ(ranks.size(), 0u);
}

TEST_F(TaskRunnerTest, AStoppedChunkKeepsWhatHasEnded) {
  runner_->start(effect("{}", {"/bin/sh", "-c", "[ {index} = 100 ] || sleep 60"}, 3));
  for (int i = 0; i < 1'000 && !results().contains(100); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_FALSE(runner_->stop({2, 1, 0}, 0));
  EXPECT_TRUE(runner_->stop({1, 1, 0}, 0));
  EXPECT_EQ(end_of({1, 1, 0}).get_bool("stopped"), true);
  EXPECT_TRUE(results().contains(100));
  EXPECT_EQ(results().size(), 1u);
}

}  // namespace
}  // namespace capstan::worker
