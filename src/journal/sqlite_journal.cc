// How it works: one SQLite file in WAL mode with synchronous=FULL. append() is one transaction: the rows and
// the new end of the chain (table `chain`), so that a missing tail is found as surely as a changed middle.
// SQLite itself rolls an unfinished transaction back, so there is no torn tail: whatever does not verify is
// damage and refused, never cut off.
#include <sqlite3.h>

#include <algorithm>

#include "base/assert.h"
#include "base/sha256.h"
#include "journal/journal.h"

namespace capstan::journal {
namespace {

constexpr const char* kSchema = R"(
CREATE TABLE IF NOT EXISTS journal (
  seq INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, build TEXT NOT NULL, input TEXT NOT NULL, events TEXT NOT NULL,
  event_last INTEGER NOT NULL, checksum TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS journal_event_last ON journal (event_last);
CREATE TABLE IF NOT EXISTS chain (
  id INTEGER PRIMARY KEY CHECK (id = 1), format INTEGER NOT NULL, seq INTEGER NOT NULL, checksum TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS snapshot (
  seq INTEGER PRIMARY KEY, state_hash TEXT NOT NULL, state TEXT NOT NULL, checksum TEXT NOT NULL);
INSERT OR IGNORE INTO chain VALUES (1, 1, 0, '');
)";
constexpr std::int64_t kFormat = 1;

std::unexpected<Error> sqlite_error(sqlite3* db, std::string_view what) {
  const int code = db == nullptr ? SQLITE_NOMEM : sqlite3_errcode(db);
  const char* why = db == nullptr ? "out of memory" : sqlite3_errmsg(db);
  // A full disk shows as FULL, or (in the shared-memory file and on some file systems) as an input/output
  // error.
  const int os_error = db == nullptr ? 0 : sqlite3_system_errno(db);
  if (code == SQLITE_FULL || ((code & 0xff) == SQLITE_IOERR && (os_error == ENOSPC || os_error == EDQUOT))) {
    return fail(Code::kExhausted, "{}: the disk is full; free space on the file system of the data directory",
                what);
  }
  if (code == SQLITE_BUSY) return fail(Code::kConflict, "{}: another process has the journal open", what);
  if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB) {
    return fail(Code::kCorrupt, "{}: {}; move the file away to begin anew, or restore it from a backup", what,
                why);
  }
  return fail(Code::kIo, "{}: {}", what, why);
}

// A prepared statement; bind in order, step, read in order.
class Statement {
 public:
  Statement(sqlite3* db, const char* sql) : db_(db) {
    prepared_ = sqlite3_prepare_v2(db, sql, -1, &statement_, nullptr) == SQLITE_OK;
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& bind(std::int64_t value) {
    if (prepared_) sqlite3_bind_int64(statement_, ++bound_, value);
    return *this;
  }
  Statement& bind(std::string_view text) {
    if (prepared_)
      sqlite3_bind_text64(statement_, ++bound_, text.data(), text.size(), SQLITE_STATIC, SQLITE_UTF8);
    return *this;
  }
  // True: a row. False: done.
  Result<bool> step(std::string_view what) {
    if (!prepared_) return sqlite_error(db_, what);
    const int code = sqlite3_step(statement_);
    if (code == SQLITE_ROW) return true;
    if (code == SQLITE_DONE) return false;
    return sqlite_error(db_, what);
  }
  void rewind() {
    sqlite3_reset(statement_);
    bound_ = 0;
  }
  std::int64_t integer(int column) { return sqlite3_column_int64(statement_, column); }
  std::string text(int column) {
    const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
    return bytes == nullptr
               ? std::string()
               : std::string(bytes, static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)));
  }

