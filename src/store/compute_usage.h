// Compute usage: what programs in sandboxes used (sessions, tasks, agents), a row each, and sums by the hour.
//
//   CAPSTAN_CHECK(database.write([&](Session& session) { return insert_compute(session, records); }));
//   CAPSTAN_TRY(auto lines, compute_report(database, {.by = ComputeBy::kProject, .since_ms = month_begin}));
//
// A record's id is its recorder's and unique ("sandbox/i3k…/2"): what is recorded twice counts once, so a recorder may
// repeat what it does not know to be durable. Many small runs may share one record (`runs`). Long ones are recorded in
// parts, each with what was used since the part before. Rows are kept for kComputeDays; the sums by hour stay.
// Cost: insert about 5 µs a record.  Failure: the database's; kInvalid for a record without an id.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/database.h"

namespace capstan::store {

extern const Tables kComputeTables;

inline constexpr std::int64_t kComputeDays = 35;

struct ComputeSum {
  std::int64_t runs = 0;  // sessions, tasks; 0 in a part that is not its first
  std::int64_t wall_ms = 0;
  std::int64_t cpu_us = 0;
  std::int64_t memory_mib_ms = 0;      // memory in use, over time
  std::int64_t memory_peak_bytes = 0;  // the highest of all
  std::int64_t bytes_in = 0, bytes_out = 0;
};

struct ComputeRecord {
  std::string id;
  std::int64_t time_ms = 0;  // when it ended, or the part did
  std::string kind;          // "sandbox", "task", "agent"
  std::string name;          // of the session or workload
  std::int64_t key = 0, project = 0, organisation = 0;
  ComputeSum sum = {};
};

Result<void> insert_compute(Session& session, std::span<const ComputeRecord> records);

// 0: whichever.
struct ComputeOf {
  std::int64_t organisation = 0, project = 0, key = 0;
};
enum class ComputeBy { kKind, kProject, kKey, kDay };
struct ComputeQuery {
  ComputeBy by = ComputeBy::kKind;
  std::int64_t since_ms = 0;  // from the hour that it lies in
  std::int64_t until_ms = INT64_MAX;
  ComputeOf of = {};
};
struct ComputeLine {
  std::string kind;
  std::int64_t group = 0;  // number of the project or key, the day's begin in milliseconds, 0 for kKind
  ComputeSum sum;
};
// A line for each kind and group: by CPU time, the most first; kDay by day.
Result<std::vector<ComputeLine>> compute_report(Database& database, const ComputeQuery& query);

// The newest first.
Result<std::vector<ComputeRecord>> compute_records(Database& database, const ComputeOf& of, std::int64_t limit);

// Up to where a recorder that follows a stream of events has recorded: set in the same transaction as what was recorded.
Result<void> set_compute_position(Session& session, std::string_view source, std::int64_t position);
Result<std::optional<std::int64_t>> compute_position(Database& database, std::string_view source);

}  // namespace capstan::store
