// Usage: what every request used and cost, one row each, and sums by the hour.
//
//   CAPSTAN_CHECK(insert_usage(session, records));          // of a batch, in a transaction that others share
//   CAPSTAN_TRY(UsageSum sum, usage_since(database, {.project = 2}, begin_ms, end_ms));
//   CAPSTAN_TRY(auto lines, usage_report(database, {.by = UsageBy::kModel, .since_ms = month_begin}));
//
// A record's id is its moment of admission and a count (usage_id), so ids grow with time and a record that is
// inserted twice counts once. Rows are kept for kUsageDays; the sums by hour stay.
// Cost: insert about 3 µs a record.  Failure: the database's.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "store/catalogue.h"
#include "store/database.h"

namespace capstan::store {

extern const Tables kUsageTables;

inline constexpr std::int64_t kUsageDays = 35;
inline constexpr std::int64_t kUsageIdsPerMs = std::int64_t{1} << 20;

// Plain bytes, so that it can lie in a file that is mapped into memory.
struct UsageRecord {
  std::int64_t id = 0;  // admitted at id / kUsageIdsPerMs
  std::int64_t key = 0, project = 0, organisation = 0, model = 0;
  Price price = {};
  std::int64_t prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0, reasoning_tokens = 0;
  std::int64_t nano_dollars = 0;
  std::int32_t queued_ms = 0, first_byte_ms = 0, total_ms = 0;
  std::int16_t status = 0;  // 499: the client left; 0: the gateway was killed meanwhile
  Tier tier = Tier::kDefault;
  bool exact = false;  // reported by the replica; else estimated
  std::array<char, 40> request_id = {};
  std::array<char, 32> path = {};
  std::int64_t time_ms() const { return id / kUsageIdsPerMs; }
};

Result<void> insert_usage(Session& session, std::span<const UsageRecord> records);

struct UsageSum {
  std::int64_t requests = 0, input_tokens = 0, cached_tokens = 0, output_tokens = 0, reasoning_tokens = 0;
  std::int64_t nano_dollars = 0;
};
// 0: whichever.
struct UsageOf {
  std::int64_t organisation = 0, project = 0, key = 0, model = 0;
};
// Windows of an hour or longer must begin at an hour.
Result<UsageSum> usage_since(Database& database, const UsageOf& of, std::int64_t begin_ms, std::int64_t end_ms);

enum class UsageBy { kModel, kProject, kKey, kDay };
struct UsageQuery {
  UsageBy by = UsageBy::kModel;
  std::int64_t since_ms = 0;
  std::int64_t until_ms = INT64_MAX;
  UsageOf of = {};
};
struct UsageLine {
  std::int64_t group = 0;  // number of the model, project or key, or the day's begin in milliseconds
  UsageSum sum;
};
// By cost, then by group; kDay by day.
Result<std::vector<UsageLine>> usage_report(Database& database, const UsageQuery& query);

// The newest records first.
Result<std::vector<UsageRecord>> usage_records(Database& database, const UsageOf& of, std::int64_t limit);
Result<std::int64_t> last_usage_id(Database& database);

}  // namespace capstan::store
