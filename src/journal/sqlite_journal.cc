// How it works: one SQLite file in WAL mode with synchronous=FULL. append() is one transaction: the rows and
// the new end of the chain (table `chain`), so that a missing tail is found as surely as a changed middle.
// SQLite itself rolls an unfinished transaction back, so there is no torn tail: whatever does not verify is
// damage and refused, never cut off. Snapshots are files beside the database, because a blob of a gigabyte
// would hold up the appends and pass through the WAL; table `snapshot` refers to them. Pruning rides on
// appends: no pause of its own, and the room is used by the rows that follow.
#include <sys/statvfs.h>

#include <algorithm>
#include <filesystem>

#include "base/assert.h"
#include "journal/journal.h"
#include "journal/sqlite_schema.h"
#include "sql/sqlite_statement.h"

namespace capstan::journal {
namespace {

using sql::Rewound;
using sql::sqlite_error;
using sql::Statement;

constexpr std::int64_t kPageBytes = 4'096;
constexpr std::size_t kSnapshotsKept = 2;
constexpr std::int64_t kPrunedPerAppendMin = 64;
constexpr std::uint64_t kRoomBytesMin = 8u << 20;
constexpr const char* kSelect =
    "SELECT seq, time_ms, build, input, events, event_last, checksum FROM journal";

Row row_at(Statement& statement) {
  return {statement.integer(0), statement.integer(1), statement.text(2),
          statement.text(3),    statement.text(4),    statement.integer(5)};
}

std::unexpected<Error> corrupt(std::int64_t seq, std::string_view what) {
  return fail(Code::kCorrupt,
              "journal row {} {}: the file is damaged and nothing was started; restore it from a backup, or "
              "move it away to begin anew "
              "(running ranks are then stopped)",
              seq, what);
}

class SqliteJournal : public Journal {
 public:
  SqliteJournal(std::string path, const SqliteOptions& options) : path_(std::move(path)), options_(options) {}
  ~SqliteJournal() override {
    for (auto* statement : {&insert_, &end_, &event_, &used_}) statement->reset();
    sqlite3_close_v2(db_);
  }