 private:
  sqlite3* db_;
  sqlite3_stmt* statement_ = nullptr;
  bool prepared_ = false;
  int bound_ = 0;
};

Row row_at(Statement& statement) {
  return {statement.integer(0), statement.integer(1), statement.text(2),
          statement.text(3),    statement.text(4),    statement.integer(5)};
}
constexpr const char* kRowColumns = "seq, time_ms, build, input, events, event_last, checksum";

std::unexpected<Error> corrupt(std::int64_t seq, std::string_view what) {
  return fail(Code::kCorrupt,
              "journal row {} {}: the file is damaged and nothing was started; restore it from a backup, or "
              "move it away to begin anew "
              "(running ranks are then stopped)",
              seq, what);
}

class SqliteJournal : public Journal {
 public:
  explicit SqliteJournal(std::string path) : path_(std::move(path)) {}
  ~SqliteJournal() override { sqlite3_close_v2(db_); }

  Result<void> open(const SqliteOptions& options) {
    const int flags = options.read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    if (sqlite3_open_v2(path_.c_str(), &db_, flags | SQLITE_OPEN_NOMUTEX, nullptr) != SQLITE_OK)
      return sqlite_error(db_, "cannot open " + path_);
    sqlite3_extended_result_codes(db_, 0);
    sqlite3_busy_timeout(db_, 2'000);
    if (!options.read_only) {
      CAPSTAN_CHECK(run("PRAGMA journal_mode=WAL"));
      CAPSTAN_CHECK(run("PRAGMA synchronous=FULL"));
      if (options.pages_max > 0)
        CAPSTAN_CHECK(run(fmt::format("PRAGMA max_page_count={}", options.pages_max).c_str()));
      CAPSTAN_CHECK(run(kSchema));
    }
    // One read transaction, so that rows which an owner appends meanwhile are not seen in part.
    CAPSTAN_CHECK(run("BEGIN"));
    const auto verified = verify();
    CAPSTAN_CHECK(run("COMMIT"));
    return verified;
  }

  Result<void> append(std::span<const Row> rows) override {
    if (rows.empty()) return {};
    CAPSTAN_CHECK(run("BEGIN IMMEDIATE"));
    auto end = insert(rows);
    if (end) {
      if (const auto committed = run("COMMIT"); !committed) end = std::unexpected(committed.error());
    }
    if (!end) {
      sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);  // SQLite may have done it itself
      return std::unexpected(end.error());
    }
    last_seq_ = rows.back().seq;
    checksum_ = *std::move(end);
    return {};
  }

  Result<void> read(std::int64_t seq_from, const RowVisitor& visit) override {
    seq_from = std::max<std::int64_t>(seq_from, 1);
    std::string previous;
    if (seq_from > 1) {
      Statement before(db_, "SELECT checksum FROM journal WHERE seq = ?");
      CAPSTAN_TRY(const bool found, before.bind(seq_from - 1).step("cannot read the journal"));
      if (!found && seq_from - 1 <= last_seq_) return corrupt(seq_from - 1, "is missing");
      if (found) previous = before.text(0);
    }
    Statement statement(
        db_, fmt::format("SELECT {} FROM journal WHERE seq >= ? ORDER BY seq", kRowColumns).c_str());
    statement.bind(seq_from);
    for (std::int64_t seq = seq_from;; ++seq) {
      CAPSTAN_TRY(const bool found, statement.step("cannot read the journal"));
      if (!found) return {};
      const Row row = row_at(statement);
      if (row.seq != seq) return corrupt(seq, "is missing");
      const std::string checksum = statement.text(6);
      if (checksum != row_checksum(previous, row)) return corrupt(seq, "fails its checksum");
      previous = checksum;
      CAPSTAN_CHECK(visit(row));
    }
  }

  Result<std::vector<Row>> rows_after_event(std::int64_t event, int rows_max) override {
    Statement statement(
        db_, fmt::format("SELECT {} FROM journal WHERE event_last > ? ORDER BY event_last, seq LIMIT ?",
                         kRowColumns)
                 .c_str());
    statement.bind(event).bind(rows_max);
    std::vector<Row> rows;
    for (;;) {
      CAPSTAN_TRY(const bool found, statement.step("cannot read the journal"));
      if (!found) return rows;
      rows.push_back(row_at(statement));
    }
  }

