// Chat completions that clients asked to keep (store: true): found again by id, listed, with metadata that may change.
//
//   ChatStore chats(database);
//   chats.put({.id = "chatcmpl-…", .owner = "acme/web", …});     // durable a moment later
//   CAPSTAN_TRY(Json completion, chats.find("acme/web", "chatcmpl-…"));
//
// Each project sees its own only. Kept for kKeptSeconds, as OpenAI does. Threads: safe from any; put() alone does not block.
// Cost: a put queues one write; everything else waits for the writes before it. A list that filters by metadata reads
// completions until its page is full.  Failure: kNotFound with the id; else the database's.
#pragma once

#include <map>
#include <string>

#include "base/json.h"
#include "gateway/openai/endpoints.h"
#include "store/database.h"

namespace capstan::gateway::openai {

extern const store::Tables kChatTables;

struct StoredChat {
  std::string id;
  std::string owner;         // "organisation/project"
  std::int64_t created = 0;  // seconds since 1970
  std::string model = {};
  Json::Array messages = {};  // of the request
  Json completion = {};       // with the members of the request that it is kept with
};

class ChatStore {
 public:
  struct Filter {
    std::string model = {};  // "": any
    std::map<std::string, std::string> metadata = {};
  };

  explicit ChatStore(store::Database& database) : database_(database) {}
  void put(StoredChat chat);
  Result<Json> find(const std::string& owner, const std::string& id) const;
  Result<Json::Array> messages(const std::string& owner, const std::string& id) const;
  Result<Json> list(const std::string& owner, const Filter& filter, const Paging& paging) const;
  Result<Json> set_metadata(const std::string& owner, const std::string& id, const Json& metadata);
  Result<void> remove(const std::string& owner, const std::string& id);

 private:
  Result<store::Row> row(const std::string& owner, const std::string& id) const;

  store::Database& database_;
};

}  // namespace capstan::gateway::openai
