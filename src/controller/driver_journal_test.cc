// Goal: a crash at any moment leaves a journal that gives the state it had; a damaged or missing snapshot
// costs time, never state; a pruned journal says so. Method: a driver over a SQLite file; a crash is a copy
// of its directory while it runs; the copy is damaged and opened.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <thread>

#include "base/file.h"
#include "controller/driver.h"
#include "controller/driver_load.h"

namespace capstan::controller {
namespace {

namespace fs = std::filesystem;

Apply job(const std::string& name) {
  return {*workload::parse_specs(fmt::format("{{kind: job, name: {}, command: x}}", name), {.source = "t"}),
          false};
}

class DriverJournalTest : public testing::Test {
 protected:
  DriverJournalTest() : root_(fs::temp_directory_path() / fmt::format("driver_journal_test_{}", ::getpid())) {
    fs::create_directories(root_ / "live");
  }
  ~DriverJournalTest() override {
    driver_.reset();
    fs::remove_all(root_);
  }
  static std::string file_in(const fs::path& directory) { return (directory / "journal.sqlite").string(); }

  void start(const journal::SqliteOptions& options = {}, std::int64_t every_events = 40) {
    auto journal = journal::open_sqlite_journal(file_in(root_ / "live"), options);
    ASSERT_TRUE(journal) << journal.error().message;
    auto driver = Driver::start(*std::move(journal), {.build = "b", .snapshot_every_events = every_events});
    ASSERT_TRUE(driver) << driver.error().message;
    driver_ = *std::move(driver);
  }
  void submit(int count) {
    for (int i = 0; i < count; ++i) ASSERT_TRUE(driver_->submit(job(fmt::format("j{}", next_++))).get());
  }
  // Until children have written so many snapshots.
  void wait_for_snapshots(std::int64_t count) {
    for (int i = 0; i < 2'000 && driver_->status().snapshots.saved < count; ++i) {
      ASSERT_TRUE(driver_->read([](const State&) {}));  // a turn
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    ASSERT_GE(driver_->status().snapshots.saved, count);
  }
  // What a crash would leave, in a directory of its own.
  fs::path crash() {
    const fs::path copy = root_ / fmt::format("crash{}", ++crashes_);
    fs::create_directories(copy);
    EXPECT_TRUE(driver_->read([&](const State&) {  // the driver stands still, but a child may be writing
      for (const auto& entry : fs::directory_iterator(root_ / "live")) {
        std::error_code vanished;
        fs::copy(entry.path(), copy / entry.path().filename(), vanished);
      }
    }));
    return copy;
  }
  struct Recovered {
    std::string hash, error;
    std::int64_t snapshot_seq = 0;
  };
  static Recovered recover(const fs::path& directory) {
    auto journal = journal::open_sqlite_journal(file_in(directory));
    EXPECT_TRUE(journal) << journal.error().message;
    const auto loaded = load(**journal);
    if (!loaded) return {{}, loaded.error().message, 0};
    return {loaded->controller.state_hash(), {}, loaded->snapshot_seq};
  }
  static std::vector<fs::path> snapshot_files(const fs::path& directory) {
    std::vector<std::pair<std::int64_t, fs::path>> found;
    for (const auto& entry : fs::directory_iterator(directory)) {
      const std::string name = entry.path().filename().string();
      if (const auto at = name.find(".snapshot-"); at != name.npos && name.ends_with(".zst"))
        found.emplace_back(std::stoll(name.substr(at + 10)), entry.path());
    }
    std::ranges::sort(found);
    std::vector<fs::path> files;
    for (auto& [seq, file] : found) files.push_back(std::move(file));
    return files;
  }
  static void tear(const fs::path& file) { fs::resize_file(file, fs::file_size(file) / 2); }
  // Of a replay of every row, without snapshots.
  static std::string slow_hash(const fs::path& directory) {
    auto journal = journal::open_sqlite_journal(file_in(directory), {.read_only = true});
    Controller controller;
    EXPECT_TRUE((*journal)->read(1, [&](const journal::Row& row) -> Result<void> {
      const auto events = events_of(row);
      for (const Json& event : *events) CAPSTAN_CHECK(controller.replay(row.time_ms, event));
      return {};
    }));
    return controller.state_hash();
  }

  fs::path root_;
  std::unique_ptr<Driver> driver_;
  int next_ = 0;
  int crashes_ = 0;
};

TEST_F(DriverJournalTest, ASnapshotOfAChildAndItsTailGiveTheStateOfAllRows) {
  start();
  submit(60);
  wait_for_snapshots(1);
  submit(10);
  const fs::path crashed = crash();
  const std::string wanted = slow_hash(crashed);
  const Recovered recovered = recover(crashed);
  EXPECT_EQ(recovered.hash, wanted);
  EXPECT_GT(recovered.snapshot_seq, 0);
  const auto verified = verify_journal(file_in(crashed));
  ASSERT_TRUE(verified) << verified.error().message;
  EXPECT_EQ(verified->state_hash, wanted);
}

TEST_F(DriverJournalTest, ATornSnapshotFallsBackToTheOlderAndThenToAllRows) {
  start();
  submit(60);
  wait_for_snapshots(1);
  submit(60);
  wait_for_snapshots(2);
  submit(3);
  const fs::path crashed = crash();
  const std::string wanted = slow_hash(crashed);
  const Recovered newest = recover(crashed);  // and removes what no row refers to
  const auto files = snapshot_files(crashed);
  ASSERT_EQ(files.size(), 2u);
  tear(files.back());
  EXPECT_NE(verify_journal(file_in(crashed)).error().message.find("torn"), std::string::npos);
  const Recovered older = recover(crashed);
  EXPECT_EQ(older.hash, wanted) << older.error;
  EXPECT_GT(older.snapshot_seq, 0);
  EXPECT_LT(older.snapshot_seq, newest.snapshot_seq);
  EXPECT_TRUE(verify_journal(file_in(crashed)));  // the torn one is forgotten
  for (const fs::path& file : snapshot_files(crashed)) fs::remove(file);
  const Recovered all = recover(crashed);
  EXPECT_EQ(all.hash, wanted) << all.error;
  EXPECT_EQ(all.snapshot_seq, 0);
}

TEST_F(DriverJournalTest, ACrashBetweenTheFileAndItsReferenceLosesNothing) {
  start({}, 1'000'000);
  submit(20);
  const fs::path crashed = crash();
  const std::string wanted = slow_hash(crashed);
  ASSERT_TRUE(write_file_atomic(file_in(crashed) + ".snapshot-15.zst", "complete, but nobody knows of it"));
  ASSERT_TRUE(write_file_atomic(file_in(crashed) + ".snapshot-21.zst.tmp", "half of"));
  EXPECT_EQ(recover(crashed).hash, wanted);
  EXPECT_TRUE(snapshot_files(crashed).empty());
}

TEST_F(DriverJournalTest, APrunedJournalVerifiesRecoversAndSaysWhatIsGone) {
  start({.retain_bytes = 1});
  for (int round = 1; round <= 4; ++round) {
    submit(100);
    wait_for_snapshots(round);
  }
  submit(50);
  const fs::path crashed = crash();
  const auto verified = verify_journal(file_in(crashed));
  ASSERT_TRUE(verified) << verified.error().message;
  EXPECT_GT(verified->first_row, 1);
  EXPECT_EQ(verified->rows, 451);
  EXPECT_EQ(recover(crashed).hash, verified->state_hash);

  const auto gone = driver_->events(0, 10);
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code, Code::kNotFound);
  EXPECT_TRUE(gone.error().message.starts_with("events before ")) << gone.error().message;
  EXPECT_EQ(driver_->events(-1, 5)->size(), 5u);
  EXPECT_FALSE(driver_->events(-1, 1'000'000)->empty());
  EXPECT_FALSE(driver_->follow(0, [](const EventLine&) { return true; }));