  Result<void> save_snapshot(const Snapshot& snapshot) override {
    Statement statement(db_, "INSERT OR REPLACE INTO snapshot VALUES (?, ?, ?, ?)");
    const std::string checksum = sha256_hex(snapshot.state);
    CAPSTAN_CHECK(statement.bind(snapshot.seq)
                      .bind(snapshot.state_hash)
                      .bind(snapshot.state)
                      .bind(checksum)
                      .step("cannot save a snapshot"));
    return run("DELETE FROM snapshot WHERE seq NOT IN (SELECT seq FROM snapshot ORDER BY seq DESC LIMIT 2)");
  }

  Result<std::optional<Snapshot>> latest_snapshot(std::int64_t seq_max) override {
    Statement statement(
        db_,
        "SELECT seq, state_hash, state, checksum FROM snapshot WHERE seq <= ? ORDER BY seq DESC LIMIT 1");
    CAPSTAN_TRY(const bool found, statement.bind(seq_max).step("cannot read a snapshot"));
    if (!found) return std::nullopt;
    Snapshot snapshot{statement.integer(0), statement.text(1), statement.text(2)};
    if (sha256_hex(snapshot.state) != statement.text(3)) {
      return fail(Code::kCorrupt,
                  "the snapshot at row {} fails its checksum; `DELETE FROM snapshot` makes the next start "
                  "replay all rows",
                  snapshot.seq);
    }
    return std::optional(std::move(snapshot));
  }

  std::int64_t last_seq() const override { return last_seq_; }

 private:
  Result<void> run(const char* sql) {
    if (sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) != SQLITE_OK)
      return sqlite_error(db_, "journal " + path_);
    return {};
  }

  // The checksum of the last row. Inside a transaction.
  Result<std::string> insert(std::span<const Row> rows) {
    constexpr std::string_view kWhat = "cannot append to the journal";
    std::string checksum = checksum_;
    std::int64_t seq = last_seq_;
    Statement statement(db_, "INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?)");
    for (const Row& row : rows) {
      CAPSTAN_ASSERT(row.seq == ++seq);
      checksum = row_checksum(checksum, row);
      statement.bind(row.seq)
          .bind(row.time_ms)
          .bind(row.build)
          .bind(row.input)
          .bind(row.events)
          .bind(row.event_last)
          .bind(checksum);
      CAPSTAN_CHECK(statement.step(kWhat));
      statement.rewind();
    }
    Statement end(db_, "UPDATE chain SET seq = ?, checksum = ?");
    CAPSTAN_CHECK(end.bind(seq).bind(checksum).step(kWhat));
    return checksum;
  }

  Result<void> verify() {
    Statement chain(db_, "SELECT format, seq, checksum FROM chain");
    CAPSTAN_TRY(const bool found, chain.step("cannot read " + path_));
    if (!found) return corrupt(0, "(the chain's end) is missing");
    if (chain.integer(0) != kFormat) {
      return fail(Code::kUnsupported, "{} has format {}, this build reads format {}", path_, chain.integer(0),
                  kFormat);
    }
    last_seq_ = chain.integer(1);
    checksum_ = chain.text(2);
    std::int64_t last = 0;
    std::string checksum;
    CAPSTAN_CHECK(read(1, [&](const Row& row) -> Result<void> {
      last = row.seq;
      checksum = row_checksum(checksum, row);
      return {};
    }));
    if (last < last_seq_) return corrupt(last + 1, "is missing");
    if (last > last_seq_) return corrupt(last_seq_ + 1, "is past the recorded end");
    if (checksum != checksum_) return corrupt(last, "does not match the recorded end");
    return {};
  }

  std::string path_;
  sqlite3* db_ = nullptr;
  std::int64_t last_seq_ = 0;
  std::string checksum_;  // of the last row
};

}  // namespace

Result<std::unique_ptr<Journal>> open_sqlite_journal(const std::string& path, const SqliteOptions& options) {
  auto journal = std::make_unique<SqliteJournal>(path);
  CAPSTAN_CHECK(journal->open(options));
  return std::unique_ptr<Journal>(std::move(journal));
}

}  // namespace capstan::journal
