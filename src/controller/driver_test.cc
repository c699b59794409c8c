// Goal: nothing leaves before it is durable; workers get their effects until they have taken them; a full
// disk stops acknowledgements and nothing else; another controller on the same journal goes on where this one
// was. Method: a driver over a memory journal (or a SQLite file), with clocks of the test; a worker played by
// hand.
#include "controller/driver.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "controller/driver_load.h"
#include "controller/view.h"

namespace capstan::controller {
namespace {

using protocol::SyncAnswer;
using protocol::SyncRequest;

std::vector<workload::Spec> specs(std::string_view yaml) {
  return *workload::parse_specs(yaml, {.source = "t", .base_directory = "/"});
}

// Passes on to a journal that outlives the driver, so that a second driver can be started on it.
class Shared : public journal::Journal {
 public:
  explicit Shared(journal::MemoryJournal& real) : real_(real) {}
  Result<void> append(std::span<const journal::Row> rows) override { return real_.append(rows); }
  Result<void> read(std::int64_t from, const RowVisitor& visit) override { return real_.read(from, visit); }
  Result<std::vector<journal::Row>> rows_after_event(std::int64_t event, int max) override {
    return real_.rows_after_event(event, max);
  }
  std::int64_t begin_seq() const override { return real_.begin_seq(); }
  std::int64_t begin_event() const override { return real_.begin_event(); }
  bool has_room() override { return real_.has_room(); }
  Result<std::vector<journal::SnapshotRef>> snapshots() override { return real_.snapshots(); }
  Result<std::string> snapshot_text(const journal::SnapshotRef& one) override {
    return real_.snapshot_text(one);
  }
  Result<void> forget_snapshot(const journal::SnapshotRef& one) override {
    return real_.forget_snapshot(one);
  }
  Result<void> save_snapshot(const journal::TextWriter& write) override { return real_.save_snapshot(write); }
  std::string snapshot_path(std::int64_t seq) const override { return real_.snapshot_path(seq); }
  Result<void> keep_snapshot(const journal::SnapshotRef& one) override { return real_.keep_snapshot(one); }
  Result<std::vector<std::string>> obsolete_files() override { return real_.obsolete_files(); }
  std::int64_t last_seq() const override { return real_.last_seq(); }

 private:
  journal::MemoryJournal& real_;
};

class DriverTest : public testing::Test {
 protected:
  void start() {
    DriverOptions options;
    options.build = "b";
    options.long_poll_ms = 50;
    options.monotonic_ms = [this] { return base_ms() + skip_ms_; };
    options.on_fatal = [this](const Error& error) { fatal_ = error.message; };
    auto driver = Driver::start(std::make_unique<Shared>(journal_), std::move(options));
    ASSERT_TRUE(driver) << driver.error().message;
    driver_ = *std::move(driver);
  }
  static std::int64_t base_ms() {
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }

  Result<SyncAnswer> sync(SyncRequest request) {
    std::promise<Result<SyncAnswer>> promise;
    auto future = promise.get_future();
    request.worker = "h1";
    if (request.incarnation.empty()) request.incarnation = "i1";
    request.resources = {2000, 0, 0};
    driver_->sync(std::move(request),
                  [&](Result<SyncAnswer> answer) { promise.set_value(std::move(answer)); });
    return future.get();
  }
  // The first two calls of a worker: told to send its list, then sends it.
  Result<SyncAnswer> join(std::vector<protocol::RankStatus> ranks = {}, std::string incarnation = "i1") {
    SyncRequest hello;
    hello.incarnation = incarnation;
    EXPECT_TRUE(sync(hello)->full);
    hello.ranks = std::move(ranks);
    return sync(hello);
  }
  static SyncRequest with(protocol::Report report, std::int64_t effects_done = 0) {
    SyncRequest request;
    request.reports.push_back(std::move(report));
    request.effects_done = effects_done;
    return request;
  }
  std::string state_of(const std::string& name) {
    std::string out = "absent";
    EXPECT_TRUE(driver_->read([&](const State& state) {
      if (const Workload* workload = state.find(name)) out = state_name(workload->state);
    }));
    return out;
  }
  std::string hash() {
    auto loaded = load(journal_);
    EXPECT_TRUE(loaded) << loaded.error().message;
    return loaded->controller.state_hash();
  }

