// Database: the SQL tables that are not the journal (tenants, keys, usage, catalogue, …), in one file.
//
//   CAPSTAN_TRY(auto database, open_sqlite(path, {&kTenantTables, &kUsageTables}, {}));
//   database->write([&](Session& session) { return session.run("INSERT INTO note VALUES ($1)", {"text"}); },
//                   [](const Result<void>& durable) { … });
//   CAPSTAN_TRY(Rows rows, database->read("SELECT text FROM note WHERE id = $1", {7}));
//
// One writer thread takes everything that has been queued meanwhile and commits it together: one fsync for
// all. Each write is all or nothing on its own: one that fails leaves the others of its group as they are.
// The SQL is what SQLite and PostgreSQL both speak: parameters $1 … (named in that order in the text), BIGINT and TEXT columns,
// ON CONFLICT.
// A new room's tables: a Tables constant beside its code, added to the list in apps/ that opens the database.
//
// Threads: every method from any thread; a write's function runs on the writer thread and must not wait for
// another write.  Failure: kExhausted (disk full, or kWritesQueuedMax writes wait), kConflict (a UNIQUE or
// CHECK refused), kCorrupt, kIo.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"

namespace capstan::store {

inline constexpr std::size_t kWritesQueuedMax = 65'536;

// What a parameter may be. Text is only looked at during the call.
class Parameter {
 public:
  Parameter(std::nullptr_t) {}
  Parameter(int value) : value_(std::int64_t{value}) {}
  Parameter(std::int64_t value) : value_(value) {}
  Parameter(bool value) : value_(std::int64_t{value}) {}
  Parameter(std::string_view value) : value_(value) {}
  Parameter(const std::string& value) : value_(std::string_view(value)) {}
  Parameter(const char* value) : value_(std::string_view(value)) {}
  const auto& value() const { return value_; }

 private:
  std::variant<std::monostate, std::int64_t, std::string_view> value_;
};
using Parameters = std::initializer_list<Parameter>;

class Row {
 public:
  using Cell = std::variant<std::monostate, std::int64_t, std::string>;
  explicit Row(std::vector<Cell> cells) : cells_(std::move(cells)) {}
  bool is_null(std::size_t column) const { return std::holds_alternative<std::monostate>(cells_[column]); }
  std::int64_t integer(std::size_t column) const;  // 0 for NULL; asserts on text
  std::string text(std::size_t column) const;      // "" for NULL; asserts on an integer

 private:
  std::vector<Cell> cells_;
};
using Rows = std::vector<Row>;

// A transaction under way.
class Session {
 public:
  virtual ~Session() = default;
  // Runs one statement; the number of rows that it changed. Statements are prepared once for each text.
  virtual Result<std::int64_t> run(std::string_view sql, Parameters parameters = {}) = 0;
  virtual Result<Rows> read(std::string_view sql, Parameters parameters = {}) = 0;
};

class Database {
 public:
  using Write = std::function<Result<void>(Session&)>;
  using Done = std::function<void(const Result<void>&)>;
  virtual ~Database() = default;  // after everything queued is committed
  // Queues; `done` is called on the writer thread when it is durable, or failed.
  virtual void write(Write write, Done done) = 0;
  // The same, and waits for it.
  Result<void> write(Write write);
  // Waits until every `done` of what was queued before has been called: before what these refer to goes.
  void settle();
  // What has been committed so far.
  virtual Result<Rows> read(std::string_view sql, Parameters parameters = {}) = 0;
};

// The tables of one part of the house. Step i brings the part from version i to i+1 and never changes once
// it was released; a file whose part is newer than this build is refused.
struct Tables {
  std::string_view part;  // "usage"
  std::vector<std::string_view> steps;
};

struct SqliteOptions {
  bool fsync = true;           // off: for tests; a power failure may lose committed writes
  std::int64_t pages_max = 0;  // 0: no limit; else the file may not grow past so many pages
};

Result<std::unique_ptr<Database>> open_sqlite(const std::string& path, std::span<const Tables* const> parts,
                                              const SqliteOptions& options);

}  // namespace capstan::store
