// How it works: SQLite in WAL mode, so that readers (a small pool of connections) never wait for the writer.
// The writer thread takes the whole queue, opens one transaction, gives each write a savepoint, commits once,
// and then tells everybody. SQLite numbers named parameters by their first appearance, so $1 … must appear in
// that order; this is checked once, when a statement is prepared.
#include <chrono>
#include <condition_variable>
#include <deque>
#include <future>
#include <map>
#include <mutex>
#include <thread>

#include "base/assert.h"
#include "sql/sqlite_statement.h"
#include "store/database.h"

namespace capstan::store {

std::int64_t Row::integer(std::size_t column) const {
  if (is_null(column)) return 0;
  CAPSTAN_ASSERT(std::holds_alternative<std::int64_t>(cells_[column]));
  return std::get<std::int64_t>(cells_[column]);
}

std::string Row::text(std::size_t column) const {
  if (is_null(column)) return {};
  CAPSTAN_ASSERT(std::holds_alternative<std::string>(cells_[column]));
  return std::get<std::string>(cells_[column]);
}

Result<void> Database::write(Write write_function) {
  std::promise<Result<void>> promise;
  auto future = promise.get_future();
  write(std::move(write_function), [&](const Result<void>& result) { promise.set_value(result); });
  return future.get();
}

void Database::settle() {
  while (true) {
    const auto passed = write([](Session&) -> Result<void> { return {}; });
    if (passed || passed.error().code != Code::kExhausted) return;  // the queue was full: behind it then
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

namespace {

constexpr int kBusyMs = 5'000;
constexpr std::size_t kReadersKept = 4;
constexpr std::size_t kErrorSqlBytes = 32;

constexpr const char* kParts =
    "CREATE TABLE IF NOT EXISTS part (name TEXT PRIMARY KEY, version BIGINT NOT NULL)";

// `sql` is cut to the words that tell which statement it is.
std::unexpected<Error> error_of(sqlite3* db, std::string_view sql) {
  const std::string what = fmt::format("store ({}…)", sql.substr(0, kErrorSqlBytes));
  if (sqlite3_errcode(db) == SQLITE_CONSTRAINT) return fail(Code::kConflict, "{}: {}", what, sqlite3_errmsg(db));
  return sql::sqlite_error(db, what);
}

// A connection with its prepared statements. Threads: one at a time.
class Connection : public Session {
 public:
  static Result<std::unique_ptr<Connection>> open(const std::string& path, const SqliteOptions& options) {
    auto connection = std::make_unique<Connection>();
    if (sqlite3_open_v2(path.c_str(), &connection->db_,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr) != SQLITE_OK)
      return sql::sqlite_error(connection->db_, "cannot open " + path);
    sqlite3_busy_timeout(connection->db_, kBusyMs);
    CAPSTAN_CHECK(connection->execute("PRAGMA journal_mode=WAL"));
    CAPSTAN_CHECK(connection->execute(options.fsync ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=OFF"));
    if (options.pages_max > 0)
      CAPSTAN_CHECK(connection->execute(fmt::format("PRAGMA max_page_count={}", options.pages_max)));
    return connection;
  }
  ~Connection() override {
    statements_.clear();
    sqlite3_close_v2(db_);
  }

  Result<std::int64_t> run(std::string_view sql, Parameters parameters) override {
    sql::Rewound statement(prepared(sql, parameters.size()));
    bind(*statement.operator->(), parameters);
    while (true) {
      auto row = statement->step("");
      if (!row) return error_of(db_, sql);
      if (!*row) return sqlite3_changes64(db_);
    }
  }

  Result<Rows> read(std::string_view sql, Parameters parameters) override {
    sql::Rewound statement(prepared(sql, parameters.size()));
    bind(*statement.operator->(), parameters);
    Rows rows;
    while (true) {
      auto more = statement->step("");
      if (!more) return error_of(db_, sql);
      if (!*more) return rows;
      std::vector<Row::Cell> cells;
      for (int column = 0; column < statement->columns(); ++column) {
        const int type = statement->type(column);
        if (type == SQLITE_NULL) {
          cells.emplace_back();
        } else if (type == SQLITE_INTEGER) {
          cells.emplace_back(statement->integer(column));
        } else {
          cells.emplace_back(statement->text(column));
        }
      }
      rows.emplace_back(std::move(cells));
    }
  }

  Result<void> execute(const std::string& sql) {
    if (sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK) return {};
    return error_of(db_, sql);
  }
  bool in_transaction() const { return sqlite3_get_autocommit(db_) == 0; }

 private:
  sql::Statement& prepared(std::string_view sql, std::size_t parameters) {
    const auto found = statements_.find(sql);
    if (found != statements_.end()) return *found->second;
    std::string text(sql);
    auto statement = std::make_unique<sql::Statement>(db_, text);
    CAPSTAN_ASSERT(statement->numbered(static_cast<int>(parameters)));
    return *statements_.emplace(std::move(text), std::move(statement)).first->second;
  }
  static void bind(sql::Statement& statement, Parameters parameters) {
    for (const Parameter& parameter : parameters) {
      std::visit(
          [&](const auto& value) {
            if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::monostate>) {
              statement.bind(nullptr);
            } else {
              statement.bind(value);
            }
          },
          parameter.value());
    }
  }

  sqlite3* db_ = nullptr;
  std::map<std::string, std::unique_ptr<sql::Statement>, std::less<>> statements_;
};

Result<void> migrate(Connection& connection, const Tables& tables) {
  CAPSTAN_TRY(const Rows rows, connection.read("SELECT version FROM part WHERE name = $1", {tables.part}));
  const std::int64_t version = rows.empty() ? 0 : rows.front().integer(0);
  const auto newest = static_cast<std::int64_t>(tables.steps.size());
  if (version > newest)
    return fail(Code::kUnsupported, "the tables '{}' have version {}, this build knows up to {}", tables.part,
                version, newest);
  for (std::int64_t step = version; step < newest; ++step) {
    CAPSTAN_CHECK(connection.execute("BEGIN IMMEDIATE"));
    auto done = connection.execute(std::string(tables.steps[static_cast<std::size_t>(step)]));
    if (done) {
      const auto noted = connection.run(
          "INSERT INTO part VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET version = excluded.version",
          {tables.part, step + 1});
      if (!noted) done = std::unexpected(noted.error());
    }
    if (done) done = connection.execute("COMMIT");
    if (!done) {
      if (connection.in_transaction()) (void)connection.execute("ROLLBACK");
      return std::unexpected(std::move(done).error().with_context(fmt::format("tables '{}'", tables.part)));
    }
  }
  return {};
}

class SqliteDatabase : public Database {
 public:
  SqliteDatabase(std::string path, const SqliteOptions& options) : path_(std::move(path)), options_(options) {}
  ~SqliteDatabase() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  Result<void> open(std::span<const Tables* const> parts) {
    CAPSTAN_TRY(writer_, Connection::open(path_, options_));
    CAPSTAN_CHECK(writer_->execute(kParts));
    for (const Tables* tables : parts) CAPSTAN_CHECK(migrate(*writer_, *tables));
    thread_ = std::thread([this] { loop(); });
    return {};
  }

  void write(Write write, Done done) override {
    {
      const std::lock_guard lock(mutex_);
      if (queue_.size() < kWritesQueuedMax) {
        queue_.push_back({std::move(write), std::move(done)});
        if (queue_.size() == 1) wake_.notify_one();
        return;
      }
    }
    if (done) done(fail(Code::kExhausted, "{} writes wait for {} already", kWritesQueuedMax, path_));
  }

  Result<Rows> read(std::string_view sql, Parameters parameters) override {
    std::unique_ptr<Connection> reader;
    {
      const std::lock_guard lock(readers_mutex_);
      if (!readers_.empty()) {
        reader = std::move(readers_.back());
        readers_.pop_back();
      }
    }
    if (!reader) {
      CAPSTAN_TRY(reader, Connection::open(path_, options_));
    }
    auto rows = reader->read(sql, parameters);
    const std::lock_guard lock(readers_mutex_);
    if (readers_.size() < kReadersKept) readers_.push_back(std::move(reader));
    return rows;
  }

 private:
  struct Queued {
    Write write;
    Done done;
    Result<void> result = {};
  };

  void loop() {
    while (true) {
      std::deque<Queued> group;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
        if (queue_.empty()) return;
        group.swap(queue_);
      }
      commit(group);
      for (Queued& queued : group) {
        if (queued.done) queued.done(queued.result);
      }
    }
  }

  void commit(std::deque<Queued>& group) {
    auto begun = writer_->execute("BEGIN IMMEDIATE");
    if (begun) {
      for (Queued& queued : group) {
        queued.result = writer_->in_transaction() ? one(queued) : fail(Code::kIo, "the transaction was lost");
      }
      begun = writer_->execute("COMMIT");
    }
    if (begun) return;
    if (writer_->in_transaction()) (void)writer_->execute("ROLLBACK");
    for (Queued& queued : group) {
      if (queued.result) queued.result = begun;
    }
  }

  Result<void> one(Queued& queued) {
    CAPSTAN_TRY(const auto begun, writer_->run("SAVEPOINT one", {}));
    (void)begun;
    auto result = queued.write(*writer_);
    if (!result && writer_->in_transaction()) (void)writer_->run("ROLLBACK TO one", {});
    if (writer_->in_transaction()) (void)writer_->run("RELEASE one", {});
    return result;
  }

  const std::string path_;
  const SqliteOptions options_;
  std::unique_ptr<Connection> writer_;  // of the thread, once it runs
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Queued> queue_;
  bool stopping_ = false;
  std::mutex readers_mutex_;
  std::vector<std::unique_ptr<Connection>> readers_;
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<Database>> open_sqlite(const std::string& path, std::span<const Tables* const> parts,
                                              const SqliteOptions& options) {
  auto database = std::make_unique<SqliteDatabase>(path, options);
  CAPSTAN_CHECK(database->open(parts));
  return database;
}

}  // namespace capstan::store
