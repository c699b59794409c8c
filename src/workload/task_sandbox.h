// How the tasks of an array run in sandboxes: `sandbox:` of `kind: tasks`. YAML form: docs/workloads.md.
//
// An array is handed to hosts in chunks of consecutive tasks; a chunk holds the resources of one task and runs its tasks one
// after the other, each in a sandbox of its own or, with `batch`, so many in one sandbox. Limits of each task: `resources`,
// `timeout` and those here. Threads: values, pure functions.
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"
#include "base/result.h"

namespace capstan::workload {

inline constexpr std::int64_t kChunkMax = 100'000;
inline constexpr std::int64_t kBatchMax = 10'000;
inline constexpr std::size_t kCodeBytesMax = 120 << 10;
inline constexpr std::int64_t kSandboxMemoryDefault = 256 << 20;

struct TaskSandbox {
  std::string lane = "process";  // "process": `command`; "python", "node": `code`
  std::string code;
  std::string template_root;        // a directory that is the sandbox's root; empty: this host's /usr
  std::string network = "none";     // or "namespace": loopback of its own
  std::int64_t batch = 1;           // tasks that share one sandbox, one after the other
  std::int64_t chunk = 1;           // tasks handed to a host at once; a multiple of `batch`
  std::string input;                // a file: line i is task i's standard input; with {index}: a file a task
  std::string collect;              // a path inside that is copied out when a task has ended
  std::int64_t pids = 64;           // processes and threads
  std::int64_t disk_bytes = 64 << 20;
  std::int64_t files = 4096;
  std::int64_t cpu_time_ms = 0;     // 0: what the timeout and the CPUs allow
  std::int64_t output_bytes = 64 << 10;  // of a task's standard output and error together that results keep
  friend bool operator==(const TaskSandbox&, const TaskSandbox&) = default;
};

// Members that have their default may be left out; reading takes both. kCorrupt names what has the wrong type.
Json to_json(const TaskSandbox& sandbox, bool all);
Result<TaskSandbox> task_sandbox_from_json(const Json& json);

}  // namespace capstan::workload
