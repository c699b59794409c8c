// Goal: what was appended is read back or refused, never silently changed; a full disk loses nothing.
// Method: both implementations run the same script; a second connection damages the SQLite file.
#include "journal/journal.h"

#include <gtest/gtest.h>
#include <sqlite3.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.h"

namespace capstan::journal {
namespace {

Row row(std::int64_t seq) {
  return {seq, 1000 + seq, "b1", fmt::format("{{\"type\":\"tick{}\"}}", seq), "[{\"type\":\"x\"}]", seq * 2};
}

class JournalTest : public testing::Test {
 protected:
  JournalTest()
      : directory_(std::filesystem::temp_directory_path() / ("journal_test_" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(directory_);
  }
  ~JournalTest() override { std::filesystem::remove_all(directory_); }
  std::string path() const { return (directory_ / "journal.sqlite").string(); }
  std::unique_ptr<Journal> open(const SqliteOptions& options = {}) {
    auto journal = open_sqlite_journal(path(), options);
    EXPECT_TRUE(journal) << (journal ? "" : journal.error().message);
    return journal ? *std::move(journal) : nullptr;
  }
  std::string refusal() {
    auto journal = open_sqlite_journal(path());
    return journal ? "opened" : journal.error().message;
  }
  void damage(const char* sql) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(path().c_str(), &db), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(db, sql, nullptr, nullptr, nullptr), SQLITE_OK);
    sqlite3_close(db);
  }
  std::filesystem::path directory_;
};

std::vector<Row> all(Journal& journal, std::int64_t from = 1) {
  std::vector<Row> rows;
  EXPECT_TRUE(journal.read(from, [&](const Row& one) -> Result<void> {
    rows.push_back(one);
    return {};
  }));
  return rows;
}

void check_script(Journal& journal) {
  EXPECT_EQ(journal.last_seq(), 0);
  ASSERT_TRUE(journal.append(std::vector<Row>{row(1), row(2)}));
  ASSERT_TRUE(journal.append(std::vector<Row>{row(3)}));
  EXPECT_EQ(journal.last_seq(), 3);
  EXPECT_EQ(all(journal), (std::vector<Row>{row(1), row(2), row(3)}));
  EXPECT_EQ(all(journal, 3), (std::vector<Row>{row(3)}));
  EXPECT_EQ(all(journal, 4), std::vector<Row>{});
  EXPECT_EQ(*journal.rows_after_event(3, 10), (std::vector<Row>{row(2), row(3)}));
  EXPECT_EQ(*journal.rows_after_event(3, 1), (std::vector<Row>{row(2)}));
  EXPECT_FALSE(*journal.latest_snapshot(INT64_MAX));
  for (const std::int64_t seq : {1, 2, 3})
    ASSERT_TRUE(journal.save_snapshot({seq, "h", fmt::format("{{\"at\":{}}}", seq)}));
  EXPECT_EQ((*journal.latest_snapshot(INT64_MAX))->seq, 3);
  EXPECT_EQ((*journal.latest_snapshot(2))->state, "{\"at\":2}");
}

TEST_F(JournalTest, MemoryKeepsTheScript) {
  MemoryJournal journal;
  check_script(journal);
}

TEST_F(JournalTest, SqliteKeepsTheScriptAndReopens) {
  check_script(*open());
  const auto journal = open();
  EXPECT_EQ(journal->last_seq(), 3);
  ASSERT_TRUE(journal->append(std::vector<Row>{row(4)}));
  EXPECT_EQ(all(*journal).size(), 4u);
}

TEST_F(JournalTest, DamageIsRefusedWithTheRowAndWhatToDo) {
  const auto filled = [&] {
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
    ASSERT_TRUE(open()->append(std::vector<Row>{row(1), row(2), row(3)}));
  };
  filled();
  damage("UPDATE journal SET events = '[]' WHERE seq = 2");
  EXPECT_TRUE(refusal().starts_with(
      "journal row 2 fails its checksum: the file is damaged and nothing was started; restore it"))
      << refusal();
  filled();
  damage("DELETE FROM journal WHERE seq = 2");
  EXPECT_TRUE(refusal().starts_with("journal row 2 is missing")) << refusal();
  filled();
  damage("DELETE FROM journal WHERE seq = 3");
  EXPECT_TRUE(refusal().starts_with("journal row 3 is missing")) << refusal();
  filled();
  damage("UPDATE chain SET format = 2");
  EXPECT_NE(refusal().find("has format 2, this build reads format 1"), std::string::npos) << refusal();
  filled();
  ASSERT_TRUE(write_file_atomic(path(), "this is no database, whatever it says"));
  EXPECT_NE(refusal().find("move the file away"), std::string::npos) << refusal();
}

TEST_F(JournalTest, AFullDiskKeepsNothingOfTheBatchAndRecovers) {
  {
    const auto journal = open({.pages_max = 24});
    std::int64_t seq = 1;
    Row big = row(seq);
    big.input = "\"" + std::string(9000, 'x') + "\"";
    Result<void> appended;
    while ((appended = journal->append(std::vector<Row>{big}))) big.seq = ++seq;
    EXPECT_EQ(appended.error().code, Code::kExhausted) << appended.error().message;
    EXPECT_EQ(journal->last_seq(), seq - 1);
    EXPECT_EQ(all(*journal).size(), static_cast<std::size_t>(seq - 1));
  }
  const auto journal = open();
  Row next = row(journal->last_seq() + 1);
  EXPECT_TRUE(journal->append(std::vector<Row>{next}));
}

TEST_F(JournalTest, CanBeInspectedBesideItsOwner) {
  const auto owner = open();
  ASSERT_TRUE(owner->append(std::vector<Row>{row(1)}));
  const auto reader = open({.read_only = true});
  ASSERT_TRUE(reader);
  EXPECT_EQ(all(*reader).size(), 1u);
}

}  // namespace
}  // namespace capstan::journal
