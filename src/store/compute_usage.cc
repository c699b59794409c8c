// How: as usage.cc: rows first, those that were new are added up by hour in memory and upserted.
#include "store/compute_usage.h"

#include <algorithm>
#include <map>
#include <tuple>

namespace capstan::store {

const Tables kComputeTables{"compute", {R"(
CREATE TABLE compute_usage (id TEXT PRIMARY KEY, time_ms BIGINT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL,
  key BIGINT NOT NULL, project BIGINT NOT NULL, organisation BIGINT NOT NULL, runs BIGINT NOT NULL, wall_ms BIGINT NOT NULL,
  cpu_us BIGINT NOT NULL, memory_mib_ms BIGINT NOT NULL, memory_peak_bytes BIGINT NOT NULL, bytes_in BIGINT NOT NULL,
  bytes_out BIGINT NOT NULL);
CREATE INDEX compute_usage_time ON compute_usage (time_ms);
CREATE TABLE compute_usage_hour (hour_ms BIGINT NOT NULL, kind TEXT NOT NULL, key BIGINT NOT NULL, project BIGINT NOT NULL,
  organisation BIGINT NOT NULL, runs BIGINT NOT NULL, wall_ms BIGINT NOT NULL, cpu_us BIGINT NOT NULL,
  memory_mib_ms BIGINT NOT NULL, memory_peak_bytes BIGINT NOT NULL, bytes_in BIGINT NOT NULL, bytes_out BIGINT NOT NULL,
  PRIMARY KEY (hour_ms, kind, key, project));
)", R"(
CREATE TABLE compute_position (source TEXT PRIMARY KEY, position BIGINT NOT NULL);
)"}};

namespace {

constexpr std::int64_t kHourMs = 3'600'000;
constexpr std::int64_t kDayMs = 24 * kHourMs;
constexpr std::int64_t kPrunedPerRecord = 2;

void add(ComputeSum& to, const ComputeSum& from) {
  to.runs += from.runs;
  to.wall_ms += from.wall_ms;
  to.cpu_us += from.cpu_us;
  to.memory_mib_ms += from.memory_mib_ms;
  to.memory_peak_bytes = std::max(to.memory_peak_bytes, from.memory_peak_bytes);
  to.bytes_in += from.bytes_in;
  to.bytes_out += from.bytes_out;
}

ComputeSum sum_of(const Row& row, std::size_t first) {
  return {row.integer(first),     row.integer(first + 1), row.integer(first + 2), row.integer(first + 3),
          row.integer(first + 4), row.integer(first + 5), row.integer(first + 6)};
}

using HourKey = std::tuple<std::int64_t, std::string, std::int64_t, std::int64_t, std::int64_t>;

// The larger of two columns, in SQL that SQLite and PostgreSQL both speak.
constexpr std::string_view kUpsert =
    "INSERT INTO compute_usage_hour VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) "
    "ON CONFLICT (hour_ms, kind, key, project) DO UPDATE SET "
    "runs = compute_usage_hour.runs + excluded.runs, wall_ms = compute_usage_hour.wall_ms + excluded.wall_ms, "
    "cpu_us = compute_usage_hour.cpu_us + excluded.cpu_us, "
    "memory_mib_ms = compute_usage_hour.memory_mib_ms + excluded.memory_mib_ms, "
    "memory_peak_bytes = CASE WHEN compute_usage_hour.memory_peak_bytes > excluded.memory_peak_bytes "
    "THEN compute_usage_hour.memory_peak_bytes ELSE excluded.memory_peak_bytes END, "
    "bytes_in = compute_usage_hour.bytes_in + excluded.bytes_in, "
    "bytes_out = compute_usage_hour.bytes_out + excluded.bytes_out";

Result<void> add_hours(Session& session, const std::map<HourKey, ComputeSum>& hours) {
  for (const auto& [at, sum] : hours) {
    const auto& [hour, kind, key, project, organisation] = at;
    CAPSTAN_TRY(const auto rows, session.run(kUpsert, {hour, kind, key, project, organisation, sum.runs, sum.wall_ms,
                                                       sum.cpu_us, sum.memory_mib_ms, sum.memory_peak_bytes,
                                                       sum.bytes_in, sum.bytes_out}));
    (void)rows;
  }
  return {};
}

// WHERE for ComputeOf, with its three parameters from $`first`.
std::string where(int first) {
  std::string out;
  for (const char* column : {"organisation", "project", "key"})
    out += fmt::format(" AND ({1} = ${0} OR ${0} = 0)", first++, column);
  return out;
}

}  // namespace

Result<void> insert_compute(Session& session, std::span<const ComputeRecord> records) {
  std::map<HourKey, ComputeSum> hours;
  std::int64_t newest_ms = 0;
  for (const ComputeRecord& r : records) {
    if (r.id.empty()) return fail(Code::kInvalid, "a record of compute usage needs an id");
    CAPSTAN_TRY(const auto inserted,
                session.run("INSERT INTO compute_usage VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, "
                            "$14) ON CONFLICT (id) DO NOTHING",
                            {r.id, r.time_ms, r.kind, r.name, r.key, r.project, r.organisation, r.sum.runs,
                             r.sum.wall_ms, r.sum.cpu_us, r.sum.memory_mib_ms, r.sum.memory_peak_bytes, r.sum.bytes_in,
                             r.sum.bytes_out}));
    if (inserted == 0) continue;
    newest_ms = std::max(newest_ms, r.time_ms);
    add(hours[{r.time_ms / kHourMs * kHourMs, r.kind, r.key, r.project, r.organisation}], r.sum);
  }
  CAPSTAN_CHECK(add_hours(session, hours));
  CAPSTAN_TRY(const auto pruned,
              session.run("DELETE FROM compute_usage WHERE id IN "
                          "(SELECT id FROM compute_usage WHERE time_ms < $1 ORDER BY time_ms LIMIT $2)",
                          {newest_ms - kComputeDays * kDayMs,
                           static_cast<std::int64_t>(records.size()) * kPrunedPerRecord}));
  (void)pruned;
  return {};
}

Result<std::vector<ComputeLine>> compute_report(Database& database, const ComputeQuery& query) {
  const std::string_view group = query.by == ComputeBy::kKind      ? "0"
                                 : query.by == ComputeBy::kProject ? "project"
                                 : query.by == ComputeBy::kKey     ? "key"
                                                                   : "hour_ms - hour_ms % 86400000";
  // Subqueries name the group, because a bare number in GROUP BY would mean a column's position.
  const std::string sql = fmt::format(
      "SELECT kind, at, sum(runs), sum(wall_ms), sum(cpu_us), sum(memory_mib_ms), max(memory_peak_bytes), "
      "sum(bytes_in), sum(bytes_out) FROM (SELECT {} AS at, compute_usage_hour.* FROM compute_usage_hour "
      "WHERE hour_ms >= $1 AND hour_ms < $2{}) AS hours GROUP BY kind, at ORDER BY {}",
      group, where(3), query.by == ComputeBy::kDay ? "at, kind" : "sum(cpu_us) DESC, at, kind");
  CAPSTAN_TRY(const Rows rows, database.read(sql, {query.since_ms - query.since_ms % kHourMs, query.until_ms,
                                                   query.of.organisation, query.of.project, query.of.key}));
  std::vector<ComputeLine> lines;
  for (const Row& row : rows) lines.push_back({row.text(0), row.integer(1), sum_of(row, 2)});
  return lines;
}

Result<std::vector<ComputeRecord>> compute_records(Database& database, const ComputeOf& of, std::int64_t limit) {
  CAPSTAN_TRY(const Rows rows,
              database.read("SELECT id, time_ms, kind, name, key, project, organisation, runs, wall_ms, cpu_us, "
                            "memory_mib_ms, memory_peak_bytes, bytes_in, bytes_out FROM compute_usage WHERE 1 = 1" +
                                where(1) + " ORDER BY time_ms DESC, id LIMIT $4",
                            {of.organisation, of.project, of.key, limit}));
  std::vector<ComputeRecord> out;
  for (const Row& row : rows) {
    out.push_back({.id = row.text(0), .time_ms = row.integer(1), .kind = row.text(2), .name = row.text(3),
                   .key = row.integer(4), .project = row.integer(5), .organisation = row.integer(6),
                   .sum = sum_of(row, 7)});
  }
  return out;
}

Result<void> set_compute_position(Session& session, std::string_view source, std::int64_t position) {
  CAPSTAN_TRY(const auto rows, session.run("INSERT INTO compute_position VALUES ($1, $2) ON CONFLICT (source) DO UPDATE SET "
                                           "position = excluded.position",
                                           {source, position}));
  (void)rows;
  return {};
}

Result<std::optional<std::int64_t>> compute_position(Database& database, std::string_view source) {
  CAPSTAN_TRY(const Rows rows, database.read("SELECT position FROM compute_position WHERE source = $1", {source}));
  if (rows.empty()) return std::nullopt;
  return std::optional(rows.front().integer(0));
}

}  // namespace capstan::store