  for (const fs::path& file : snapshot_files(crashed)) tear(file);
  EXPECT_TRUE(recover(crashed).error.starts_with("no snapshot can be read, and rows before "));
}

TEST_F(DriverJournalTest, TheLastSnapshotOfAnOrderlyEndLeavesNothingToReplay) {
  start({}, 0);
  submit(5);
  driver_.reset();
  auto journal = journal::open_sqlite_journal(file_in(root_ / "live"));
  const auto loaded = load(**journal);
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->snapshot_seq, 6);
  EXPECT_EQ(loaded->tail_rows, 0);
}

// A journal in memory that says where a child is to write.
class Misplaced : public journal::MemoryJournal {
 public:
  std::string snapshot_path(std::int64_t) const override { return path; }
  Result<void> keep_snapshot(const journal::SnapshotRef& snapshot) override {
    kept = snapshot;
    return {};
  }
  std::string path;
  std::optional<journal::SnapshotRef> kept;
};

TEST_F(DriverJournalTest, ASnapshotThatFailsIsTriedAgainLater) {
  Misplaced journal;
  Controller controller;
  ASSERT_TRUE(controller.apply({1, job("a")}).answer);
  Snapshots snapshots(journal, {.every_events = 1, .retry_ms = 1'000});
  journal.path = (root_ / "absent" / "s.zst").string();
  const auto turn_until = [&](std::int64_t now_ms, const auto& done) {
    for (int i = 0; i < 2'000 && !done(); ++i) {
      snapshots.turn(controller, now_ms);
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  };
  turn_until(0, [&] { return snapshots.status().failures > 0; });
  EXPECT_EQ(snapshots.status().failures, 1);
  snapshots.turn(controller, 999);
  EXPECT_EQ(snapshots.status().failures, 1);
  journal.path = (root_ / "s.zst").string();
  turn_until(1'000, [&] { return journal.kept.has_value(); });
  ASSERT_TRUE(journal.kept);
  EXPECT_EQ(journal.kept->state_hash, controller.state_hash());
  EXPECT_EQ(snapshots.status().saved, 1);
  snapshots.turn(controller, 2'000);  // nothing has happened since
  EXPECT_EQ(snapshots.status().saved, 1);
}

TEST_F(DriverJournalTest, SnapshotsFollowTheBytesOfRowsAndTheSizeOfTheState) {
  journal::MemoryJournal journal;
  Controller controller;
  Snapshots snapshots(journal, {});
  snapshots.appended(kRowBytesMin - 1);
  snapshots.turn(controller, 0);
  EXPECT_EQ(snapshots.status().saved, 0);
  snapshots.appended(1);
  snapshots.turn(controller, 0);
  EXPECT_EQ(snapshots.status().saved, 1);
  Snapshots of_large(journal, {});
  Loaded loaded;
  loaded.snapshot_bytes = 4 * kRowBytesMin;
  loaded.tail_bytes = 2 * kRowBytesMin - 1;
  of_large.started(loaded);
  of_large.turn(controller, 0);
  EXPECT_EQ(of_large.status().saved, 0);
  of_large.appended(1);
  of_large.turn(controller, 0);
  EXPECT_EQ(of_large.status().saved, 1);
}

}  // namespace
}  // namespace capstan::controller
