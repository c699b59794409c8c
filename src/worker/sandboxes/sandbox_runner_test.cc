// Goal: sandboxes are made once, told of truly, ended when asked, found again by the next worker, and lost when their host
// is. Method: a session host that the test plays.
#include "worker/sandboxes/sandbox_runner.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <optional>

#include "base/file.h"

namespace capstan::worker {
namespace {

// A session host in memory.
class PlayedHost final : public SandboxHost {
 public:
  void keep() override {}
  Result<std::string> put(const std::string& key, const Json& terms) override {
    const std::lock_guard lock(mutex_);
    ++puts[key];
    asked[key] = terms;
    if (refusal) return std::unexpected(*refusal);
    const auto [at, fresh] = placed.try_emplace(key, PlacedSandbox{key, "session-of-" + key, false, ""});
    return at->second.session;
  }
  Result<std::vector<PlacedSandbox>> list() override {
    const std::lock_guard lock(mutex_);
    if (away) return fail(Code::kUnavailable, "away");
    std::vector<PlacedSandbox> out;
    for (const auto& [key, one] : placed) out.push_back(one);
    return out;
  }
  Result<void> end(const std::string& key, std::int64_t grace_ms) override {
    const std::lock_guard lock(mutex_);
    ends.emplace_back(key, grace_ms);
    if (const auto at = placed.find(key); at != placed.end()) {
      at->second.ended = true;
      at->second.how = "asked";
    }
    return {};
  }
  Result<void> forget(const std::string& key) override {
    const std::lock_guard lock(mutex_);
    placed.erase(key);
    return {};
  }
  template <class Act>
  auto with(const Act& act) {
    const std::lock_guard lock(mutex_);
    return act(*this);
  }
  std::map<std::string, PlacedSandbox> placed;
  std::map<std::string, Json> asked;
  std::map<std::string, int> puts;
  std::vector<std::pair<std::string, std::int64_t>> ends;
  std::optional<Error> refusal;
  bool away = false;

