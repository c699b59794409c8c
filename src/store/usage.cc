// How: a batch's rows first; those that were new are added up by hour in memory and then upserted, so that a
// busy hour costs one row a batch.
#include "store/usage.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <tuple>

namespace capstan::store {

const Tables kUsageTables{"usage", {R"(
CREATE TABLE usage (id BIGINT PRIMARY KEY, key BIGINT NOT NULL, project BIGINT NOT NULL, organisation BIGINT NOT NULL,
  model BIGINT NOT NULL, tier TEXT NOT NULL, status BIGINT NOT NULL, exact BIGINT NOT NULL, prompt_tokens BIGINT NOT NULL,
  cached_tokens BIGINT NOT NULL, completion_tokens BIGINT NOT NULL, reasoning_tokens BIGINT NOT NULL,
  nano_dollars BIGINT NOT NULL, price_input BIGINT NOT NULL, price_cached BIGINT NOT NULL, price_output BIGINT NOT NULL,
  queued_ms BIGINT NOT NULL, first_byte_ms BIGINT NOT NULL, total_ms BIGINT NOT NULL, request_id TEXT NOT NULL,
  path TEXT NOT NULL);
CREATE TABLE usage_hour (hour_ms BIGINT NOT NULL, key BIGINT NOT NULL, project BIGINT NOT NULL,
  organisation BIGINT NOT NULL, model BIGINT NOT NULL, tier TEXT NOT NULL, requests BIGINT NOT NULL,
  prompt_tokens BIGINT NOT NULL, cached_tokens BIGINT NOT NULL, completion_tokens BIGINT NOT NULL,
  reasoning_tokens BIGINT NOT NULL, nano_dollars BIGINT NOT NULL,
  PRIMARY KEY (hour_ms, key, project, model, tier));
)"}};

namespace {

constexpr std::int64_t kHourMs = 3'600'000;
constexpr std::int64_t kDayMs = 24 * kHourMs;
constexpr std::int64_t kPrunedPerRecord = 2;

template <std::size_t N>
std::string_view text_of(const std::array<char, N>& field) {
  return {field.data(), ::strnlen(field.data(), N)};
}

std::string_view name_of_tier(Tier tier) {
  return static_cast<int>(tier) < kTiers ? name_of(tier) : name_of(Tier::kDefault);
}

// WHERE for UsageOf, with its four parameters from $`first`.
std::string where(int first) {
  std::string out;
  for (const char* column : {"organisation", "project", "key", "model"}) {
    out += fmt::format(" AND ({1} = ${0} OR ${0} = 0)", first++, column);
  }
  return out;
}

UsageSum sum_of(const Row& row, std::size_t first) {
  return {row.integer(first),     row.integer(first + 1), row.integer(first + 2),
          row.integer(first + 3), row.integer(first + 4), row.integer(first + 5)};
}

constexpr std::string_view kSums =
    "coalesce(sum(prompt_tokens), 0), coalesce(sum(cached_tokens), 0), coalesce(sum(completion_tokens), 0), "
    "coalesce(sum(reasoning_tokens), 0), coalesce(sum(nano_dollars), 0)";

using HourKey = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, Tier>;

Result<void> add_hours(Session& session, const std::map<HourKey, UsageSum>& hours) {
  for (const auto& [at, sum] : hours) {
    const auto& [hour, key, project, organisation, model, tier] = at;
    CAPSTAN_TRY(
        const auto rows,
        session.run("INSERT INTO usage_hour VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) "
                    "ON CONFLICT (hour_ms, key, project, model, tier) DO UPDATE SET "
                    "requests = usage_hour.requests + excluded.requests, "
                    "prompt_tokens = usage_hour.prompt_tokens + excluded.prompt_tokens, "
                    "cached_tokens = usage_hour.cached_tokens + excluded.cached_tokens, "
                    "completion_tokens = usage_hour.completion_tokens + excluded.completion_tokens, "
                    "reasoning_tokens = usage_hour.reasoning_tokens + excluded.reasoning_tokens, "
                    "nano_dollars = usage_hour.nano_dollars + excluded.nano_dollars",
                    {hour, key, project, organisation, model, name_of_tier(tier), sum.requests, sum.input_tokens,
                     sum.cached_tokens, sum.output_tokens, sum.reasoning_tokens, sum.nano_dollars}));
    (void)rows;
  }
  return {};
}

}  // namespace

Result<void> insert_usage(Session& session, std::span<const UsageRecord> records) {
  std::map<HourKey, UsageSum> hours;
  std::int64_t newest_ms = 0;
  for (const UsageRecord& r : records) {
    CAPSTAN_TRY(const auto inserted,
                session.run("INSERT INTO usage VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, "
                            "$15, $16, $17, $18, $19, $20, $21) ON CONFLICT (id) DO NOTHING",
                            {r.id, r.key, r.project, r.organisation, r.model, name_of_tier(r.tier), int{r.status},
                             r.exact, r.prompt_tokens, r.cached_tokens, r.completion_tokens, r.reasoning_tokens,
                             r.nano_dollars, r.price.input, r.price.cached, r.price.output, int{r.queued_ms},
                             int{r.first_byte_ms}, int{r.total_ms}, text_of(r.request_id), text_of(r.path)}));
    if (inserted == 0) continue;
    newest_ms = std::max(newest_ms, r.time_ms());
    UsageSum& sum = hours[{r.time_ms() / kHourMs * kHourMs, r.key, r.project, r.organisation, r.model, r.tier}];
    ++sum.requests;
    sum.input_tokens += r.prompt_tokens;
    sum.cached_tokens += r.cached_tokens;
    sum.output_tokens += r.completion_tokens;
    sum.reasoning_tokens += r.reasoning_tokens;
    sum.nano_dollars += r.nano_dollars;
  }
  CAPSTAN_CHECK(add_hours(session, hours));
  const std::int64_t oldest_kept = (newest_ms - kUsageDays * kDayMs) * kUsageIdsPerMs;
  CAPSTAN_TRY(const auto pruned,
              session.run("DELETE FROM usage WHERE id IN (SELECT id FROM usage WHERE id < $1 ORDER BY id LIMIT $2)",
                          {oldest_kept, static_cast<std::int64_t>(records.size()) * kPrunedPerRecord}));
  (void)pruned;
  return {};
}

Result<UsageSum> usage_since(Database& database, const UsageOf& of, std::int64_t begin_ms, std::int64_t end_ms) {
  const bool hours = end_ms - begin_ms >= kHourMs;
  const std::string sql =
      hours ? fmt::format("SELECT coalesce(sum(requests), 0), {} FROM usage_hour WHERE hour_ms >= $1 AND hour_ms < $2{}",
                          kSums, where(3))
            : fmt::format("SELECT count(*), {} FROM usage WHERE id >= $1 AND id < $2{}", kSums, where(3));
  const auto bound = [&](std::int64_t ms) {
    return hours ? ms : static_cast<std::int64_t>(std::min<__int128>(static_cast<__int128>(ms) * kUsageIdsPerMs, INT64_MAX));
  };
  CAPSTAN_TRY(const Rows rows, database.read(sql, {bound(begin_ms), bound(end_ms), of.organisation, of.project, of.key,
                                                   of.model}));
  return sum_of(rows.front(), 0);
}

Result<std::vector<UsageLine>> usage_report(Database& database, const UsageQuery& query) {
  const std::string_view group = query.by == UsageBy::kModel     ? "model"
                                 : query.by == UsageBy::kProject ? "project"
                                 : query.by == UsageBy::kKey     ? "key"
                                                                 : "hour_ms - hour_ms % 86400000";
  const std::string sql = fmt::format(
      "SELECT {0}, coalesce(sum(requests), 0), {1} FROM usage_hour WHERE hour_ms >= $1 AND hour_ms < $2{2} "
      "GROUP BY {0} ORDER BY {3}",
      group, kSums, where(3), query.by == UsageBy::kDay ? "1" : "sum(nano_dollars) DESC, 1");
  CAPSTAN_TRY(const Rows rows,
              database.read(sql, {query.since_ms - query.since_ms % kHourMs, query.until_ms, query.of.organisation,
                                  query.of.project, query.of.key, query.of.model}));
  std::vector<UsageLine> lines;
  for (const Row& row : rows) lines.push_back({row.integer(0), sum_of(row, 1)});
  return lines;
}

Result<std::vector<UsageRecord>> usage_records(Database& database, const UsageOf& of, std::int64_t limit) {
  CAPSTAN_TRY(const Rows rows,
              database.read("SELECT id, key, project, organisation, model, tier, status, exact, prompt_tokens, "
                            "cached_tokens, completion_tokens, reasoning_tokens, nano_dollars, price_input, "
                            "price_cached, price_output, queued_ms, first_byte_ms, total_ms, request_id, path "
                            "FROM usage WHERE 1 = 1" +
                                where(1) + " ORDER BY id DESC LIMIT $5",
                            {of.organisation, of.project, of.key, of.model, limit}));
  std::vector<UsageRecord> out;
  for (const Row& row : rows) {
    UsageRecord r;
    r.id = row.integer(0), r.key = row.integer(1), r.project = row.integer(2), r.organisation = row.integer(3);
    r.model = row.integer(4), r.tier = tier_of(row.text(5)).value_or(Tier::kDefault);
    r.status = static_cast<std::int16_t>(row.integer(6)), r.exact = row.integer(7) != 0;
    r.prompt_tokens = row.integer(8), r.cached_tokens = row.integer(9);
    r.completion_tokens = row.integer(10), r.reasoning_tokens = row.integer(11);
    r.nano_dollars = row.integer(12);
    r.price = {row.integer(13), row.integer(14), row.integer(15)};
    r.queued_ms = static_cast<std::int32_t>(row.integer(16));
    r.first_byte_ms = static_cast<std::int32_t>(row.integer(17));
    r.total_ms = static_cast<std::int32_t>(row.integer(18));
    const std::string request_id = row.text(19), path = row.text(20);
    std::memcpy(r.request_id.data(), request_id.data(), std::min(request_id.size(), r.request_id.size()));
    std::memcpy(r.path.data(), path.data(), std::min(path.size(), r.path.size()));
    out.push_back(r);
  }
  return out;
}

Result<std::int64_t> last_usage_id(Database& database) {
  CAPSTAN_TRY(const Rows rows, database.read("SELECT coalesce(max(id), 0) FROM usage"));
  return rows.front().integer(0);
}

}  // namespace capstan::store
