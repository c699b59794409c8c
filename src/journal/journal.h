// Journal: the append-only record of everything the controller ever decided.
//
//   CAPSTAN_TRY(auto journal, open_sqlite_journal(path, {}));
//   CAPSTAN_CHECK(journal->append(rows));           // returns when all rows are durable: one transaction,
//   one fsync CAPSTAN_CHECK(journal->read(1, [&](const Row& row) { return replay(row); }));
//
// Nothing leaves the controller before its row is durable, so its state can always be rebuilt by replay. A
// row holds an input and the events that it caused, as JSON. Rows are chained by checksum: a changed, missing
// or swapped row is found. A snapshot bounds the replay: state = snapshot + the rows after it. Two snapshots
// are kept. Failure: kExhausted if the disk is full (nothing of the batch is kept; may be tried again),
// kCorrupt with the row's number, kConflict if another process has the file open for writing, else kIo.
// Threads: one owner.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

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

struct Snapshot {
  std::int64_t seq = 0;  // of the last row that it includes
  std::string state_hash;
  std::string state;  // JSON
  friend bool operator==(const Snapshot&, const Snapshot&) = default;
};

class Journal {
 public:
  using RowVisitor = std::function<Result<void>(const Row&)>;
  virtual ~Journal() = default;

  // The rows' seq must continue the journal's. Durable, or nothing of it, when it returns.
  virtual Result<void> append(std::span<const Row> rows) = 0;
  // Rows with seq >= `seq_from`, in order; a visitor's error ends it. Every row's checksum is verified.
  virtual Result<void> read(std::int64_t seq_from, const RowVisitor& visit) = 0;
  // Rows whose events include any after number `event`, in order, at most `rows_max`.
  virtual Result<std::vector<Row>> rows_after_event(std::int64_t event, int rows_max) = 0;
  virtual Result<void> save_snapshot(const Snapshot& snapshot) = 0;
  // The newest one whose seq is at most `seq_max`.
  virtual Result<std::optional<Snapshot>> latest_snapshot(std::int64_t seq_max = INT64_MAX) = 0;
  virtual std::int64_t last_seq() const = 0;
};

struct SqliteOptions {
  bool read_only = false;      // for inspection beside a running controller
  std::int64_t pages_max = 0;  // 0: no limit; else the file may not grow past so many pages of 4096 bytes
};

// Opens or creates. The whole chain is verified before it returns: cost O(rows).
Result<std::unique_ptr<Journal>> open_sqlite_journal(const std::string& path,
                                                     const SqliteOptions& options = {});

// Without a disk: for tests and simulation. `fail_appends(code)` makes appends fail until told otherwise.
class MemoryJournal : public Journal {
 public:
  Result<void> append(std::span<const Row> rows) override;
  Result<void> read(std::int64_t seq_from, const RowVisitor& visit) override;
  Result<std::vector<Row>> rows_after_event(std::int64_t event, int rows_max) override;
  Result<void> save_snapshot(const Snapshot& snapshot) override;
  Result<std::optional<Snapshot>> latest_snapshot(std::int64_t seq_max) override;
  std::int64_t last_seq() const override { return static_cast<std::int64_t>(rows_.size()); }

  void fail_appends(std::optional<Code> code) { failing_ = code; }
  const std::vector<Row>& rows() const { return rows_; }

 private:
  std::vector<Row> rows_;
  std::vector<Snapshot> snapshots_;
  std::optional<Code> failing_;
};

// SHA-256 over the previous row's checksum and this row's fields, each with its length; 64 hexadecimal
// characters.
std::string row_checksum(std::string_view previous, const Row& row);

}  // namespace capstan::journal