 private:
  std::mutex mutex_;
};

class SandboxRunnerTest : public testing::Test {
 protected:
  SandboxRunnerTest()
      : directory_(std::filesystem::temp_directory_path() /
                   fmt::format("capstan-runner-{}-{}", ::getpid(), ++count_)) {
    std::filesystem::create_directories(directory_);
    data_.emplace(*DataDirectory::open(directory_));
    next_worker();
  }
  ~SandboxRunnerTest() override {
    runner_.reset();
    std::filesystem::remove_all(directory_);
  }
  void next_worker() {
    runner_.reset();
    reports_ = std::make_unique<ReportQueue>();
    runner_ = std::make_unique<SandboxRunner>(*data_, host_, *reports_);
    ASSERT_TRUE(runner_->adopt());
  }
  static Json effect(std::int64_t job) {
    return *Json::parse(fmt::format(
        R"({{"type":"start_rank","job":{},"attempt":1,"rank":0,"name":"workbench","kind":"sandbox","tenant":"research",)"
        R"("env":{{"A":"b"}},"resources":{{"milli_cpus":500,"memory_bytes":1000,"gpus":0}},"grace_ms":700,)"
        R"("session":{{"template":"base","timeout_ms":9}}}})", job));
  }
  // The newest report about the job, once it is of this type.
  Json report(std::int64_t job, std::string_view type) {
    for (int i = 0; i < 1000; ++i) {
      const auto all = reports_->oldest();
      for (auto at = all.rbegin(); at != all.rend(); ++at) {
        if (at->get_int("job") == job && at->get_string("type") == type) return *at;
      }
      ::usleep(10'000);
    }
    ADD_FAILURE() << "no " << type << " of " << job;
    return Json::object();
  }
  std::string state(std::int64_t job) {
    Json list = Json::array();
    runner_->add_ranks(list);
    for (const Json& one : list.items()) {
      if (one.get_int("job") == job) return *one.get_string("state");
    }
    return "unknown";
  }

  static inline int count_ = 0;
  const std::filesystem::path directory_;
  std::optional<DataDirectory> data_;
  PlayedHost host_;
  std::unique_ptr<ReportQueue> reports_;
  std::unique_ptr<SandboxRunner> runner_;
};

TEST_F(SandboxRunnerTest, ASandboxIsMadeOnceWithItsTermsAndItsSessionIsTold) {
  EXPECT_TRUE(runner_->takes(effect(1)));
  EXPECT_FALSE(runner_->takes(Json::object({{"command", Json::array({"ls"})}})));
  runner_->start(effect(1));
  EXPECT_EQ(report(1, "rank_started").get_string("session"), "session-of-1-1-0");
  runner_->start(effect(1));
  EXPECT_EQ(state(1), "running");
  host_.with([](PlayedHost& host) {
    EXPECT_EQ(host.puts["1-1-0"], 1);
    EXPECT_EQ(host.asked["1-1-0"].dump(),
              R"({"template":"base","timeout_ms":9,"name":"workbench","tenant":"research","env":{"A":"b"},)"
              R"("memory_bytes":1000,"milli_cpus":500})");
  });
}

TEST_F(SandboxRunnerTest, AnEndIsReportedWithHowItCame) {
  for (const auto& [job, how, message, code] : {std::tuple{1, "timeout", "its time is over", 0},
                                                std::tuple{2, "asked", "a client ended it", 0},
                                                std::tuple{3, "died", "its sandbox died", 1}}) {
    runner_->start(effect(job));
    report(job, "rank_started");
    host_.with([&, job = job, how = how](PlayedHost& host) {
      PlacedSandbox& one = host.placed.at(fmt::format("{}-1-0", job));
      one.ended = true;
      one.how = how;
    });
    const Json exit = report(job, "rank_exited");
    EXPECT_EQ(exit.get_string("message"), message);
    EXPECT_EQ(exit.get_int("exit_code"), code);
    EXPECT_FALSE(exit.get_bool("stopped").value_or(false));
  }
}

TEST_F(SandboxRunnerTest, AStopIsPassedOnWithItsGraceAndReportedAsOne) {
  runner_->start(effect(1));
  report(1, "rank_started");
  EXPECT_FALSE(runner_->stop({5, 1, 0}, 0));
  EXPECT_TRUE(runner_->stop({1, 1, 0}, 400));
  EXPECT_EQ(report(1, "rank_exited").get_bool("stopped"), true);
  host_.with([](PlayedHost& host) { EXPECT_EQ(host.ends, (std::vector{std::pair{std::string("1-1-0"), std::int64_t{400}}})); });
  EXPECT_TRUE(runner_->forget({1, 1, 0}));
  EXPECT_FALSE(runner_->forget({1, 1, 0}));
  EXPECT_EQ(state(1), "unknown");
  EXPECT_TRUE(std::filesystem::is_empty(directory_ / "worker/sandboxes"));
}

TEST_F(SandboxRunnerTest, AtShutdownEachGetsTheGraceOfItsSpec) {
  runner_->start(effect(1));
  report(1, "rank_started");
  runner_->stop_all();
  report(1, "rank_exited");
  host_.with([](PlayedHost& host) { EXPECT_EQ(host.ends.at(0).second, 700); });
  EXPECT_EQ(runner_->unended(), 0u);
}

TEST_F(SandboxRunnerTest, TheNextWorkerFindsSandboxesAndEndsAgain) {
  runner_->start(effect(1));
  runner_->start(effect(2));
  report(1, "rank_started");
  report(2, "rank_started");
  host_.with([](PlayedHost& host) { host.placed.at("2-1-0").ended = true, host.placed.at("2-1-0").how = "timeout"; });
  report(2, "rank_exited");
  next_worker();
  EXPECT_EQ(report(1, "rank_started").get_string("session"), "session-of-1-1-0");
  EXPECT_EQ(report(2, "rank_exited").get_string("message"), "its time is over");
  EXPECT_EQ(state(1), "running");
  EXPECT_EQ(state(2), "exited");
  host_.with([](PlayedHost& host) { EXPECT_EQ(host.puts["1-1-0"], 1); });
}

TEST_F(SandboxRunnerTest, ASandboxThatItsHostDoesNotKnowAnyMoreIsLost) {
  runner_->start(effect(1));
  report(1, "rank_started");
  host_.with([](PlayedHost& host) { host.placed.clear(); });
  const Json exit = report(1, "rank_exited");
  EXPECT_EQ(exit.get_bool("lost"), true);
  EXPECT_EQ(exit.get_string("message"), "the session host ended, and the sandbox with it");
}

TEST_F(SandboxRunnerTest, AHostThatIsAwayForAMomentLosesNothing) {
  runner_->start(effect(1));
  report(1, "rank_started");
  host_.with([](PlayedHost& host) { host.away = true; });
  ::usleep(3 * kLookMs * 1000);
  host_.with([](PlayedHost& host) { host.away = false; });
  ::usleep(3 * kLookMs * 1000);
  EXPECT_EQ(state(1), "running");
}

TEST_F(SandboxRunnerTest, ARefusalSaysWhetherAnotherTimeMayBeBetter) {
  host_.with([](PlayedHost& host) { host.refusal = Error{Code::kInvalid, "no template x", {}}; });
  runner_->start(effect(1));
  const Json refused = report(1, "rank_start_failed");
  EXPECT_EQ(refused.get_string("message"), "no template x");
  EXPECT_EQ(refused.get_bool("retryable"), false);
  host_.with([](PlayedHost& host) { host.refusal = Error{Code::kExhausted, "full", {}}; });
  runner_->start(effect(2));
  EXPECT_EQ(report(2, "rank_start_failed").get_bool("retryable"), true);
}

// Goal: a start that its host did not answer is asked for again, and one that is stopped meanwhile is not made.
TEST_F(SandboxRunnerTest, AStartWaitsForItsHostUnlessItIsStopped) {
  host_.with([](PlayedHost& host) { host.refusal = Error{Code::kUnavailable, "not yet", {}}; });
  runner_->start(effect(1));
  runner_->start(effect(2));
  EXPECT_TRUE(runner_->stop({2, 1, 0}, 0));
  EXPECT_EQ(report(2, "rank_exited").get_bool("stopped"), true);
  EXPECT_EQ(state(1), "starting");
  host_.with([](PlayedHost& host) { host.refusal.reset(); });
  report(1, "rank_started");
  host_.with([](PlayedHost& host) { EXPECT_FALSE(host.placed.contains("2-1-0")); });
}

// Goal: what a worker that died between asking and recording left behind does not run on.
TEST_F(SandboxRunnerTest, ASandboxThatNobodyRemembersIsEnded) {
  host_.with([](PlayedHost& host) { host.placed["9-1-0"] = {"9-1-0", "s", false, ""}; });
  runner_->start(effect(1));
  report(1, "rank_started");
  for (int i = 0; i < 500 && host_.with([](PlayedHost& host) { return host.placed.contains("9-1-0"); }); ++i) ::usleep(10'000);
  host_.with([](PlayedHost& host) {
    EXPECT_FALSE(host.placed.contains("9-1-0"));
    EXPECT_TRUE(host.placed.contains("1-1-0"));
  });
}

}  // namespace
}  // namespace capstan::worker
