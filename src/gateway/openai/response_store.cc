// How: what was put is found in memory until its write is committed, so that a client's next request always
// finds it.
#include "gateway/openai/response_store.h"

#include <algorithm>

#include "base/log.h"

namespace capstan::gateway::openai {

const store::Tables kResponseTables{"responses", {R"sql(CREATE TABLE response (
             id TEXT PRIMARY KEY, owner TEXT NOT NULL, created BIGINT NOT NULL, status TEXT NOT NULL, previous_id TEXT NOT NULL,
             input TEXT NOT NULL, response TEXT NOT NULL);
           CREATE INDEX response_created ON response (created);
           CREATE TABLE response_item (owner TEXT NOT NULL, id TEXT NOT NULL, response_id TEXT NOT NULL, PRIMARY KEY (owner, id));
           CREATE INDEX response_item_response ON response_item (response_id))sql"}};

namespace {


std::vector<std::string> item_ids(const StoredResponse& response) {
  std::vector<std::string> ids;
  const auto add = [&](const Json::Array& items) {
    for (const Json& item : items) {
      if (auto id = item.get_string("id")) ids.push_back(*std::move(id));
    }
  };
  add(response.input);
  if (const Json* output = response.response.find("output"); output != nullptr && output->is_array())
    add(output->items());
  return ids;
}

Result<void> write(store::Session& session, const StoredResponse& response) {
  CAPSTAN_CHECK(session.run(
      "INSERT INTO response (id, owner, created, status, previous_id, input, response) VALUES ($1, $2, $3, "
      "$4, $5, $6, $7) "
      "ON CONFLICT (id) DO UPDATE SET status = excluded.status, response = excluded.response",
      {response.id, response.owner, response.created, response.response.get_string("status").value_or(""),
       response.previous_id, Json(response.input).dump(), response.response.dump()}));
  for (const std::string& id : item_ids(response)) {
    CAPSTAN_CHECK(
        session.run("INSERT INTO response_item (owner, id, response_id) VALUES ($1, $2, $3) ON CONFLICT "
                    "(owner, id) DO NOTHING",
                    {response.owner, id, response.id}));
  }
  const std::int64_t oldest = response.created - kKeptSeconds;
  CAPSTAN_CHECK(session.run(
      "DELETE FROM response_item WHERE response_id IN (SELECT id FROM response WHERE created < $1)",
      {oldest}));
  CAPSTAN_CHECK(session.run("DELETE FROM response WHERE created < $1", {oldest}));
  return {};
}

}  // namespace

ResponseStore::ResponseStore(store::Database& database) : database_(database) {}

void ResponseStore::put(StoredResponse response) {
  {
    const std::scoped_lock lock(mutex_);
    pending_[response.id] = response;
  }
  const std::string id = response.id;
  const std::string status = response.response.get_string("status").value_or("");
  database_.write(
      [response = std::move(response)](store::Session& session) { return write(session, response); },
      [this, id, status](const Result<void>& durable) {
        if (!durable) log_error("a response is not stored", "id={} why={}", id, durable.error().message);
        const std::scoped_lock lock(mutex_);
        const auto found = pending_.find(id);  // a later state of it may wait for its own write
        if (found != pending_.end() && found->second.response.get_string("status").value_or("") == status)
          pending_.erase(found);
      });
}

Result<StoredResponse> ResponseStore::find(const std::string& owner, const std::string& id) const {
  {
    const std::scoped_lock lock(mutex_);
    const auto found = pending_.find(id);
    if (found != pending_.end() && found->second.owner == owner) return found->second;
  }
  CAPSTAN_TRY(const store::Rows rows,
              database_.read(
                  "SELECT created, previous_id, input, response FROM response WHERE id = $1 AND owner = $2",
                  {id, owner}));
  if (rows.empty()) return fail(Code::kNotFound, "Response with id '{}' not found.", id);
  CAPSTAN_TRY(const Json input, Json::parse(rows[0].text(2)));
  CAPSTAN_TRY(Json response, Json::parse(rows[0].text(3)));
  return StoredResponse{id, owner, rows[0].integer(0), rows[0].text(1), input.items(), std::move(response)};
}

Result<void> ResponseStore::remove(const std::string& owner, const std::string& id) {
  CAPSTAN_CHECK(find(owner, id));
  CAPSTAN_CHECK(database_.write([&](store::Session& session) -> Result<void> {
    CAPSTAN_CHECK(session.run("DELETE FROM response_item WHERE response_id = $1", {id}));
    CAPSTAN_CHECK(session.run("DELETE FROM response WHERE id = $1 AND owner = $2", {id, owner}));
    return {};
  }));
  const std::scoped_lock lock(mutex_);
  pending_.erase(id);
  return {};
}

Result<Json::Array> ResponseStore::history(const std::string& owner, const std::string& id) const {
  std::vector<StoredResponse> chain;
  for (std::string at = id; !at.empty(); at = chain.back().previous_id) {
    if (chain.size() == kHistoryMax)
      return fail(Code::kInvalid, "more than {} responses before '{}'; start a new conversation", kHistoryMax,
                  id);
    auto found = find(owner, at);
    if (!found && !chain.empty() && found.error().code == Code::kNotFound)
      break;  // deleted or too old: what is there goes on
    if (!found) return std::unexpected(std::move(found.error()));
    chain.push_back(*std::move(found));
  }
  Json::Array items;
  for (auto response = chain.rbegin(); response != chain.rend(); ++response) {
    items.insert(items.end(), response->input.begin(), response->input.end());
    if (const Json* output = response->response.find("output"))
      items.insert(items.end(), output->items().begin(), output->items().end());
  }
  return items;
}

Result<Json> ResponseStore::find_item(const std::string& owner, const std::string& item_id) const {
  const auto in = [&](const StoredResponse& response) -> const Json* {
    const auto is_it = [&](const Json& item) { return item.get_string("id") == item_id; };
    const auto found = std::ranges::find_if(response.input, is_it);
    if (found != response.input.end()) return &*found;
    const Json* output = response.response.find("output");
    if (output == nullptr) return nullptr;
    const auto said = std::ranges::find_if(output->items(), is_it);
    return said == output->items().end() ? nullptr : &*said;
  };
  {
    const std::scoped_lock lock(mutex_);
    for (const auto& [id, response] : pending_) {
      if (response.owner != owner) continue;
      if (const Json* item = in(response)) return *item;
    }
  }
  CAPSTAN_TRY(
      const store::Rows rows,
      database_.read("SELECT response_id FROM response_item WHERE owner = $1 AND id = $2", {owner, item_id}));
  if (!rows.empty()) {
    CAPSTAN_TRY(const StoredResponse response, find(owner, rows[0].text(0)));
    if (const Json* item = in(response)) return *item;
  }
  return fail(Code::kNotFound, "Item with id '{}' not found.", item_id);
}

Result<void> ResponseStore::fail_interrupted() {
  CAPSTAN_TRY(const store::Rows rows,
              database_.read("SELECT id, owner FROM response WHERE status = $1 OR status = $2",
                             {"queued", "in_progress"}));
  for (const store::Row& row : rows) {
    CAPSTAN_TRY(StoredResponse response, find(row.text(1), row.text(0)));
    response.response["status"] = "failed";
    response.response["error"] =
        Json::object({{"code", "server_error"},
                      {"message", "the server was stopped while it made this response; ask again"}});
    put(std::move(response));
  }
  return {};
}

}  // namespace capstan::gateway::openai
