// Goal: what is told to be durable is there, each write is all or nothing, tables are brought up to date once.
#include "store/database.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <thread>

#include "base/file.h"

namespace capstan::store {
namespace {

const Tables kNotes{"notes", {"CREATE TABLE note (id BIGINT PRIMARY KEY, text TEXT)"}};
const Tables kNotesLater{"notes", {kNotes.steps[0], "ALTER TABLE note ADD COLUMN stars BIGINT NOT NULL DEFAULT 3"}};

class DatabaseTest : public testing::Test {
 protected:
  DatabaseTest() : directory_(std::filesystem::temp_directory_path() / ("capstan-store-" + random_hex(6))) {
    std::filesystem::create_directories(directory_);
  }
  ~DatabaseTest() override { std::filesystem::remove_all(directory_); }
  std::unique_ptr<Database> open(const Tables& tables = kNotes, const SqliteOptions& options = {.fsync = false}) {
    const Tables* list[] = {&tables};
    auto database = open_sqlite((directory_ / "store.sqlite").string(), list, options);
    EXPECT_TRUE(database.has_value()) << database.error().message;
    return std::move(*database);
  }
  static Database::Write add(std::int64_t id, std::string text) {
    return [id, text](Session& session) -> Result<void> {
      CAPSTAN_TRY(const auto changed, session.run("INSERT INTO note (id, text) VALUES ($1, $2)", {id, text}));
      return changed == 1 ? Result<void>{} : fail(Code::kIo, "changed {}", changed);
    };
  }
  static std::int64_t count(Database& database) {
    return database.read("SELECT count(*) FROM note").value().front().integer(0);
  }
  std::filesystem::path directory_;
};

TEST_F(DatabaseTest, WhatWasWrittenIsThereAfterOpeningAgain) {
  {
    auto database = open();
    ASSERT_TRUE(database->write(add(1, "one\0two")).has_value());
    ASSERT_TRUE(database->write(add(2, "")).has_value());
  }
  const auto rows = open()->read("SELECT id, text, NULL FROM note WHERE id >= $1 ORDER BY id", {1}).value();
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].text(1), "one");
  EXPECT_EQ(rows[1].integer(0), 2);
  EXPECT_TRUE(rows[1].is_null(2));
}

TEST_F(DatabaseTest, AWriteThatFailsLeavesNothingAndTheOthersOfItsGroupStay) {
  auto database = open();
  ASSERT_TRUE(database->write(add(7, "seven")).has_value());
  std::atomic<int> done = 0, conflicts = 0;
  for (int i = 0; i < 100; ++i) {
    database->write(
        [i](Session& session) -> Result<void> {
          CAPSTAN_CHECK(add(100 + i, "kept if the next one is")(session));
          return i % 2 == 0 ? Result<void>{} : add(7, "taken")(session);
        },
        [&](const Result<void>& result) {
          ++done;
          if (!result && result.error().code == Code::kConflict) ++conflicts;
        });
  }
  ASSERT_TRUE(database->write(add(1000, "last")).has_value());
  EXPECT_EQ(done, 100);
  EXPECT_EQ(conflicts, 50);
  EXPECT_EQ(count(*database), 52);
}

TEST_F(DatabaseTest, ThousandsOfWritesFromManyThreadsAreAllCommittedInFewGroups) {
  auto database = open(kNotes, {.fsync = true});
  std::vector<std::thread> threads;
  std::atomic<int> durable = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 1000; ++i)
        database->write(add(t * 1000 + i, "x"), [&](const Result<void>& result) { durable += result ? 1 : 0; });
    });
  }
  for (auto& thread : threads) thread.join();
  database.reset();
  EXPECT_EQ(durable, 4000);
  EXPECT_EQ(count(*open()), 4000);
}

TEST_F(DatabaseTest, SettledMeansThatAllBeforeHaveBeenTold) {
  auto database = open();
  std::atomic<int> told{0};
  for (int round = 0; round < 20; ++round) {
    for (int i = 0; i < 10; ++i) {
      database->write([](Session&) -> Result<void> { return {}; },
                      [&](const Result<void>&) {
                        std::this_thread::sleep_for(std::chrono::microseconds(100));
                        ++told;
                      });
    }
    database->settle();
    EXPECT_EQ(told, 10 * (round + 1));
  }
}

TEST_F(DatabaseTest, AnOlderFileIsBroughtUpToDateOnceAndANewerOneIsRefused) {
  ASSERT_TRUE(open()->write(add(1, "old")).has_value());
  for (int i = 0; i < 2; ++i) {
    const auto rows = open(kNotesLater)->read("SELECT stars FROM note").value();
    ASSERT_EQ(rows.size(), 1u);
    EXPECT_EQ(rows[0].integer(0), 3);
  }
  const Tables* list[] = {&kNotes};
  const auto refused = open_sqlite((directory_ / "store.sqlite").string(), list, {});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kUnsupported);
}

TEST_F(DatabaseTest, AFullDiskRefusesAWriteAndTheDatabaseGoesOn) {
  auto database = open(kNotes, {.fsync = false, .pages_max = 20});
  const auto refused = database->write(add(1, std::string(200'000, 'x')));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kExhausted);
  EXPECT_TRUE(database->write(add(2, "small")).has_value());
  EXPECT_EQ(count(*database), 1);
}

TEST_F(DatabaseTest, WrongSqlSaysWhatIsWrong) {
  auto database = open();
  const auto refused = database->read("SELECT nothing FROM nowhere");
  ASSERT_FALSE(refused.has_value());
  EXPECT_NE(refused.error().message.find("nowhere"), std::string::npos);
}

}  // namespace
}  // namespace capstan::store
