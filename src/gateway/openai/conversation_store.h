// Conversations: lists of items that responses go on from and add to.
//
//   CAPSTAN_TRY(Json conversation, conversations.create("acme/web", metadata, items));
//   conversations.append(id, items);      // visible at once, durable a moment later
//
// Each project sees its own only; they are kept until they are deleted. Threads: safe from any. Cost: items() reads all of
// a conversation; an append queues one write.  Bounds: kConversationItemsMax items of a conversation, the newest.
// Failure: kNotFound with the id, else the database's.
#pragma once

#include <map>
#include <mutex>
#include <string>

#include "base/json.h"
#include "store/database.h"

namespace capstan::gateway::openai {

inline constexpr std::int64_t kConversationItemsMax = 8192;

extern const store::Tables kConversationTables;

class ConversationStore {
 public:
  explicit ConversationStore(store::Database& database) : database_(database) {}
  ~ConversationStore() { database_.settle(); }  // what is queued speaks of it when it is done
  // {"id","object","created_at","metadata"}; `metadata` is an object or null.
  Result<Json> create(const std::string& owner, const Json& metadata, const Json::Array& items);
  Result<Json> find(const std::string& owner, const std::string& id) const;
  Result<Json> set_metadata(const std::string& owner, const std::string& id, const Json& metadata);
  Result<void> remove(const std::string& owner, const std::string& id);
  // Oldest first.
  Result<Json::Array> items(const std::string& owner, const std::string& id) const;
  Result<void> add(const std::string& owner, const std::string& id, const Json::Array& items);
  void append(const std::string& id, Json::Array items);
  Result<void> remove_item(const std::string& owner, const std::string& id, const std::string& item_id);

 private:
  store::Database& database_;
  mutable std::mutex mutex_;
  std::multimap<std::string, Json::Array> pending_;  // appended, and not yet committed; equal ids in their order
};

}  // namespace capstan::gateway::openai