  Result<void> open() {
    const int flags = options_.read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    if (sqlite3_open_v2(path_.c_str(), &db_, flags | SQLITE_OPEN_NOMUTEX, nullptr) != SQLITE_OK)
      return sqlite_error(db_, "cannot open " + path_);
    sqlite3_extended_result_codes(db_, 0);
    sqlite3_busy_timeout(db_, 2'000);
    if (options_.read_only) {
      CAPSTAN_CHECK(run("BEGIN"));  // until it is closed: what an owner appends meanwhile is not seen
    } else {
      CAPSTAN_CHECK(run(fmt::format("PRAGMA page_size={}", kPageBytes).c_str()));
      CAPSTAN_CHECK(run("PRAGMA journal_mode=WAL"));
      CAPSTAN_CHECK(run(options_.fsync ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=OFF"));
      if (options_.pages_max > 0)
        CAPSTAN_CHECK(run(fmt::format("PRAGMA max_page_count={}", options_.pages_max).c_str()));
      CAPSTAN_CHECK(make_tables(db_, path_));
    }
    CAPSTAN_TRY(chain_, read_chain(db_, path_));
    CAPSTAN_CHECK(check_end());
    CAPSTAN_CHECK(read_snapshots());
    insert_ = std::make_unique<Statement>(db_, "INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?)");
    end_ = std::make_unique<Statement>(db_, "UPDATE chain SET seq = ?, checksum = ?");
    event_ = std::make_unique<Statement>(db_, "SELECT event_last FROM journal WHERE seq = ?");
    used_ = std::make_unique<Statement>(
        db_, "SELECT page_count - freelist_count FROM pragma_page_count(), pragma_freelist_count()");
    if (!options_.read_only) remove_obsolete_files();
    return {};
  }

  Result<void> append(std::span<const Row> rows) override {
    if (rows.empty()) return {};
    CAPSTAN_CHECK(run("BEGIN IMMEDIATE"));
    Chain next = chain_;
    auto done = insert(rows, next);
    if (done) done = prune(static_cast<std::int64_t>(rows.size()), next);
    if (done) done = run("COMMIT");
    if (!done) {
      // SQLite may have done it itself.
      if (sqlite3_get_autocommit(db_) == 0) sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
      return done;
    }
    chain_ = std::move(next);
    return {};
  }

  Result<void> read(std::int64_t seq_from, const RowVisitor& visit) override {
    seq_from = std::max<std::int64_t>(seq_from, 1);
    if (seq_from <= chain_.begin_seq)
      return fail(Code::kNotFound, "rows before {} were pruned", chain_.begin_seq + 1);
    CAPSTAN_TRY(std::string previous, checksum_at(seq_from - 1));
    Statement statement(db_, fmt::format("{} WHERE seq >= ? ORDER BY seq", kSelect));
    statement.bind(seq_from);
    for (std::int64_t seq = seq_from;; ++seq) {
      CAPSTAN_TRY(const bool found, statement.step("cannot read the journal"));
      if (!found && seq <= chain_.seq) return corrupt(seq, "is missing");
      if (!found) break;
      const Row row = row_at(statement);
      if (row.seq != seq) return corrupt(seq, "is missing");
      if (row.seq > chain_.seq) return corrupt(seq, "is past the recorded end");
      const std::string checksum = row_checksum(previous, row);
      if (checksum != statement.text(6)) return corrupt(seq, "fails its checksum");
      previous = checksum;
      CAPSTAN_CHECK(visit(row));
    }
    if (seq_from <= chain_.seq && previous != chain_.checksum)
      return corrupt(chain_.seq, "does not match the recorded end");
    return {};
  }

  Result<std::vector<Row>> rows_after_event(std::int64_t event, int rows_max) override {
    if (event < chain_.begin_event)
      return fail(Code::kNotFound, "events before {} were pruned", chain_.begin_event + 1);
    // The first row whose newest event is after it.
    std::int64_t low = chain_.begin_seq + 1, high = chain_.seq + 1;
    while (low < high) {
      const std::int64_t middle = low + (high - low) / 2;
      Rewound at(*event_);
      CAPSTAN_TRY(const bool found, at->bind(middle).step("cannot read the journal"));
      if (!found) return corrupt(middle, "is missing");
      if (at->integer(0) > event) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    Statement statement(db_, fmt::format("{} WHERE seq >= ? ORDER BY seq LIMIT ?", kSelect));
    statement.bind(low).bind(rows_max);
    std::vector<Row> rows;
    for (;;) {
      CAPSTAN_TRY(const bool found, statement.step("cannot read the journal"));
      if (!found) return rows;
      rows.push_back(row_at(statement));
    }
  }

  std::int64_t last_seq() const override { return chain_.seq; }
  std::int64_t begin_seq() const override { return chain_.begin_seq; }
  std::int64_t begin_event() const override { return chain_.begin_event; }
  bool has_room() override {
    struct statvfs disk {};
    return ::statvfs(path_.c_str(), &disk) != 0 || disk.f_bavail * disk.f_frsize >= kRoomBytesMin;
  }

  Result<std::vector<SnapshotRef>> snapshots() override { return snapshots_; }

  Result<std::string> snapshot_text(const SnapshotRef& snapshot) override {
    Statement statement(db_, "SELECT checksum FROM snapshot WHERE seq = ?");
    CAPSTAN_TRY(const bool found, statement.bind(snapshot.seq).step("cannot read a snapshot"));
    if (!found) return fail(Code::kNotFound, "there is no snapshot at row {}", snapshot.seq);
    CAPSTAN_TRY(const std::string checksum, checksum_at(snapshot.seq));
    if (checksum != statement.text(0))
      return fail(Code::kCorrupt, "the snapshot at row {} is of another history", snapshot.seq);
    return read_snapshot_file(snapshot_path(snapshot.seq), snapshot.state_hash, snapshot.bytes);
  }

  Result<void> forget_snapshot(const SnapshotRef& snapshot) override {
    {
      Statement drop(db_, "DELETE FROM snapshot WHERE seq = ?");
      CAPSTAN_CHECK(drop.bind(snapshot.seq).step("cannot forget a snapshot"));
    }
    return read_snapshots();
  }

  Result<void> save_snapshot(const TextWriter& write) override {
    CAPSTAN_TRY(const SnapshotFile file, write_snapshot_file(snapshot_path(chain_.seq), write));
    CAPSTAN_CHECK(keep_snapshot({chain_.seq, file.state_hash, file.text_bytes}));
    remove_obsolete_files();
    return {};
  }

  std::string snapshot_path(std::int64_t seq) const override {
    return fmt::format("{}.snapshot-{}.zst", path_, seq);
  }

  Result<void> keep_snapshot(const SnapshotRef& snapshot) override {
    CAPSTAN_TRY(const std::string checksum, checksum_at(snapshot.seq));
    constexpr std::string_view kWhat = "cannot keep a snapshot";
    CAPSTAN_CHECK(run("BEGIN IMMEDIATE"));
    auto done = [&]() -> Result<void> {
      Statement insert(db_, "INSERT OR REPLACE INTO snapshot VALUES (?, ?, ?, ?)");
      insert.bind(snapshot.seq).bind(snapshot.state_hash).bind(snapshot.bytes).bind(checksum);
      CAPSTAN_CHECK(insert.step(kWhat));
      Statement drop(
          db_, "DELETE FROM snapshot WHERE seq NOT IN (SELECT seq FROM snapshot ORDER BY seq DESC LIMIT ?)");
      CAPSTAN_CHECK(drop.bind(static_cast<std::int64_t>(kSnapshotsKept)).step(kWhat));
      return run("COMMIT");
    }();
    if (!done) {
      if (sqlite3_get_autocommit(db_) == 0) sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
      return done;
    }
    return read_snapshots();
  }

  Result<std::vector<std::string>> obsolete_files() override {
    const std::filesystem::path path(path_);
    const std::string prefix = path.filename().string() + ".snapshot-";
    const auto directory = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
    std::vector<std::string> files;
    std::error_code error;
    for (std::filesystem::directory_iterator it(directory, error), end; !error && it != end;
         it.increment(error)) {
      const std::string name = it->path().filename().string();
      const bool kept = std::ranges::any_of(snapshots_, [&](const SnapshotRef& ref) {
        return std::filesystem::path(snapshot_path(ref.seq)).filename() == name;
      });
      if (name.starts_with(prefix) && !kept) files.push_back(it->path().string());
    }
    if (error) return fail(Code::kIo, "cannot list {}: {}", directory.string(), error.message());
    std::ranges::sort(files);
    return files;
  }

 private:
  Result<void> run(const char* sql) {
    if (sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) != SQLITE_OK)
      return sqlite_error(db_, "journal " + path_);
    return {};
  }

  // Inside a transaction, as is prune().
  Result<void> insert(std::span<const Row> rows, Chain& chain) {
    constexpr std::string_view kWhat = "cannot append to the journal";
    for (const Row& row : rows) {
      CAPSTAN_ASSERT(row.seq == chain.seq + 1);
      chain.checksum = row_checksum(chain.checksum, row);
      chain.seq = row.seq;
      Rewound statement(*insert_);
      statement->bind(row.seq).bind(row.time_ms).bind(row.build).bind(row.input).bind(row.events);
      CAPSTAN_CHECK(statement->bind(row.event_last).bind(chain.checksum).step(kWhat));
    }
    Rewound end(*end_);
    CAPSTAN_CHECK(end->bind(chain.seq).bind(chain.checksum).step(kWhat));
    return {};
  }

  Result<void> prune(std::int64_t appended, Chain& chain) {
    constexpr std::string_view kWhat = "cannot prune the journal";
    if (snapshots_.size() < kSnapshotsKept || chain.begin_seq >= snapshots_.back().seq) return {};
    {
      Rewound used(*used_);
      CAPSTAN_TRY(const bool found, used->step(kWhat));
      if (!found || used->integer(0) * kPageBytes <= options_.retain_bytes) return {};
    }
    chain.begin_seq =
        std::min(chain.begin_seq + std::max(2 * appended, kPrunedPerAppendMin), snapshots_.back().seq);
    Statement last(db_, "SELECT event_last, checksum FROM journal WHERE seq = ?");
    CAPSTAN_TRY(const bool found, last.bind(chain.begin_seq).step(kWhat));
    if (!found) return corrupt(chain.begin_seq, "is missing");
    chain.begin_event = last.integer(0);
    chain.begin_checksum = last.text(1);
    Statement drop(db_, "DELETE FROM journal WHERE seq <= ?");
    CAPSTAN_CHECK(drop.bind(chain.begin_seq).step(kWhat));
    Statement begin(db_, "UPDATE chain SET begin_seq = ?, begin_event = ?, begin_checksum = ?");
    begin.bind(chain.begin_seq).bind(chain.begin_event).bind(chain.begin_checksum);
    CAPSTAN_CHECK(begin.step(kWhat));
    return {};
  }

  // As recorded; empty before the first row.
  Result<std::string> checksum_at(std::int64_t seq) {
    if (seq == chain_.seq) return chain_.checksum;
    if (seq == chain_.begin_seq) return chain_.begin_checksum;
    Statement statement(db_, "SELECT checksum FROM journal WHERE seq = ?");
    CAPSTAN_TRY(const bool found, statement.bind(seq).step("cannot read the journal"));
    if (!found) return corrupt(seq, "is missing");
    return statement.text(0);
  }

  Result<void> check_end() {
    if (chain_.begin_seq > chain_.seq || chain_.begin_seq < 0)
      return corrupt(chain_.begin_seq, "is recorded as the beginning, but lies past the end");
    if (chain_.seq == chain_.begin_seq) return {};
    Statement last(db_, "SELECT checksum FROM journal WHERE seq = ?");
    CAPSTAN_TRY(const bool found, last.bind(chain_.seq).step("cannot read " + path_));
    if (!found) return corrupt(chain_.seq, "is missing");
    if (last.text(0) != chain_.checksum) return corrupt(chain_.seq, "does not match the recorded end");
    return {};
  }

  Result<void> read_snapshots() {
    snapshots_.clear();
    if (chain_.format == 1) return {};  // opened only to read
    Statement statement(db_, "SELECT seq, state_hash, bytes FROM snapshot ORDER BY seq DESC");
    for (;;) {
      CAPSTAN_TRY(const bool found, statement.step("cannot read the snapshots"));
      if (!found) return {};
      snapshots_.push_back({statement.integer(0), statement.text(1), statement.integer(2)});
    }
  }

  void remove_obsolete_files() {
    const auto files = obsolete_files();
    std::error_code ignored;
    if (!files) return;
    for (const std::string& file : *files) std::filesystem::remove(file, ignored);
  }

  std::string path_;
  SqliteOptions options_;
  sqlite3* db_ = nullptr;
  Chain chain_;
  std::vector<SnapshotRef> snapshots_;  // newest first
  std::unique_ptr<Statement> insert_, end_, event_, used_;
};

}  // namespace

Result<std::unique_ptr<Journal>> open_sqlite_journal(const std::string& path, const SqliteOptions& options) {
  auto journal = std::make_unique<SqliteJournal>(path, options);
  CAPSTAN_CHECK(journal->open());
  return std::unique_ptr<Journal>(std::move(journal));
}

}  // namespace capstan::journal
