// Responses that clients asked to keep (store: true): found again by id, and with all that was said before
// them.
//
//   ResponseStore responses(database);
//   responses.put({.id = "resp_…", .owner = "acme/web", …});     // visible at once, durable a moment later
//   CAPSTAN_TRY(auto history, responses.history("acme/web", "resp_…"));
//
// Each project sees its own only. Kept for kKeptSeconds, as OpenAI does. Threads: safe from any.
// Cost: a put queues one write; find is a read of SQL; history one read for each response before.
// Failure: kNotFound with the id; else the database's.
#pragma once

#include <map>
#include <mutex>
#include <string>

#include "base/json.h"
#include "store/database.h"

namespace capstan::gateway::openai {

inline constexpr std::int64_t kKeptSeconds = 30 * 86'400;
inline constexpr int kHistoryMax = 1000;  // responses before one

extern const store::Tables kResponseTables;

struct StoredResponse {
  std::string id;
  std::string owner;         // "organisation/project"
  std::int64_t created = 0;  // seconds since 1970
  std::string previous_id = {};
  Json::Array input = {};  // of this response alone
  Json response = {};
};

class ResponseStore {
 public:
  explicit ResponseStore(store::Database& database);
  ~ResponseStore() { database_.settle(); }  // what is queued speaks of it when it is done
  void put(StoredResponse response);
  Result<StoredResponse> find(const std::string& owner, const std::string& id) const;
  Result<void> remove(const std::string& owner, const std::string& id);
  // Input and output items of the response and of all before it, oldest first.
  Result<Json::Array> history(const std::string& owner, const std::string& id) const;
  // An item of any stored response.
  Result<Json> find_item(const std::string& owner, const std::string& item_id) const;
  // Responses that were still being made when the process ended: they become failed.
  Result<void> fail_interrupted();

 private:
  store::Database& database_;
  mutable std::mutex mutex_;
  std::map<std::string, StoredResponse> pending_;  // put, and not yet committed
};

}  // namespace capstan::gateway::openai
