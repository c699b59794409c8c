#include "protocol/task_tally.h"

#include <algorithm>
#include <utility>

#include "protocol/fields.h"

namespace capstan::protocol {
namespace {

constexpr std::array<std::string_view, kTaskEnds> kNames = {"succeeded", "exit",     "signal", "memory",
                                                            "timeout",   "cpu_time", "output", "no_start"};
constexpr std::array<std::pair<const char*, std::int64_t TaskTally::*>, 6> kSums = {
    {{"retries", &TaskTally::retries},
     {"cpu_us", &TaskTally::cpu_us},
     {"wall_us", &TaskTally::wall_us},
     {"memory_mib_ms", &TaskTally::memory_mib_ms},
     {"memory_peak_bytes", &TaskTally::memory_peak_bytes},
     {"bytes", &TaskTally::bytes}}};
constexpr std::size_t kFailureBytesMax = 1024;

}  // namespace

std::string_view task_end_name(TaskEnd end) { return kNames[static_cast<std::size_t>(end)]; }

std::int64_t TaskTally::failed() const {
  std::int64_t count = 0;
  for (std::size_t i = 1; i < kTaskEnds; ++i) count += ended[i];
  return count;
}

void TaskTally::add(const TaskTally& other) {
  for (std::size_t i = 0; i < kTaskEnds; ++i) ended[i] += other.ended[i];
  const std::int64_t peak = std::max(memory_peak_bytes, other.memory_peak_bytes);
  for (const auto& [key, member] : kSums) this->*member += other.*member;
  memory_peak_bytes = peak;
  if (!other.failure.empty()) failure = other.failure;
}

Json to_json(const TaskTally& tally) {
  Json json = Json::object();
  for (std::size_t i = 0; i < kTaskEnds; ++i) {
    if (tally.ended[i] != 0) json[kNames[i]] = tally.ended[i];
  }
  for (const auto& [key, member] : kSums) {
    if (tally.*member != 0) json[key] = tally.*member;
  }
  if (!tally.failure.empty()) json["failure"] = tally.failure;
  return json;
}

Result<TaskTally> task_tally_from_json(const Json& json) {
  if (!json.is_object()) return fail(Code::kInvalid, "'tally' must be an object, not {}", json.type_name());
  TaskTally tally;
  for (std::size_t i = 0; i < kTaskEnds; ++i) {
    CAPSTAN_TRY(tally.ended[i], int_or(json, kNames[i], 0, 0, std::int64_t{1} << 40));
  }
  for (const auto& [key, member] : kSums) {
    CAPSTAN_TRY(tally.*member, int_or(json, key, 0, 0, std::int64_t{1} << 60));
  }
  CAPSTAN_TRY(tally.failure, text_or(json, "failure", "", kFailureBytesMax));
  return tally;
}

}  // namespace capstan::protocol
