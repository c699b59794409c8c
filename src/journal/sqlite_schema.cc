// How it works: the format's number stands in table `chain`; each change is one transaction.
#include "journal/sqlite_schema.h"

#include "sql/sqlite_statement.h"

namespace capstan::journal {
namespace {

using sql::sqlite_error;
using sql::Statement;

constexpr const char* kTables = R"(
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS journal (
  seq INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, build TEXT NOT NULL, input TEXT NOT NULL, events TEXT NOT NULL,
  event_last INTEGER NOT NULL, checksum TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS chain (
  id INTEGER PRIMARY KEY CHECK (id = 1), format INTEGER NOT NULL, seq INTEGER NOT NULL, checksum TEXT NOT NULL,
  begin_seq INTEGER NOT NULL DEFAULT 0, begin_event INTEGER NOT NULL DEFAULT 0,
  begin_checksum TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS snapshot (
  seq INTEGER PRIMARY KEY, state_hash TEXT NOT NULL, bytes INTEGER NOT NULL, checksum TEXT NOT NULL);
INSERT OR IGNORE INTO chain (id, format, seq, checksum) VALUES (1, 2, 0, '');
COMMIT;
)";

// Rows are in order of both numbers, so the index on events only cost time.
constexpr const char* kFrom1To2 = R"(
BEGIN IMMEDIATE;
DROP INDEX journal_event_last;
DROP TABLE snapshot;
CREATE TABLE snapshot (
  seq INTEGER PRIMARY KEY, state_hash TEXT NOT NULL, bytes INTEGER NOT NULL, checksum TEXT NOT NULL);
ALTER TABLE chain ADD COLUMN begin_seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE chain ADD COLUMN begin_event INTEGER NOT NULL DEFAULT 0;
ALTER TABLE chain ADD COLUMN begin_checksum TEXT NOT NULL DEFAULT '';
UPDATE chain SET format = 2;
COMMIT;
)";

// 0: there are no tables yet.
Result<std::int64_t> read_format(sqlite3* db, const std::string& path) {
  Statement exists(db, "SELECT 1 FROM sqlite_schema WHERE name = 'chain'");
  CAPSTAN_TRY(const bool made, exists.step("cannot read " + path));
  if (!made) return 0;
  Statement format(db, "SELECT format FROM chain");
  CAPSTAN_TRY(const bool found, format.step("cannot read " + path));
  if (!found)
    return fail(Code::kCorrupt, "{} has lost the record of its end; restore it from a backup", path);
  return format.integer(0);
}

}  // namespace

Result<void> run_sql(sqlite3* db, const std::string& path, const char* sql) {
  if (sqlite3_exec(db, sql, nullptr, nullptr, nullptr) == SQLITE_OK) return {};
  auto error = sqlite_error(db, "journal " + path);
  if (sqlite3_get_autocommit(db) == 0) sqlite3_exec(db, "ROLLBACK", nullptr, nullptr, nullptr);
  return error;
}

Result<void> make_tables(sqlite3* db, const std::string& path) {
  CAPSTAN_TRY(const std::int64_t format, read_format(db, path));
  if (format == 0) return run_sql(db, path, kTables);
  if (format == 1) return run_sql(db, path, kFrom1To2);
  return {};
}

Result<Chain> read_chain(sqlite3* db, const std::string& path) {
  Chain chain;
  CAPSTAN_TRY(chain.format, read_format(db, path));
  if (chain.format < 1 || chain.format > kFormat) {
    return fail(Code::kUnsupported, "{} has format {}, this build reads format {}", path, chain.format,
                kFormat);
  }
  Statement statement(db, chain.format == 1
                              ? "SELECT seq, checksum, 0, 0, '' FROM chain"
                              : "SELECT seq, checksum, begin_seq, begin_event, begin_checksum FROM chain");
  CAPSTAN_TRY(const bool found, statement.step("cannot read " + path));
  if (!found) return fail(Code::kCorrupt, "{} has lost the record of its end", path);
  chain.seq = statement.integer(0);
  chain.checksum = statement.text(1);
  chain.begin_seq = statement.integer(2);
  chain.begin_event = statement.integer(3);
  chain.begin_checksum = statement.text(4);
  return chain;
}

}  // namespace capstan::journal
