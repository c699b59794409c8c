// Goal: what was appended is read back or refused, never silently changed; a full disk loses nothing.
// Method: both implementations run the same script; a second connection damages the SQLite file.
#include "journal/journal.h"

#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>

#include "base/file.h"
#include "base/sha256.h"
#include "journal/huge_pages.h"
#include "journal/snapshotter.h"

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
  // What opening and reading everything says.
  std::string refusal() {
    auto journal = open_sqlite_journal(path());
    if (!journal) return journal.error().message;
    const auto read =
        (*journal)->read((*journal)->begin_seq() + 1, [](const Row&) { return Result<void>(); });
    return read ? "fine" : read.error().message;
  }
  void damage(const char* sql) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(path().c_str(), &db), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(db, sql, nullptr, nullptr, nullptr), SQLITE_OK);
    sqlite3_close(db);
  }
  std::filesystem::path directory_;
};

TextWriter text_writer(std::string text) {
  return [text = std::move(text)](const TextSink& sink) { sink(text); };
}

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
  EXPECT_TRUE(journal.snapshots()->empty());
  for (std::int64_t seq = 4; seq <= 6; ++seq) {
    ASSERT_TRUE(journal.append(std::vector<Row>{row(seq)}));
    ASSERT_TRUE(journal.save_snapshot(text_writer(fmt::format("at {}", seq))));
  }
  const auto snapshots = *journal.snapshots();
  ASSERT_EQ(snapshots.size(), 2u);
  EXPECT_EQ(snapshots[0].seq, 6);
  EXPECT_EQ(snapshots[0].state_hash, sha256_hex("at 6"));
  EXPECT_EQ(*journal.snapshot_text(snapshots[0]), "at 6");
  EXPECT_EQ(*journal.snapshot_text(snapshots[1]), "at 5");
  ASSERT_TRUE(journal.forget_snapshot(snapshots[0]));
  EXPECT_EQ(journal.snapshots()->front().seq, 5);
  EXPECT_FALSE(journal.snapshot_text(snapshots[0]));
}

TEST_F(JournalTest, MemoryKeepsTheScript) {
  MemoryJournal journal;
  check_script(journal);
}

TEST_F(JournalTest, SqliteKeepsTheScriptAndReopens) {
  check_script(*open());
  const auto journal = open();
  EXPECT_EQ(journal->last_seq(), 6);
  EXPECT_EQ(*journal->snapshot_text(journal->snapshots()->front()), "at 5");
  ASSERT_TRUE(journal->append(std::vector<Row>{row(7)}));
  EXPECT_EQ(all(*journal).size(), 7u);
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
  damage("UPDATE chain SET format = 3");
  EXPECT_NE(refusal().find("has format 3, this build reads format 2"), std::string::npos) << refusal();
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

// The files of snapshots beside the database.
std::vector<std::string> names_in(const std::filesystem::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (name.find(".snapshot-") != name.npos) names.push_back(name.substr(name.find(".snapshot-") + 10));
  }
  std::ranges::sort(names);
  return names;
}

TEST_F(JournalTest, AFormatOneFileIsTakenOverWithAllItsRows) {
  ASSERT_TRUE(open()->append(std::vector<Row>{row(1), row(2)}));
  damage(
      "DROP TABLE snapshot; CREATE TABLE snapshot (seq INTEGER PRIMARY KEY, state_hash TEXT NOT NULL, state "
      "TEXT "
      "NOT NULL, checksum TEXT NOT NULL); INSERT INTO snapshot VALUES (1, 'h', '{}', 'c');"
      "CREATE INDEX journal_event_last ON journal (event_last);"
      "ALTER TABLE chain DROP COLUMN begin_seq; ALTER TABLE chain DROP COLUMN begin_event;"
      "ALTER TABLE chain DROP COLUMN begin_checksum; UPDATE chain SET format = 1");
  EXPECT_EQ(all(*open({.read_only = true})).size(), 2u);
  const auto journal = open();
  EXPECT_EQ(all(*journal), (std::vector<Row>{row(1), row(2)}));
  EXPECT_TRUE(journal->snapshots()->empty());
  ASSERT_TRUE(journal->append(std::vector<Row>{row(3)}));
  ASSERT_TRUE(journal->save_snapshot(text_writer("s")));
  EXPECT_EQ(refusal(), "fine");
}

