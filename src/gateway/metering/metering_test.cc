// Goal: each request is in SQL exactly once with what it used, whatever moment the process is killed at.
// Method: records against sums; and a child process that is killed with SIGKILL while it admits and settles, with
// what it had told the parent (through a pipe, after settling) as the truth.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <map>

#include "base/file.h"
#include "base/prng.h"
#include "gateway/metering/meter.h"

namespace capstan::gateway {
namespace {

using store::UsageRecord;

constexpr std::int64_t kNow = 1'764'200'000'000;

class MeteringTest : public testing::Test {
 protected:
  MeteringTest() : directory_(std::filesystem::temp_directory_path() / ("capstan-meter-" + random_hex(6))) {
    std::filesystem::create_directories(directory_);
  }
  ~MeteringTest() override {
    meter_.reset();
    database_.reset();
    std::filesystem::remove_all(directory_);
  }
  void open(std::int64_t pages_max = 0) {
    meter_.reset();
    database_.reset();
    const store::Tables* list[] = {&store::kUsageTables};
    const store::SqliteOptions options{.fsync = false, .pages_max = pages_max};
    database_ = store::open_sqlite((directory_ / "store.sqlite").string(), list, options).value();
    auto meter = Meter::open(*database_, directory_ / "usage.ledger");
    ASSERT_TRUE(meter.has_value()) << meter.error().message;
    meter_ = std::move(*meter);
  }
  Ledger::Slot begin(UsageRecord& record, std::int64_t now_ms = kNow) { return meter_->begin(record, now_ms).value(); }
  store::UsageSum sum(const store::UsageOf& of = {}) {
    return store::usage_since(*database_, of, 0, INT64_MAX).value();
  }

