// What came of tasks that ran in sandboxes: counts by outcome and what they used. A worker reports one with each chunk that has
// ended; the controller adds them up per array.
//
// Threads: values.  Failure: task_tally_from_json refuses with kInvalid.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace capstan::protocol {

// How a task ended; all but the first are failures.
enum class TaskEnd : std::uint8_t {
  kSucceeded,
  kExit,      // an exit code other than 0
  kSignal,
  kMemory,    // killed at its memory limit
  kWallTime,  // ran longer than its timeout
  kCpuTime,
  kOutput,  // wrote more than it may
  kNoStart,  // no such program, no input, …
};
inline constexpr std::size_t kTaskEnds = 8;
std::string_view task_end_name(TaskEnd end);  // "succeeded", "exit", "signal", "memory", "timeout", "cpu_time", …

struct TaskTally {
  std::array<std::int64_t, kTaskEnds> ended{};  // tasks, by how their last try ended
  std::int64_t retries = 0;                     // tries beyond the first
  std::int64_t cpu_us = 0;                      // of all tries
  std::int64_t wall_us = 0;
  std::int64_t memory_mib_ms = 0;      // peak MiB times wall milliseconds, summed: memory held over time
  std::int64_t memory_peak_bytes = 0;  // of the largest
  std::int64_t bytes = 0;              // read as input, written as output and collected
  std::string failure;                 // one of those that failed, in words

  std::int64_t succeeded() const { return ended[0]; }
  std::int64_t failed() const;
  std::int64_t tasks() const { return succeeded() + failed(); }
  void add(const TaskTally& other);
  friend bool operator==(const TaskTally&, const TaskTally&) = default;
};
// Members that are zero are left out.
Json to_json(const TaskTally& tally);
Result<TaskTally> task_tally_from_json(const Json& json);

}  // namespace capstan::protocol
