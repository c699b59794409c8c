// Statement: a prepared SQLite statement, and SQLite's errors in ours. Shared by the journal and the store.
//
//   Statement insert(db, "INSERT INTO t VALUES (?, ?)");
//   CAPSTAN_CHECK(insert.bind(1).bind("text").step("cannot insert"));
//   insert.rewind();                       // to use it again
//
// Bind in order, step, read in order. Bound text must live until the statement is rewound.
// Threads: the connection's owner.
#pragma once

#include <sqlite3.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace capstan::sql {

std::unexpected<Error> sqlite_error(sqlite3* db, std::string_view what);

class Statement {
 public:
  Statement(sqlite3* db, const std::string& sql) : db_(db) {
    prepared_ =
        sqlite3_prepare_v3(db, sql.c_str(), -1, SQLITE_PREPARE_PERSISTENT, &statement_, nullptr) == SQLITE_OK;
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
  Statement& bind(std::nullptr_t) {
    if (prepared_) sqlite3_bind_null(statement_, ++bound_);
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
  // Whether its parameters are $1 … $n, first named in that order, so that binding in order is by number.
  bool numbered(int parameters) const {
    if (!prepared_) return true;  // step will tell
    if (sqlite3_bind_parameter_count(statement_) != parameters) return false;
    for (int i = 1; i <= parameters; ++i) {
      const char* name = sqlite3_bind_parameter_name(statement_, i);
      if (name == nullptr || name != fmt::format("${}", i)) return false;
    }
    return true;
  }
  int columns() { return sqlite3_column_count(statement_); }
  int type(int column) { return sqlite3_column_type(statement_, column); }  // SQLITE_INTEGER, SQLITE_NULL, …
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

// Rewinds at the end of the scope, so that a cached statement holds no read transaction and no bound text.
class Rewound {
 public:
  explicit Rewound(Statement& statement) : statement_(statement) { statement_.rewind(); }
  ~Rewound() { statement_.rewind(); }
  Rewound(const Rewound&) = delete;
  Rewound& operator=(const Rewound&) = delete;
  Statement* operator->() { return &statement_; }

 private:
  Statement& statement_;
};

}  // namespace capstan::sql