  std::filesystem::path directory_;
  std::unique_ptr<store::Database> database_;
  std::unique_ptr<Meter> meter_;
};

TEST_F(MeteringTest, WhatIsSettledIsARowAndASumByTheHour) {
  open();
  for (int i = 0; i < 100; ++i) {
    UsageRecord record{.key = 1 + i % 2, .project = 7, .organisation = 3, .model = 1 + i % 5};
    const auto slot = begin(record, kNow + i * 60'000);
    record.prompt_tokens = 10, record.cached_tokens = 4, record.completion_tokens = i, record.nano_dollars = 5;
    record.status = 200;
    std::strcpy(record.request_id.data(), "req_1");
    meter_->ledger().finish(slot, record);
  }
  ASSERT_TRUE(meter_->flush().has_value());
  EXPECT_EQ(sum().requests, 100);
  EXPECT_EQ(sum().output_tokens, 4950);
  EXPECT_EQ(sum({.key = 1}).requests, 50);
  EXPECT_EQ(sum({.key = 1, .model = 1}).requests, 10);
  EXPECT_EQ(sum({.project = 8}).requests, 0);
  // A window of a minute comes from the rows.
  EXPECT_EQ(store::usage_since(*database_, {}, kNow, kNow + 60'000).value().requests, 1);
  const auto lines = store::usage_report(*database_, {.by = store::UsageBy::kModel}).value();
  ASSERT_EQ(lines.size(), 5u);
  EXPECT_EQ(lines[0].group, 1);
  EXPECT_EQ(lines[0].sum.nano_dollars, 100);
  const auto records = store::usage_records(*database_, {.key = 2}, 3).value();
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(records[0].completion_tokens, 99);
  EXPECT_STREQ(records[0].request_id.data(), "req_1");
}

TEST_F(MeteringTest, TheSameRecordTwiceCountsOnce) {
  open();
  const UsageRecord record{.id = kNow * store::kUsageIdsPerMs, .key = 1, .prompt_tokens = 10};
  const std::vector<UsageRecord> twice{record, record};
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(database_->write([&](store::Session& session) { return store::insert_usage(session, twice); }).has_value());
  }
  EXPECT_EQ(sum().requests, 1);
  EXPECT_EQ(sum().input_tokens, 10);
}

TEST_F(MeteringTest, RowsPastTheirDaysGoAndTheirSumsStay) {
  open();
  for (const std::int64_t days : {0, 10, 40, 41, 42}) {
    UsageRecord record{.prompt_tokens = 1};
    const auto slot = begin(record, kNow + days * 86'400'000);
    meter_->ledger().finish(slot, record);
    ASSERT_TRUE(meter_->flush().has_value());
  }
  EXPECT_EQ(store::usage_records(*database_, {}, 100).value().size(), 4u);  // day 0 is 42 days ago
  EXPECT_EQ(sum().requests, 5);
}

TEST_F(MeteringTest, WhatTheRunBeforeLeftIsSettledOnceWithTheTokensThatWereSent) {
  open();
  UsageRecord streaming{.price = {1'000'000, 0, 2'000'000}, .prompt_tokens = 50};
  UsageRecord waiting = streaming;
  const auto a = begin(streaming);
  begin(waiting);
  meter_->ledger().progress(a, 17);
  // As after a kill: the file as it is now, read by another one.
  std::filesystem::copy_file(directory_ / "usage.ledger", directory_ / "copy.ledger");
  for (int i = 0; i < 2; ++i) {
    auto again = Meter::open(*database_, directory_ / "copy.ledger");
    ASSERT_TRUE(again.has_value());
    EXPECT_EQ(sum().requests, 2);
    EXPECT_EQ(sum().input_tokens, 50);  // of the one that had not begun nothing is owed
    EXPECT_EQ(sum().output_tokens, 17);
    EXPECT_EQ(sum().nano_dollars, 50'000 + 34'000);
  }
}

TEST_F(MeteringTest, ADamagedLedgerCostsOnlyTheDamagedRecords) {
  open();
  UsageRecord record{.prompt_tokens = 5};
  for (int i = 0; i < 3; ++i) meter_->ledger().progress(begin(record), 1);
  std::string bytes = read_file(directory_ / "usage.ledger").value();
  const std::size_t at = bytes.find("NEPO");  // the first open cell
  ASSERT_NE(at, std::string::npos);
  bytes[at + 100] = static_cast<char>(bytes[at + 100] ^ 1);
  ASSERT_TRUE(write_file_atomic(directory_ / "copy.ledger", bytes, 0600).has_value());
  ASSERT_TRUE(Meter::open(*database_, directory_ / "copy.ledger").has_value());
  EXPECT_EQ(sum().requests, 2);
}

TEST_F(MeteringTest, WhenTheDiskIsFullRecordsWaitInTheLedgerAndTheLedgerIsBounded) {
  open(30);
  std::size_t begun = 0;
  while (true) {
    UsageRecord record{.prompt_tokens = 1};
    const auto slot = meter_->begin(record, kNow);
    if (!slot) break;
    meter_->ledger().finish(*slot, record);
    ASSERT_LE(++begun, 2 * std::size_t{Ledger::kSlots});
  }
  EXPECT_GE(begun, std::size_t{Ledger::kSlots});
  EXPECT_FALSE(meter_->flush().has_value());
  open();  // with room again
  EXPECT_EQ(sum().requests, static_cast<std::int64_t>(begun));
}

constexpr int kLong = 3;  // requests of each run that are under way when it is killed
constexpr std::int64_t kLongTokens = 77;

// In the child: admits, streams and settles from two threads until it is killed; tells what it settled.
[[noreturn]] void meter_until_killed(const std::filesystem::path& directory, int pipe) {
  const store::Tables* list[] = {&store::kUsageTables};
  auto database = store::open_sqlite((directory / "store.sqlite").string(), list, {.fsync = false}).value();
  auto meter = Meter::open(*database, directory / "usage.ledger").value();
  for (int i = 0; i < kLong; ++i) {
    UsageRecord record{.key = 2, .prompt_tokens = 10};
    meter->ledger().progress(meter->begin(record, kNow).value(), kLongTokens);
  }
  const auto work = [&](std::uint64_t seed) {
    Prng prng(seed);
    while (true) {
      UsageRecord record{.key = 1, .prompt_tokens = 10};
      const auto slot = meter->begin(record, kNow);
      if (!slot) continue;
      record.completion_tokens = prng.between(1, 50);
      for (std::int64_t i = 1; i <= record.completion_tokens; ++i) meter->ledger().progress(*slot, i);
      record.status = 200;
      meter->ledger().finish(*slot, record);
      const std::int64_t told[2] = {record.id, record.completion_tokens};
      if (::write(pipe, told, sizeof told) != sizeof told) ::_exit(1);
    }
  };
  std::thread other(work, 1);
  work(2);
  ::_exit(0);
}

TEST_F(MeteringTest, AKilledProcessLosesNothingThatItSettledAndCountsNothingTwice) {
  std::map<std::int64_t, std::int64_t> told;
  for (int round = 0; round < 5; ++round) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(ends[0]);
      meter_until_killed(directory_, ends[1]);
    }
    ::close(ends[1]);
    std::int64_t one[2];
    for (int i = 0; i < 5'000 + round * 1'234; ++i) {
      ASSERT_EQ(::read(ends[0], one, sizeof one), static_cast<ssize_t>(sizeof one));
      told[one[0]] = one[1];
    }
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    while (::read(ends[0], one, sizeof one) == sizeof one) told[one[0]] = one[1];
    ::close(ends[0]);
  }
  open();
  std::int64_t settled = 0, interrupted = 0;
  const auto records = store::usage_records(*database_, {}, INT64_MAX).value();
  for (const UsageRecord& record : records) {
    const auto found = told.find(record.id);
    if (found == told.end()) {
      ++interrupted;  // under way, or settled and not told any more
      EXPECT_LE(record.completion_tokens, record.key == 2 ? kLongTokens : 50);
      continue;
    }
    ++settled;
    EXPECT_EQ(record.completion_tokens, found->second);
    EXPECT_EQ(record.status, 200);
  }
  EXPECT_EQ(settled, static_cast<std::int64_t>(told.size()));
  EXPECT_GE(interrupted, kLong * 5);
  EXPECT_LE(interrupted, kLong * 5 + 2 * 5);
  EXPECT_EQ(sum({.key = 2}).output_tokens, kLong * 5 * kLongTokens);
  EXPECT_EQ(sum().requests, settled + interrupted);
  std::printf("%lld requests settled before 5 kills, %lld under way\n", static_cast<long long>(settled),
              static_cast<long long>(interrupted));
}

}  // namespace
}  // namespace capstan::gateway
