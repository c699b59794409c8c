// How: a row an item, in the order of arrival. What was appended is found in memory until its write is committed, so that a
// client's next request always finds it.
#include "gateway/openai/conversation_store.h"

#include <algorithm>
#include <ctime>

#include "base/file.h"
#include "base/log.h"

namespace capstan::gateway::openai {

const store::Tables kConversationTables{"conversations", {R"sql(CREATE TABLE conversation (
             id TEXT PRIMARY KEY, owner TEXT NOT NULL, created BIGINT NOT NULL, metadata TEXT NOT NULL);
           CREATE TABLE conversation_item (
             seq INTEGER PRIMARY KEY, conversation TEXT NOT NULL, id TEXT NOT NULL, item TEXT NOT NULL,
             UNIQUE (conversation, id)))sql"}};

namespace {

std::unexpected<Error> not_found(std::string_view what, const std::string& id) {
  return std::unexpected(Error{
      .code = Code::kNotFound, .message = fmt::format("{} with id '{}' not found.", what, id), .field = {}});
}

Json object_of(const std::string& id, std::int64_t created, Json metadata) {
  return Json::object({{"id", id}, {"object", "conversation"}, {"created_at", created}, {"metadata", std::move(metadata)}});
}

std::string id_of(const Json& item) { return item.get_string("id").value_or(""); }

Result<void> insert(store::Session& session, const std::string& id, const Json::Array& items) {
  for (const Json& item : items) {
    CAPSTAN_CHECK(session.run(
        "INSERT INTO conversation_item (conversation, id, item) VALUES ($1, $2, $3) ON CONFLICT (conversation, id) DO NOTHING",
        {id, id_of(item), item.dump()}));
  }
  return {};
}

}  // namespace

Result<Json> ConversationStore::create(const std::string& owner, const Json& metadata, const Json::Array& items) {
  const std::string id = "conv_" + random_hex(24);
  const std::int64_t now = std::time(nullptr);
  const Json kept = metadata.is_object() ? metadata : Json::object();
  CAPSTAN_CHECK(database_.write([&](store::Session& session) -> Result<void> {
    CAPSTAN_CHECK(session.run("INSERT INTO conversation (id, owner, created, metadata) VALUES ($1, $2, $3, $4)",
                              {id, owner, now, kept.dump()}));
    return insert(session, id, items);
  }));
  return object_of(id, now, kept);
}

Result<Json> ConversationStore::find(const std::string& owner, const std::string& id) const {
  CAPSTAN_TRY(const store::Rows rows,
              database_.read("SELECT created, metadata FROM conversation WHERE id = $1 AND owner = $2", {id, owner}));
  if (rows.empty()) return not_found("Conversation", id);
  CAPSTAN_TRY(Json metadata, Json::parse(rows[0].text(1)));
  return object_of(id, rows[0].integer(0), std::move(metadata));
}

Result<Json> ConversationStore::set_metadata(const std::string& owner, const std::string& id, const Json& metadata) {
  CAPSTAN_TRY(Json found, find(owner, id));
  found["metadata"] = metadata.is_object() ? metadata : Json::object();
  CAPSTAN_CHECK(database_.write([&](store::Session& session) -> Result<void> {
    CAPSTAN_CHECK(session.run("UPDATE conversation SET metadata = $1 WHERE id = $2", {found["metadata"].dump(), id}));
    return {};
  }));
  return found;
}

Result<void> ConversationStore::remove(const std::string& owner, const std::string& id) {
  CAPSTAN_CHECK(find(owner, id));
  return database_.write([&](store::Session& session) -> Result<void> {
    CAPSTAN_CHECK(session.run("DELETE FROM conversation_item WHERE conversation = $1", {id}));
    CAPSTAN_CHECK(session.run("DELETE FROM conversation WHERE id = $1", {id}));
    return {};
  });
}

Result<Json::Array> ConversationStore::items(const std::string& owner, const std::string& id) const {
  Json::Array waiting;  // looked at before the table: what is committed meanwhile is then in both, and told once
  {
    const std::scoped_lock lock(mutex_);
    for (auto [at, end] = pending_.equal_range(id); at != end; ++at)
      waiting.insert(waiting.end(), at->second.begin(), at->second.end());
  }
  CAPSTAN_CHECK(find(owner, id));
  CAPSTAN_TRY(const store::Rows rows,
              database_.read("SELECT item FROM conversation_item WHERE conversation = $1 ORDER BY seq DESC LIMIT $2",
                             {id, kConversationItemsMax}));
  Json::Array items;
  for (auto row = rows.rbegin(); row != rows.rend(); ++row) {
    CAPSTAN_TRY(Json item, Json::parse(row->text(0)));
    items.push_back(std::move(item));
  }
  for (Json& item : waiting) {
    const auto same = [&](const Json& other) { return id_of(other) == id_of(item); };
    if (std::ranges::none_of(items, same)) items.push_back(std::move(item));
  }
  return items;
}

Result<void> ConversationStore::add(const std::string& owner, const std::string& id, const Json::Array& items) {
  CAPSTAN_CHECK(find(owner, id));
  return database_.write([&](store::Session& session) { return insert(session, id, items); });
}

void ConversationStore::append(const std::string& id, Json::Array items) {
  if (items.empty()) return;
  const std::string first = id_of(items.front());
  {
    const std::scoped_lock lock(mutex_);
    pending_.emplace(id, items);
  }
  database_.write([id, items = std::move(items)](store::Session& session) { return insert(session, id, items); },
                  [this, id, first](const Result<void>& durable) {
                    if (!durable) log_error("a conversation's items are not stored", "id={} why={}", id, durable.error().message);
                    const std::scoped_lock lock(mutex_);
                    const auto [begin, end] = pending_.equal_range(id);
                    const auto found = std::find_if(
                        begin, end, [&](const auto& entry) { return id_of(entry.second.front()) == first; });
                    if (found != end) pending_.erase(found);
                  });
}

Result<void> ConversationStore::remove_item(const std::string& owner, const std::string& id, const std::string& item_id) {
  CAPSTAN_CHECK(find(owner, id));
  std::int64_t removed = 0;
  CAPSTAN_CHECK(database_.write([&](store::Session& session) -> Result<void> {
    CAPSTAN_TRY(removed,
                session.run("DELETE FROM conversation_item WHERE conversation = $1 AND id = $2", {id, item_id}));
    return {};
  }));
  if (removed == 0) return not_found("Item", item_id);
  return {};
}

}  // namespace capstan::gateway::openai
