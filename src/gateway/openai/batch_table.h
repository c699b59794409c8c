// Batches and their finished lines in SQL. Private to openai/.
//
// A batch's row holds OpenAI's object as it is shown; every change is a transaction of its own on that
// object, so that who cancels and who runs do not overwrite each other. Threads: safe from any; blocks.
// Failure: kNotFound with the id; else the database's.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "store/database.h"

namespace capstan::gateway::openai {

extern const store::Tables kBatchTables;

bool batch_has_ended(const Json& batch);

struct BatchRecord {
  std::string id, owner;
  Json caller;  // who pays: organisation, project, key_id
  Json batch;
};

class BatchTable {
 public:
  explicit BatchTable(store::Database& database) : database_(database) {}
  Result<void> add(const BatchRecord& record);
  Result<BatchRecord> read(const std::string& id) const;
  // Applies `change` to a batch that has not ended; the batch as it is then.
  Result<Json> update(const std::string& id, const std::function<void(Json& batch)>& change);
  Result<std::int64_t> count_open(const std::string& owner) const;
  Result<std::vector<std::string>> open_ids() const;  // oldest first
  Result<Json> list(const std::string& owner, const std::string& after, std::int64_t limit) const;

  struct Line {
    std::int64_t line = 0;
    bool ok = false;
    std::string output = {};
  };
  // Once for each line; the counts in the batch follow.
  Result<void> add_line(const std::string& id, const Line& line);
  Result<std::vector<Line>> lines(const std::string& id) const;  // in order
  Result<void> drop_lines(const std::string& id);

 private:
  store::Database& database_;
};

}  // namespace capstan::gateway::openai