  journal::MemoryJournal journal_;
  std::atomic<std::int64_t> skip_ms_ = 0;
  std::string fatal_;
  std::unique_ptr<Driver> driver_;
};

std::string effects_of(const Result<SyncAnswer>& answer) {
  if (!answer) return "error: " + answer.error().message;
  constexpr const char* kNames[] = {"start", "stop", "forget"};
  std::string out;
  for (const auto& effect : answer->effects)
    out += fmt::format("{}{} {}", out.empty() ? "" : ", ", kNames[effect.body.index()], effect.rank.text());
  return out;
}

TEST_F(DriverTest, AJobLivesOverTheWire) {
  start();
  EXPECT_EQ(effects_of(join()), "");
  ASSERT_TRUE(driver_->submit(Apply{specs("{kind: job, name: a, command: x}"), false}).get());
  const auto first = sync({});
  EXPECT_EQ(effects_of(first), "start 1-1-0");
  // The answer was lost on its way: it comes again, with the same id.
  const auto again = sync({});
  EXPECT_EQ(again->effects, first->effects);
  const std::int64_t done = first->effects.back().id;
  const auto started = sync(with({1, {1, 1, 0}, protocol::RankStarted{7, 0}}, done));
  EXPECT_EQ(started->reports_acked, 1);
  EXPECT_EQ(effects_of(started), "");
  EXPECT_EQ(state_of("a"), "running");
  protocol::RankExited exit;
  exit.exit_code = 0;
  const auto ended = sync(with({2, {1, 1, 0}, exit}, done));
  EXPECT_EQ(ended->reports_acked, 2);
  EXPECT_EQ(effects_of(ended), "forget 1-1-0");
  EXPECT_EQ(state_of("a"), "succeeded");
}

TEST_F(DriverTest, ANewControllerAdoptsWhatRuns) {
  start();
  join();
  ASSERT_TRUE(driver_->submit(Apply{specs("{kind: job, name: a, ranks: 2, command: x}"), false}).get());
  const auto effects = sync({});
  sync(with({1, {1, 1, 0}, protocol::RankStarted{7, 0}}, effects->effects.back().id));
  driver_.reset();
  start();
  EXPECT_EQ(driver_->status().epoch, 2);
  EXPECT_EQ(state_of("a"), "starting");
  // Rank 0 runs on both sides; rank 1 never arrived; 9-1-0 belongs to nobody; 8-1-0 has long ended.
  const auto answer = join({{{1, 1, 0}, protocol::RankPhase::kRunning},
                            {{8, 1, 0}, protocol::RankPhase::kExited},
                            {{9, 1, 0}, protocol::RankPhase::kRunning}});
  EXPECT_EQ(effects_of(answer), "forget 8-1-0, stop 9-1-0, start 1-1-1");
}

TEST_F(DriverTest, ARankThatVanishedWithoutARecordIsLost) {
  start();
  join();
  ASSERT_TRUE(
      driver_->submit(Apply{specs("{kind: job, name: a, command: x, restarts: {budget: 0}}"), false}).get());
  const auto effects = sync({});
  sync(with({1, {1, 1, 0}, protocol::RankStarted{7, 0}}, effects->effects.back().id));
  join({}, "i2");
  EXPECT_EQ(state_of("a"), "failed");
  SyncRequest old;
  old.incarnation = "i1";
  EXPECT_EQ(effects_of(sync(old)), "error: this worker of h1 has been replaced by a newer one");
}

TEST_F(DriverTest, AFullDiskStopsAcknowledgementsAndRecovers) {
  start();
  join();
  ASSERT_TRUE(driver_->submit(Apply{specs("{kind: job, name: a, command: x}"), false}).get());
  const std::string before = hash();
  journal_.fail_appends(Code::kExhausted);
  const auto refused = driver_->submit(Apply{specs("{kind: job, name: b, command: x}"), false}).get();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kExhausted);
  EXPECT_TRUE(driver_->status().disk_full);
  EXPECT_EQ(state_of("b"), "absent");  // reads show what is durable
  EXPECT_EQ(state_of("a"), "starting");
  EXPECT_EQ(hash(), before);
  journal_.fail_appends(std::nullopt);
  skip_ms_ += kExhaustedPauseMs;
  ASSERT_TRUE(driver_->submit(Apply{specs("{kind: job, name: b, command: x}"), false}).get());
  EXPECT_FALSE(driver_->status().disk_full);
  EXPECT_EQ(effects_of(join()), "start 1-1-0, start 2-1-0");
  EXPECT_EQ(fatal_, "");
}

TEST_F(DriverTest, AnyOtherJournalFailureEndsTheProcess) {
  start();
  journal_.fail_appends(Code::kIo);
  EXPECT_FALSE(driver_->submit(Apply{specs("{kind: job, name: a, command: x}"), false}).get());
  driver_.reset();
  EXPECT_EQ(fatal_, "the journal's disk is full");
}

TEST_F(DriverTest, ASilentHostIsSuspectThenLostThenBack) {
  start();
  join();
  const auto health = [&] {
    std::string out;
    EXPECT_TRUE(driver_->read([&](const State& state) {
      out = health_name(state.inventory.host(*state.inventory.topology().find("h1")).health);
    }));
    return out;
  };
  const auto becomes = [&](std::string_view wanted) {
    for (int i = 0; i < 300 && health() != wanted; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return health();
  };
  // In steps shorter than what counts as a stall of the controller itself.
  const auto pass = [&](std::int64_t seconds) {
    for (std::int64_t i = 0; i < seconds; i += 4) {
      skip_ms_ += 4'000;
      EXPECT_TRUE(driver_->read([](const State&) {}));
    }
  };
  EXPECT_EQ(health(), "healthy");
  pass(12);
  EXPECT_EQ(becomes("suspect"), "suspect");
  sync({});
  EXPECT_EQ(health(), "healthy");
  pass(12);
  EXPECT_EQ(becomes("suspect"), "suspect");
  pass(24);
  EXPECT_EQ(becomes("lost"), "lost");
  // It is back with a rank that nobody knows: it is not trusted before that one has ended.
  const auto answer = join({{{9, 1, 0}, protocol::RankPhase::kRunning}});
  EXPECT_EQ(effects_of(answer), "stop 9-1-0");
  EXPECT_EQ(health(), "lost");
  protocol::RankExited exit;
  exit.signal = 15;
  EXPECT_EQ(effects_of(sync(with({1, {9, 1, 0}, exit}, answer->effects.back().id))), "forget 9-1-0");
  sync({});
  EXPECT_EQ(health(), "healthy");
}

TEST_F(DriverTest, FollowersSeeEveryEventOnceInOrder) {
  start();
  ASSERT_TRUE(driver_->submit(Apply{specs("{kind: job, name: a, command: x}"), false}).get());
  std::vector<std::int64_t> seen;
  std::mutex mutex;
  ASSERT_TRUE(driver_->follow(0, [&](const EventLine& line) {
    const std::lock_guard lock(mutex);
    seen.push_back(line.seq);
    return true;
  }));
  ASSERT_TRUE(driver_->submit(Cancel{"a"}).get());
  const auto events = driver_->events(0, 1000);
  const std::lock_guard lock(mutex);
  ASSERT_EQ(seen.size(), events->size());
  for (std::size_t i = 0; i < seen.size(); ++i) EXPECT_EQ(seen[i], static_cast<std::int64_t>(i) + 1);
  EXPECT_TRUE(events->front().json.starts_with(R"({"seq":1,"time_ms":)")) << events->front().json;
  EXPECT_EQ(driver_->events(-1, 1)->front().seq, static_cast<std::int64_t>(events->size()));
}

TEST_F(DriverTest, ADrainIsOverWhenNothingRuns) {
  start();
  join();
  ASSERT_TRUE(driver_->submit(Apply{specs("{kind: job, name: a, command: x}"), false}).get());
  const auto effects = sync({});
  std::atomic<bool> drained = false;
  ASSERT_TRUE(driver_->drain([&] { drained = true; }));
  EXPECT_FALSE(drained);
  protocol::RankExited exit;
  exit.exit_code = 75;
  exit.stopped = true;
  sync(with({1, {1, 1, 0}, exit}, effects->effects.back().id));
  EXPECT_TRUE(drained);
  EXPECT_TRUE(sync({})->shutdown);
  EXPECT_EQ(state_of("a"), "pending");
  driver_.reset();
  start();
  EXPECT_EQ(effects_of(join()), "start 1-2-0");
}

TEST_F(DriverTest, ManyCommandsShareACommitAndVerifyOnDisk) {
  const auto directory =
      std::filesystem::temp_directory_path() / ("driver_test_" + std::to_string(::getpid()));
  std::filesystem::create_directories(directory);
  const std::string path = (directory / "journal.sqlite").string();
  constexpr int kCommands = 300;
  {
    auto driver =
        Driver::start(*journal::open_sqlite_journal(path), {.build = "b", .snapshot_every_events = 100});
    ASSERT_TRUE(driver) << driver.error().message;
    std::vector<std::future<Result<Json>>> answers;
    for (int i = 0; i < kCommands; ++i)
      answers.push_back(
          (*driver)->submit(Apply{specs(fmt::format("{{kind: job, name: j{}, command: x}}", i)), false}));
    for (auto& answer : answers) EXPECT_TRUE(answer.get());
    const DriverStatus status = (*driver)->status();
    EXPECT_EQ(status.rows, kCommands + 1);
    EXPECT_LT(status.appends, kCommands);
    const auto beside = verify_journal(path);
    EXPECT_TRUE(beside) << beside.error().message;
  }
  const auto verified = verify_journal(path);
  ASSERT_TRUE(verified) << verified.error().message;
  EXPECT_EQ(verified->rows, kCommands + 1);
  EXPECT_GT(verified->snapshot_seq, 0);
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace capstan::controller
