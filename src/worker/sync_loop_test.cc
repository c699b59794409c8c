// The conversation with a controller, on a link whose answers the test decides.
#include "worker/sync_loop.h"

#include <gtest/gtest.h>

#include <deque>
#include <filesystem>
#include <thread>

#include "base/file.h"

namespace capstan::worker {
namespace {

namespace fs = std::filesystem;

// Answers in order; when they are used up, a call blocks like a long poll until interrupted.
class ScriptedLink : public ControllerLink {
 public:
  Result<Json> sync(const Json& request) override {
    std::unique_lock lock(mutex_);
    requests_.push_back(request);
    changed_.notify_all();
    changed_.wait(lock, [&] { return !answers_.empty() || interrupted_; });
    if (interrupted_) {
      interrupted_ = false;
      return fail(Code::kCancelled, "interrupted");
    }
    auto answer = std::move(answers_.front());
    answers_.pop_front();
    return answer;
  }
  void interrupt() override {
    const std::lock_guard lock(mutex_);
    interrupted_ = true;
    changed_.notify_all();
  }
  void answer(Result<Json> answer) {
    const std::lock_guard lock(mutex_);
    answers_.push_back(std::move(answer));
    changed_.notify_all();
  }
  // The n-th request (from 0), once it was made.
  Json request(std::size_t n) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::seconds(10), [&] { return requests_.size() > n; }))
      return Json::object();
    return requests_[n];
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Result<Json>> answers_;
  std::vector<Json> requests_;
  bool interrupted_ = false;
};

Json answer(std::int64_t epoch, std::int64_t acked, Json::Array effects = {}) {
  return Json::object({{"epoch", epoch},
                       {"reports_acked", acked},
                       {"full", false},
                       {"effects", Json(std::move(effects))},
                       {"shutdown", false}});
}

class SyncLoopTest : public ::testing::Test {
 protected:
  SyncLoopTest()
      : path_(fs::temp_directory_path() / ("capstan-sync-" + random_hex(6))),
        data_((fs::create_directories(path_), DataDirectory::open(path_).value())),
        cgroups_(sandbox::Cgroups::detect_in({}, "none")),
        launcher_(data_, {path_, data_.owner(), "", ""}, cgroups_, CAPSTAN_SHIM_BINARY),
        supervisor_(RankStore(data_.ranks_fd()), launcher_, reports_),
        loop_({"host", "aa", "build", Json::object({{"milli_cpus", 1000}}), Json::array(),
               "http://127.0.0.1:1"},
              link_, supervisor_, reports_),
        thread_([this] { loop_.run(); }) {}
  ~SyncLoopTest() override {
    loop_.leave(false);
    thread_.join();
    fs::remove_all(path_);
  }

  fs::path path_;
  DataDirectory data_;
  sandbox::Cgroups cgroups_;
  Launcher launcher_;
  ReportQueue reports_;
  Supervisor supervisor_;
  ScriptedLink link_;
  SyncLoop loop_;
  std::thread thread_;
};

TEST_F(SyncLoopTest, TheFirstTurnTellsEverythingAndLaterOnesOnlyWhatIsNew) {
  const Json first = link_.request(0);
  EXPECT_TRUE(first.contains("ranks"));
  EXPECT_EQ(first.get_string("incarnation"), "aa");
  EXPECT_EQ(first.get_int("effects_done"), 0);
  link_.answer(answer(
      3, 0, {Json::object({{"id", 8}, {"type", "forget_rank"}, {"job", 1}, {"attempt", 1}, {"rank", 0}})}));
  const Json second = link_.request(1);
  EXPECT_FALSE(second.contains("ranks"));
  EXPECT_EQ(second.get_int("epoch_seen"), 3);
  EXPECT_EQ(second.get_int("effects_done"), 8);
}

TEST_F(SyncLoopTest, AReportInterruptsAWaitingTurnAndIsSentUntilAcknowledged) {
  link_.request(0);
  reports_.push("rank_exited", {1, 1, 0}, Json::object({{"exit_code", 0}}));
  const Json second = link_.request(1);
  ASSERT_EQ(second.find("reports")->size(), 1u);
  EXPECT_EQ(second.find("reports")->items()[0].get_int("seq"), 1);
  link_.answer(fail(Code::kUnavailable, "gone"));
  EXPECT_EQ(link_.request(2).find("reports")->size(), 1u);
  link_.answer(answer(1, 1));
  EXPECT_EQ(link_.request(3).find("reports")->size(), 0u);
}

TEST_F(SyncLoopTest, AfterAFailureAllRanksAreToldAgain) {
  link_.answer(answer(1, 0));
  link_.answer(fail(Code::kUnavailable, "gone"));
  EXPECT_FALSE(link_.request(1).contains("ranks"));
  EXPECT_TRUE(link_.request(2).contains("ranks"));
}

// Goal: a controller that was replaced but still answers cannot start anything.
TEST_F(SyncLoopTest, AnAnswerOfAnOlderEpochIsIgnored) {
  link_.answer(answer(5, 0));
  link_.request(1);
  link_.answer(answer(
      4, 99, {Json::object({{"id", 1}, {"type", "stop_rank"}, {"job", 1}, {"attempt", 1}, {"rank", 0}})}));
  const Json next = link_.request(2);
  EXPECT_EQ(next.get_int("epoch_seen"), 5);
  EXPECT_EQ(next.get_int("effects_done"), 0);
  EXPECT_TRUE(reports_.empty());  // the stop would have been answered with a report
}

TEST_F(SyncLoopTest, ANewEpochForgetsWhichEffectsWereTaken) {
  link_.answer(answer(
      1, 0, {Json::object({{"id", 40}, {"type", "forget_rank"}, {"job", 1}, {"attempt", 1}, {"rank", 0}})}));
  EXPECT_EQ(link_.request(1).get_int("effects_done"), 40);
  link_.answer(answer(2, 0));
  const Json next = link_.request(2);
  EXPECT_EQ(next.get_int("effects_done"), 0);
  EXPECT_TRUE(next.contains("ranks"));
}

TEST_F(SyncLoopTest, AnEffectThatStartsARankIsReported) {
  link_.answer(answer(1, 0,
                      {Json::object({{"id", 1},
                                     {"type", "start_rank"},
                                     {"job", 1},
                                     {"attempt", 1},
                                     {"rank", 0},
                                     {"name", "w"},
                                     {"user", ::geteuid() == 0 ? "root" : ""},
                                     {"workdir", "/"},
                                     {"command", Json::array({"/bin/sh", "-c", "exit 4"})}})}));
  for (std::size_t turn = 1; turn < 100; ++turn) {
    const Json request = link_.request(turn);
    ASSERT_TRUE(request.contains("reports"));
    const auto& reports = request.find("reports")->items();
    if (!reports.empty() && reports.back().get_string("type") == "rank_exited") {
      EXPECT_EQ(reports.back().get_int("exit_code"), 4);
      return;
    }
    if (!reports.empty()) link_.answer(answer(1, reports.back().get_int("seq").value()));
  }
  FAIL() << "the exit was not reported";
}

}  // namespace
}  // namespace capstan::worker