TEST_F(JournalTest, RowsThatTheOlderSnapshotIncludesArePrunedAndTheRestVerifies) {
  const auto check = [](Journal& journal) {
    std::int64_t seq = 0;
    for (int i = 0; i < 200; ++i) ASSERT_TRUE(journal.append(std::vector<Row>{row(++seq)}));
    EXPECT_EQ(journal.begin_seq(), 0);  // not without two snapshots
    ASSERT_TRUE(journal.save_snapshot(text_writer("a")));
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(journal.append(std::vector<Row>{row(++seq)}));
    EXPECT_EQ(journal.begin_seq(), 0);
    ASSERT_TRUE(journal.save_snapshot(text_writer("b")));
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(journal.append(std::vector<Row>{row(++seq)}));
    EXPECT_EQ(journal.begin_seq(), 200);
    EXPECT_EQ(journal.begin_event(), 400);
    EXPECT_EQ(journal.last_seq(), 220);
    EXPECT_EQ(all(journal, 201).size(), 20u);
    EXPECT_EQ(journal.read(200, [](const Row&) { return Result<void>(); }).error().code, Code::kNotFound);
    EXPECT_EQ(journal.rows_after_event(400, 1)->front().seq, 201);
    const auto pruned = journal.rows_after_event(399, 1);
    ASSERT_FALSE(pruned);
    EXPECT_EQ(pruned.error().code, Code::kNotFound);
    EXPECT_EQ(pruned.error().message, "events before 401 were pruned");
  };
  MemoryJournal memory(12);
  check(memory);
  check(*open({.retain_bytes = 1}));
  const auto journal = open();
  EXPECT_EQ(journal->begin_seq(), 200);
  EXPECT_EQ(*journal->snapshot_text(journal->snapshots()->back()), "a");
  EXPECT_EQ(refusal(), "fine");
  damage("UPDATE chain SET begin_checksum = 'x'");
  EXPECT_TRUE(refusal().starts_with("journal row 201 fails its checksum")) << refusal();
  damage("DELETE FROM journal WHERE seq = 201");
  EXPECT_TRUE(refusal().starts_with("journal row 201 is missing")) << refusal();
}

