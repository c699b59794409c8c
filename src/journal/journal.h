// Journal: the append-only record of everything the controller ever decided.
//
//   CAPSTAN_TRY(auto journal, open_sqlite_journal(path, {}));
//   CAPSTAN_CHECK(journal->append(rows));  // returns when all rows are durable: one transaction, one fsync
//   CAPSTAN_CHECK(journal->read(1, [&](const Row& row) { return replay(row); }));
//
// Nothing leaves the controller before its row is durable, so its state can always be rebuilt by replay. A
// row holds an input and the events that it caused, as JSON. Rows are chained by checksum: a changed, missing
// or swapped row is found. A snapshot bounds the replay: state = snapshot + the rows after it. Two snapshots
// are kept; rows that only the older history needs may be pruned, and the journal then begins later than 1.
// Failure: kExhausted if the disk is full (nothing of the batch is kept; may be tried again), kCorrupt with
// the row's number, kNotFound for what has been pruned, kConflict if another process has the file open for
// writing, else kIo.  Threads: one owner.  Format on disk: docs/formats/journal.md.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "journal/snapshot_file.h"

namespace capstan::journal {

struct Row {
  std::int64_t seq = 0;  // 1, 2, 3 … without gaps
  std::int64_t time_ms = 0;
  std::string build;
  std::string input;            // JSON object
  std::string events;           // JSON array
  std::int64_t event_last = 0;  // number of the newest event so far, this row's included
  friend bool operator==(const Row&, const Row&) = default;
};

struct SnapshotRef {
  std::int64_t seq = 0;    // of the last row that it includes
  std::string state_hash;  // SHA-256 of its text, hexadecimal
  std::int64_t bytes = 0;  // of its text
  friend bool operator==(const SnapshotRef&, const SnapshotRef&) = default;
};

class Journal {
 public:
  using RowVisitor = std::function<Result<void>(const Row&)>;
  virtual ~Journal() = default;

  // The rows' seq must continue the journal's. Durable, or nothing of it, when it returns.
  virtual Result<void> append(std::span<const Row> rows) = 0;
  // Rows with seq >= `seq_from`, in order; a visitor's error ends it. Every row's checksum is verified, and
  // at the end that none is missing. kNotFound if `seq_from` has been pruned.
  virtual Result<void> read(std::int64_t seq_from, const RowVisitor& visit) = 0;
  // Rows whose events include any after number `event`, in order, at most `rows_max`. kNotFound if such
  // events have been pruned.  Cost: a binary search and the rows.
  virtual Result<std::vector<Row>> rows_after_event(std::int64_t event, int rows_max) = 0;
  virtual std::int64_t last_seq() const = 0;
  // What is still there: rows after `begin_seq`, events after `begin_event`. 0 unless it was pruned.
  virtual std::int64_t begin_seq() const = 0;
  virtual std::int64_t begin_event() const = 0;
  // Whether the disk has room for some batches. Cheap; an append may fail all the same.
  virtual bool has_room() = 0;

  // The snapshots that are kept, newest first.
  virtual Result<std::vector<SnapshotRef>> snapshots() = 0;
  // kCorrupt or kNotFound if what is stored is not what was saved.
  virtual Result<std::string> snapshot_text(const SnapshotRef& snapshot) = 0;
  // It was found damaged: it is no longer one of the two.
  virtual Result<void> forget_snapshot(const SnapshotRef& snapshot) = 0;
  // Writes and keeps the state after the last row. Takes as long as it takes.
  virtual Result<void> save_snapshot(const TextWriter& write) = 0;
  // The same in two steps, so that another process can do the writing: where the file for the state after row
  // `seq` belongs (empty: this journal has no files), then keep it. The file is only referred to once it is
  // complete, so a crash in between leaves nothing but a file that the next start removes.
  virtual std::string snapshot_path(std::int64_t seq) const = 0;
  virtual Result<void> keep_snapshot(const SnapshotRef& snapshot) = 0;
  // Files of snapshots that are no longer kept; whoever has time for it (not the deciding thread) removes
  // them.
  virtual Result<std::vector<std::string>> obsolete_files() = 0;
};

inline constexpr std::int64_t kRetainBytes = std::int64_t{4} << 30;

struct SqliteOptions {
  bool read_only = false;      // for inspection beside a running controller: sees one moment
  std::int64_t pages_max = 0;  // 0: no limit; else the file may not grow past so many pages of 4096 bytes
  // When rows fill more, those that the older of the two snapshots includes are pruned, with each append
  // twice as many as it adds, and their room is used again.
  std::int64_t retain_bytes = kRetainBytes;
  bool fsync = true;  // off: for measurements only; a power failure may lose acknowledged rows
};

// Opens or creates. Looks at the chain's two ends; its rows are verified as they are read.
Result<std::unique_ptr<Journal>> open_sqlite_journal(const std::string& path,
                                                     const SqliteOptions& options = {});

// Without a disk: for tests and simulation. `fail_appends(code)` makes appends fail until told otherwise.
class MemoryJournal : public Journal {
 public:
  // Keeps about so many rows, as soon as two snapshots allow it.
  explicit MemoryJournal(std::int64_t rows_max = INT64_MAX) : rows_max_(rows_max) {}
  Result<void> append(std::span<const Row> rows) override;
  Result<void> read(std::int64_t seq_from, const RowVisitor& visit) override;
  Result<std::vector<Row>> rows_after_event(std::int64_t event, int rows_max) override;
  std::int64_t last_seq() const override { return begin_seq_ + static_cast<std::int64_t>(rows_.size()); }
  std::int64_t begin_seq() const override { return begin_seq_; }
  std::int64_t begin_event() const override { return begin_event_; }
  bool has_room() override { return true; }
  Result<std::vector<SnapshotRef>> snapshots() override;
  Result<std::string> snapshot_text(const SnapshotRef& snapshot) override;
  Result<void> forget_snapshot(const SnapshotRef& snapshot) override;
  Result<void> save_snapshot(const TextWriter& write) override;
  std::string snapshot_path(std::int64_t) const override { return {}; }
  Result<void> keep_snapshot(const SnapshotRef& snapshot) override;
  Result<std::vector<std::string>> obsolete_files() override { return std::vector<std::string>{}; }

  void fail_appends(std::optional<Code> code) { failing_ = code; }
  const std::deque<Row>& rows() const { return rows_; }

 private:
  struct Kept {
    SnapshotRef ref;
    std::string text;
  };
  void prune();

  std::int64_t rows_max_;
  std::int64_t begin_seq_ = 0;
  std::int64_t begin_event_ = 0;
  std::deque<Row> rows_;
  std::deque<Kept> snapshots_;  // newest first
  std::optional<Code> failing_;
};

// SHA-256 over the previous row's checksum and this row's fields, each with its length; 64 hexadecimal
// characters.
std::string row_checksum(std::string_view previous, const Row& row);

}  // namespace capstan::journal
