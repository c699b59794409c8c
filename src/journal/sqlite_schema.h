// The journal's tables in SQLite: made, or brought from an older format to this one. For this folder only.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <string>

#include "base/result.h"

namespace capstan::journal {

inline constexpr std::int64_t kFormat = 2;

// The two ends of the chain of rows.
struct Chain {
  std::int64_t format = 0;
  std::int64_t seq = 0;
  std::string checksum;
  std::int64_t begin_seq = 0;  // everything up to here was pruned
  std::int64_t begin_event = 0;
  std::string begin_checksum;
};

Result<void> run_sql(sqlite3* db, const std::string& path, const char* sql);
// New tables, or those of format 1 changed: its snapshots are dropped, for it has all rows from the first.
Result<void> make_tables(sqlite3* db, const std::string& path);
// Also of a file in format 1, which a reader cannot change. kUnsupported for a format after this one.
Result<Chain> read_chain(sqlite3* db, const std::string& path);

}  // namespace capstan::journal