TEST_F(JournalTest, ASnapshotThatIsDamagedOrOfAnotherHistoryIsRefused) {
  auto journal = open();
  ASSERT_TRUE(journal->append(std::vector<Row>{row(1)}));
  std::string text;
  for (std::int64_t i = 0; i < 100'000; ++i) text += std::to_string(i * 7919);
  ASSERT_TRUE(journal->save_snapshot(text_writer(text)));
  const SnapshotRef ref = journal->snapshots()->front();
  EXPECT_EQ(*journal->snapshot_text(ref), text);
  const auto refused = [&] {
    const auto read = journal->snapshot_text(ref);
    return read ? "read" : read.error().message;
  };
  const std::string file = journal->snapshot_path(1);
  const std::string bytes = *read_file(file);
  ASSERT_TRUE(write_file_atomic(file, bytes.substr(0, bytes.size() / 2)));
  EXPECT_TRUE(refused().ends_with("is torn")) << refused();
  std::string flipped = bytes;
  flipped[bytes.size() / 2] ^= 1;
  ASSERT_TRUE(write_file_atomic(file, flipped));
  EXPECT_NE(refused(), "read");
  ASSERT_TRUE(write_file_atomic(file, bytes + bytes));
  EXPECT_NE(refused(), "read");
  ASSERT_TRUE(write_snapshot_file(file, text_writer("another")));
  EXPECT_NE(refused(), "read");
  ASSERT_TRUE(write_file_atomic(file, bytes));
  EXPECT_EQ(refused(), "read");
  damage("UPDATE snapshot SET checksum = 'x'");
  EXPECT_EQ(refused(), "the snapshot at row 1 is of another history");
  std::filesystem::remove(file);
  damage("UPDATE snapshot SET checksum = (SELECT checksum FROM chain)");
  EXPECT_EQ(journal->snapshot_text(ref).error().code, Code::kNotFound);
}

TEST_F(JournalTest, AFileThatNoRowRefersToIsRemovedAtTheNextStart) {
  auto journal = open();
  ASSERT_TRUE(journal->append(std::vector<Row>{row(1), row(2)}));
  ASSERT_TRUE(journal->save_snapshot(text_writer("kept")));
  ASSERT_TRUE(write_snapshot_file(journal->snapshot_path(9), text_writer("written, then a crash")));
  ASSERT_TRUE(write_file_atomic(journal->snapshot_path(8) + ".tmp", "torn"));
  EXPECT_EQ(names_in(directory_), (std::vector<std::string>{"2.zst", "8.zst.tmp", "9.zst"}));
  journal = open();
  EXPECT_EQ(names_in(directory_), (std::vector<std::string>{"2.zst"}));
  EXPECT_EQ(*journal->snapshot_text(journal->snapshots()->front()), "kept");
}

// Waits for the child's end; the test's clock stands at `now_ms`.
Result<SnapshotFile> wait_for(Snapshotter& snapshotter, std::int64_t now_ms) {
  for (;;) {
    if (auto done = snapshotter.poll(now_ms)) return *done;
    ::usleep(1'000);
  }
}

TEST_F(JournalTest, AChildWritesTheStateOfTheMomentAndRemovesWhatIsObsolete) {
  Snapshotter snapshotter;
  const std::string obsolete = (directory_ / "obsolete").string();
  ASSERT_TRUE(write_file_atomic(obsolete, "x"));
  std::string state(3'000'000, 'a');
  const std::string file = (directory_ / "s.zst").string();
  ASSERT_TRUE(snapshotter.start({.path = file, .remove = {obsolete}}, 0, text_writer(state)));
  EXPECT_TRUE(snapshotter.busy());
  const auto done = wait_for(snapshotter, 1);
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_FALSE(snapshotter.busy());
  EXPECT_EQ(done->state_hash, sha256_hex(state));
  EXPECT_EQ(done->text_bytes, 3'000'000);
  EXPECT_EQ(static_cast<std::uint64_t>(done->file_bytes), std::filesystem::file_size(file));
  EXPECT_EQ(*read_snapshot_file(file, done->state_hash, done->text_bytes), state);
  EXPECT_FALSE(std::filesystem::exists(obsolete));
  EXPECT_FALSE(snapshotter.poll(2));
}

TEST_F(JournalTest, AChildThatDiesHangsOrHasNoRoomIsAnErrorAndLeavesNothing) {
  Snapshotter snapshotter;
  const std::string file = (directory_ / "s.zst").string();
  const auto outcome = [&](std::int64_t now_ms, const TextWriter& write) {
    EXPECT_TRUE(snapshotter.start({.path = file, .timeout_ms = 100}, 0, write));
    const auto done = wait_for(snapshotter, now_ms);
    EXPECT_FALSE(std::filesystem::exists(file));
    EXPECT_FALSE(std::filesystem::exists(file + ".tmp"));
    return done ? "written" : done.error().message;
  };
  EXPECT_EQ(outcome(0,
                    [](const TextSink& sink) {
                      sink("some");
                      ::_exit(3);
                    }),
            "the process that wrote the snapshot died");
  EXPECT_EQ(outcome(100, [](const TextSink&) { ::usleep(60'000'000); }),
            "the snapshot was not written within 100 ms");
  // A file size limit stands for the full disk; the limit's signal would end the child otherwise.
  EXPECT_NE(outcome(0,
                    [](const TextSink& sink) {
                      ::signal(SIGXFSZ, SIG_IGN);
                      const rlimit limit{1'000, 1'000};
                      ::setrlimit(RLIMIT_FSIZE, &limit);
                      std::string noise;
                      for (std::int64_t i = 0; i < 1'000'000; ++i) noise += std::to_string(i * 7919);
                      sink(noise);
                    })
                .find("cannot write"),
            std::string::npos);
  EXPECT_FALSE(snapshotter.start({.path = "/nowhere/at/all"}, 0, text_writer("x")));
  {
    Snapshotter abandoned;
    ASSERT_TRUE(abandoned.start({.path = file}, 0, [](const TextSink&) { ::usleep(60'000'000); }));
  }
  EXPECT_FALSE(std::filesystem::exists(file + ".tmp"));
}

TEST_F(JournalTest, GatheringHugePagesChangesNoByte) {
  std::vector<std::int64_t> numbers(16'000'000);  // 128 MB
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<std::int64_t>(i * i);
  EXPECT_GE(gather_huge_pages(), 0);
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    ASSERT_EQ(numbers[i], static_cast<std::int64_t>(i * i));
  }
  Snapshotter snapshotter;
  EXPECT_FALSE(snapshotter.prepared());
  snapshotter.prepare();
  while (!snapshotter.prepared()) ::usleep(1'000);
  const std::string file = (directory_ / "s.zst").string();
  ASSERT_TRUE(snapshotter.start({.path = file}, 0, text_writer("after")));
  EXPECT_EQ(wait_for(snapshotter, 0)->text_bytes, 5);
}

}  // namespace
}  // namespace capstan::journal
