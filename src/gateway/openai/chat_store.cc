#include "gateway/openai/chat_store.h"

#include <algorithm>

#include "base/log.h"
#include "gateway/openai/response_store.h"

namespace capstan::gateway::openai {

const store::Tables kChatTables{"chats", {R"sql(CREATE TABLE chat (
             seq INTEGER PRIMARY KEY, id TEXT NOT NULL, owner TEXT NOT NULL, created BIGINT NOT NULL, model TEXT NOT NULL,
             messages TEXT NOT NULL, completion TEXT NOT NULL, UNIQUE (owner, id));
           CREATE INDEX chat_created ON chat (created))sql"}};

namespace {

constexpr std::int64_t kRowsAtOnce = 100;

Result<void> write(store::Session& session, const StoredChat& chat) {
  CAPSTAN_CHECK(session.run(
      "INSERT INTO chat (id, owner, created, model, messages, completion) VALUES ($1, $2, $3, $4, $5, $6) "
      "ON CONFLICT (owner, id) DO NOTHING",
      {chat.id, chat.owner, chat.created, chat.model, Json(chat.messages).dump(), chat.completion.dump()}));
  CAPSTAN_CHECK(session.run("DELETE FROM chat WHERE created < $1", {chat.created - kKeptSeconds}));
  return {};
}

bool matches(const Json& completion, const std::map<std::string, std::string>& wanted) {
  const Json* metadata = completion.find("metadata");
  return std::ranges::all_of(wanted, [&](const auto& pair) {
    return metadata != nullptr && metadata->get_string(pair.first) == pair.second;
  });
}

}  // namespace

void ChatStore::put(StoredChat chat) {
  const std::string id = chat.id;
  database_.write([chat = std::move(chat)](store::Session& session) { return write(session, chat); },
                  [id](const Result<void>& durable) {
                    if (!durable) log_error("a chat completion is not stored", "id={} why={}", id, durable.error().message);
                  });
}

Result<store::Row> ChatStore::row(const std::string& owner, const std::string& id) const {
  database_.settle();
  CAPSTAN_TRY(store::Rows rows,
              database_.read("SELECT completion, messages FROM chat WHERE owner = $1 AND id = $2", {owner, id}));
  if (rows.empty()) return fail(Code::kNotFound, "Chat completion with id '{}' not found.", id);
  return std::move(rows[0]);
}

Result<Json> ChatStore::find(const std::string& owner, const std::string& id) const {
  CAPSTAN_TRY(const store::Row found, row(owner, id));
  return Json::parse(found.text(0));
}

Result<Json::Array> ChatStore::messages(const std::string& owner, const std::string& id) const {
  CAPSTAN_TRY(const store::Row found, row(owner, id));
  CAPSTAN_TRY(Json messages, Json::parse(found.text(1)));
  return std::move(messages.items());
}

Result<Json> ChatStore::list(const std::string& owner, const Filter& filter, const Paging& paging) const {
  database_.settle();
  std::int64_t at = paging.ascending ? 0 : INT64_MAX;
  if (!paging.after.empty()) {
    CAPSTAN_TRY(const store::Rows after,
                database_.read("SELECT seq FROM chat WHERE owner = $1 AND id = $2", {owner, paging.after}));
    if (after.empty()) return fail(Code::kNotFound, "Chat completion with id '{}' not found.", paging.after);
    at = after[0].integer(0);
  }
  const std::string_view sql =
      paging.ascending ? "SELECT seq, completion FROM chat WHERE owner = $1 AND ($2 = '' OR model = $2) AND seq > $3 "
                         "ORDER BY seq LIMIT $4"
                       : "SELECT seq, completion FROM chat WHERE owner = $1 AND ($2 = '' OR model = $2) AND seq < $3 "
                         "ORDER BY seq DESC LIMIT $4";
  Json::Array found;  // one more than the page has, if there are more
  const auto enough = static_cast<std::size_t>(paging.limit) + 1;
  for (bool more = true; more && found.size() < enough;) {
    CAPSTAN_TRY(const store::Rows rows, database_.read(sql, {owner, filter.model, at, kRowsAtOnce}));
    more = rows.size() == static_cast<std::size_t>(kRowsAtOnce);
    for (const store::Row& each : rows) {
      at = each.integer(0);
      CAPSTAN_TRY(Json completion, Json::parse(each.text(1)));
      if (found.size() < enough && matches(completion, filter.metadata)) found.push_back(std::move(completion));
    }
  }
  // They are in the page's order already, and behind `after`.
  return page_of(std::move(found), {.limit = paging.limit, .ascending = true, .after = {}});
}

Result<Json> ChatStore::set_metadata(const std::string& owner, const std::string& id, const Json& metadata) {
  CAPSTAN_TRY(Json completion, find(owner, id));
  completion["metadata"] = metadata.is_object() ? metadata : Json::object();
  CAPSTAN_CHECK(database_.write([&](store::Session& session) -> Result<void> {
    CAPSTAN_CHECK(session.run("UPDATE chat SET completion = $1 WHERE owner = $2 AND id = $3", {completion.dump(), owner, id}));
    return {};
  }));
  return completion;
}

Result<void> ChatStore::remove(const std::string& owner, const std::string& id) {
  CAPSTAN_CHECK(row(owner, id));
  return database_.write([&](store::Session& session) -> Result<void> {
    CAPSTAN_CHECK(session.run("DELETE FROM chat WHERE owner = $1 AND id = $2", {owner, id}));
    return {};
  });
}

}  // namespace capstan::gateway::openai
