// Goal: what programs in sandboxes used is counted once, however often it is recorded, and adds up.
#include "store/compute_usage.h"

#include <gtest/gtest.h>

#include <array>
#include <filesystem>

#include "base/file.h"

namespace capstan::store {
namespace {

class ComputeUsage : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = std::filesystem::temp_directory_path() / ("capstan-compute-" + random_hex(6));
    std::filesystem::create_directories(directory_);
    const std::array parts = {&kComputeTables};
    auto opened = open_sqlite((directory_ / "store.sqlite").string(), parts, {.fsync = false});
    ASSERT_TRUE(opened) << opened.error().message;
    database_ = std::move(*opened);
  }
  void TearDown() override {
    database_.reset();
    std::filesystem::remove_all(directory_);
  }
  void insert(std::vector<ComputeRecord> records) {
    const auto done = database_->write([&](Session& session) { return insert_compute(session, records); });
    ASSERT_TRUE(done) << done.error().message;
  }

  std::filesystem::path directory_;
  std::unique_ptr<Database> database_;
};

constexpr std::int64_t kHour = 3'600'000, kDay = 24 * kHour;

ComputeRecord record(std::string id, std::int64_t time_ms, std::string kind, std::int64_t project, ComputeSum sum) {
  return {.id = std::move(id), .time_ms = time_ms, .kind = std::move(kind), .name = "n", .key = 7, .project = project,
          .organisation = 1, .sum = sum};
}

TEST_F(ComputeUsage, WhatIsRecordedTwiceCountsOnce) {
  const auto one = record("sandbox/a/1", 100 * kDay, "sandbox", 2, {1, 10, 20, 30, 40, 50, 60});
  insert({one, one});
  insert({one});
  const auto lines = compute_report(*database_, {});
  ASSERT_TRUE(lines) << lines.error().message;
  ASSERT_EQ(lines->size(), 1u);
  EXPECT_EQ((*lines)[0].kind, "sandbox");
  EXPECT_EQ((*lines)[0].sum.runs, 1);
  EXPECT_EQ((*lines)[0].sum.cpu_us, 20);
  EXPECT_EQ((*lines)[0].sum.bytes_out, 60);
}

TEST_F(ComputeUsage, PartsAddUpAndThePeakIsTheHighest) {
  insert({record("s/1", 100 * kDay, "sandbox", 2, {1, 10, 20, 30, 400, 1, 2}),
          record("s/2", 100 * kDay + 1, "sandbox", 2, {0, 10, 5, 30, 100, 1, 2}),
          record("t/1", 100 * kDay + kHour, "task", 3, {1000, 1, 500, 1, 7, 0, 0})});
  const auto lines = compute_report(*database_, {.by = ComputeBy::kProject});
  ASSERT_TRUE(lines) << lines.error().message;
  ASSERT_EQ(lines->size(), 2u);
  EXPECT_EQ((*lines)[0].group, 3);  // more CPU time
  EXPECT_EQ((*lines)[0].sum.runs, 1000);
  EXPECT_EQ((*lines)[1].sum.runs, 1);
  EXPECT_EQ((*lines)[1].sum.cpu_us, 25);
  EXPECT_EQ((*lines)[1].sum.memory_peak_bytes, 400);
}

TEST_F(ComputeUsage, DaysAndProjectsNarrowAReport) {
  insert({record("a", 100 * kDay + kHour, "sandbox", 2, {1, 1, 1, 1, 1, 1, 1}),
          record("b", 101 * kDay + kHour, "sandbox", 2, {1, 1, 2, 1, 1, 1, 1}),
          record("c", 101 * kDay + kHour, "sandbox", 4, {1, 1, 4, 1, 1, 1, 1})});
  const auto days = compute_report(*database_, {.by = ComputeBy::kDay, .of = {.project = 2}});
  ASSERT_TRUE(days && days->size() == 2u);
  EXPECT_EQ((*days)[0].group, 100 * kDay);
  EXPECT_EQ((*days)[1].sum.cpu_us, 2);
  const auto late = compute_report(*database_, {.since_ms = 101 * kDay});
  ASSERT_TRUE(late && late->size() == 1u);
  EXPECT_EQ((*late)[0].sum.cpu_us, 6);
}

TEST_F(ComputeUsage, OldRowsGoAndTheirSumsStay) {
  insert({record("old", kDay, "task", 2, {1, 1, 10, 1, 1, 1, 1})});
  insert({record("new", kDay * (2 + kComputeDays), "task", 2, {1, 1, 10, 1, 1, 1, 1})});
  const auto records = compute_records(*database_, {}, 10);
  ASSERT_TRUE(records && records->size() == 1u);
  EXPECT_EQ((*records)[0].id, "new");
  const auto lines = compute_report(*database_, {});
  ASSERT_TRUE(lines);
  EXPECT_EQ((*lines)[0].sum.cpu_us, 20);
}

// Goal: a recorder's position moves with what it records, or not at all.
TEST_F(ComputeUsage, APositionMovesOnlyWithItsRecords) {
  EXPECT_EQ(*compute_position(*database_, "tasks"), std::nullopt);
  const auto write = [&](const std::string& id, std::int64_t position) {
    const std::vector records = {record(id, kDay, "task", 0, {1, 1, 1, 1, 1, 1, 1})};
    return database_->write([&](Session& session) -> Result<void> {
      CAPSTAN_CHECK(set_compute_position(session, "tasks", position));
      return insert_compute(session, records);
    });
  };
  ASSERT_TRUE(write("a", 7));
  EXPECT_EQ(*compute_position(*database_, "tasks"), 7);
  EXPECT_FALSE(write("", 9));
  EXPECT_EQ(*compute_position(*database_, "tasks"), 7);
  ASSERT_TRUE(write("b", 12));
  EXPECT_EQ(*compute_position(*database_, "tasks"), 12);
}

TEST_F(ComputeUsage, ARecordWithoutAnIdIsRefused) {
  const std::vector records = {record("", 1, "task", 1, {})};
  EXPECT_FALSE(database_->write([&](Session& session) { return insert_compute(session, records); }));
}

}  // namespace
}  // namespace capstan::store
