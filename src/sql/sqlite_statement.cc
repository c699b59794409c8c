// How it works: SQLite's codes, and the system's behind them, become the few that a caller reacts to.
#include "sql/sqlite_statement.h"

#include <cerrno>

namespace capstan::sql {

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
  if (code == SQLITE_BUSY) return fail(Code::kConflict, "{}: another process has the file open", what);
  if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB) {
    return fail(Code::kCorrupt, "{}: {}; move the file away to begin anew, or restore it from a backup", what,
                why);
  }
  return fail(Code::kIo, "{}: {}", what, why);
}

}  // namespace capstan::sql
