#include "gateway/openai/batch_table.h"

namespace capstan::gateway::openai {

const store::Tables kBatchTables{"batches", {R"sql(CREATE TABLE batch (
             seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, open BIGINT NOT NULL, caller TEXT NOT NULL,
             batch TEXT NOT NULL);
           CREATE INDEX batch_owner ON batch (owner, seq);
           CREATE INDEX batch_open ON batch (open, seq);
           CREATE TABLE batch_line (
             batch TEXT NOT NULL, line BIGINT NOT NULL, ok BIGINT NOT NULL, output TEXT NOT NULL,
             PRIMARY KEY (batch, line)))sql"}};

namespace {

// Reads the batch in the transaction, applies the change, writes it.
Result<Json> change_in(store::Session& session, const std::string& id,
                       const std::function<void(Json&)>& change) {
  CAPSTAN_TRY(const store::Rows rows, session.read("SELECT batch FROM batch WHERE id = $1", {id}));
  if (rows.empty()) return fail(Code::kNotFound, "No batch found with id '{}'.", id);
  CAPSTAN_TRY(Json batch, Json::parse(rows[0].text(0)));
  if (batch_has_ended(batch)) return batch;
  change(batch);
  CAPSTAN_CHECK(session.run("UPDATE batch SET open = $1, batch = $2 WHERE id = $3",
                            {!batch_has_ended(batch), batch.dump(), id}));
  return batch;
}

}  // namespace

bool batch_has_ended(const Json& batch) {
  const std::string status = batch.get_string("status").value_or("");
  return status == "completed" || status == "failed" || status == "cancelled" || status == "expired";
}

Result<void> BatchTable::add(const BatchRecord& record) {
  return database_.write([&](store::Session& session) -> Result<void> {
    CAPSTAN_CHECK(session.run("INSERT INTO batch (id, owner, open, caller, batch) VALUES ($1, $2, 1, $3, $4)",
                              {record.id, record.owner, record.caller.dump(), record.batch.dump()}));
    return {};
  });
}

Result<BatchRecord> BatchTable::read(const std::string& id) const {
  CAPSTAN_TRY(const store::Rows rows,
              database_.read("SELECT owner, caller, batch FROM batch WHERE id = $1", {id}));
  if (rows.empty()) return fail(Code::kNotFound, "No batch found with id '{}'.", id);
  CAPSTAN_TRY(Json caller, Json::parse(rows[0].text(1)));
  CAPSTAN_TRY(Json batch, Json::parse(rows[0].text(2)));
  return BatchRecord{id, rows[0].text(0), std::move(caller), std::move(batch)};
}

Result<Json> BatchTable::update(const std::string& id, const std::function<void(Json&)>& change) {
  Json after;
  CAPSTAN_CHECK(database_.write([&](store::Session& session) -> Result<void> {
    CAPSTAN_TRY(after, change_in(session, id, change));
    return {};
  }));
  return after;
}

Result<std::int64_t> BatchTable::count_open(const std::string& owner) const {
  CAPSTAN_TRY(const store::Rows rows,
              database_.read("SELECT COUNT(*) FROM batch WHERE owner = $1 AND open = 1", {owner}));
  return rows[0].integer(0);
}

Result<std::vector<std::string>> BatchTable::open_ids() const {
  CAPSTAN_TRY(const store::Rows rows, database_.read("SELECT id FROM batch WHERE open = 1 ORDER BY seq"));
  std::vector<std::string> ids;
  for (const store::Row& row : rows) ids.push_back(row.text(0));
  return ids;
}

Result<Json> BatchTable::list(const std::string& owner, const std::string& after, std::int64_t limit) const {
  std::int64_t before = INT64_MAX;
  if (!after.empty()) {
    CAPSTAN_TRY(const store::Rows at,
                database_.read("SELECT seq FROM batch WHERE id = $1 AND owner = $2", {after, owner}));
    if (at.empty()) return fail(Code::kNotFound, "No batch found with id '{}'.", after);
    before = at[0].integer(0);
  }
  CAPSTAN_TRY(
      const store::Rows rows,
      database_.read("SELECT batch FROM batch WHERE owner = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3",
                     {owner, before, limit + 1}));
  Json data = Json::array();
  for (const store::Row& row : rows) {
    if (static_cast<std::int64_t>(data.size()) == limit) break;
    CAPSTAN_TRY(Json batch, Json::parse(row.text(0)));
    data.push_back(std::move(batch));
  }
  Json first, last;
  if (data.size() > 0) first = *data.items().front().find("id");
  if (data.size() > 0) last = *data.items().back().find("id");
  const bool more = static_cast<std::int64_t>(rows.size()) > limit;
  return Json::object({{"object", "list"},
                       {"data", std::move(data)},
                       {"first_id", std::move(first)},
                       {"last_id", std::move(last)},
                       {"has_more", more}});
}

Result<void> BatchTable::add_line(const std::string& id, const Line& line) {
  return database_.write([&](store::Session& session) -> Result<void> {
    CAPSTAN_TRY(const std::int64_t added,
                session.run("INSERT INTO batch_line (batch, line, ok, output) VALUES ($1, $2, $3, $4) ON "
                            "CONFLICT (batch, line) DO NOTHING",
                            {id, line.line, line.ok, line.output}));
    if (added == 0) return {};
    CAPSTAN_CHECK(change_in(session, id, [&](Json& batch) {
      Json& count = batch["request_counts"][line.ok ? "completed" : "failed"];
      count = Json(count.is_int() ? count.as_int() + 1 : 1);
    }));
    return {};
  });
}

Result<std::vector<BatchTable::Line>> BatchTable::lines(const std::string& id) const {
  CAPSTAN_TRY(const store::Rows rows,
              database_.read("SELECT line, ok, output FROM batch_line WHERE batch = $1 ORDER BY line", {id}));
  std::vector<Line> lines;
  for (const store::Row& row : rows) lines.push_back({row.integer(0), row.integer(1) != 0, row.text(2)});
  return lines;
}

Result<void> BatchTable::drop_lines(const std::string& id) {
  return database_.write([&](store::Session& session) -> Result<void> {
    CAPSTAN_CHECK(session.run("DELETE FROM batch_line WHERE batch = $1", {id}));
    return {};
  });
}

}  // namespace capstan::gateway::openai
