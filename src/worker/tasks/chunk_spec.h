// What the controller says about an array of tasks in sandboxes (the same for all its chunks) and about one chunk.
//
// Threads: values.  Failure: kInvalid names the member.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "worker/rank_id.h"

namespace capstan::worker {

struct ArraySpec {
  std::int64_t job = 0;
  std::string token;  // of this host's results of the array; empty in an effect
  std::string name, user, tenant;
  std::vector<std::string> command;  // {index} in its words is the task's index
  std::vector<std::pair<std::string, std::string>> env;
  std::int64_t milli_cpus = 1000;
  std::int64_t memory_bytes = 256 << 20;
  std::int64_t timeout_ms = 0;  // 0: kTimeoutMsMax
  std::int64_t cpu_time_ms = 0;
  std::int64_t retries = 0;
  std::int64_t backoff_ms = 1000;
  std::string lane, code, template_root, network, input, collect;
  std::int64_t batch = 1;
  std::int64_t pids = 64;
  std::int64_t disk_bytes = 64 << 20;
  std::int64_t files = 4096;
  std::int64_t output_bytes = 64 << 10;

  // In the names of its files: JOB-TOKEN.
  std::string id() const { return std::to_string(job) + "-" + token; }
  // From a start_rank effect with a `chunk`.
  static Result<ArraySpec> from_json(const Json& effect);
};
// Every limit is on: a task without a timeout has a day.
inline constexpr std::int64_t kTimeoutMsMax = 24LL * 3600 * 1000;

struct ChunkSpec {
  RankId id;  // rank: the chunk's number
  std::int64_t first = 0;
  std::int64_t count = 0;
  static Result<ChunkSpec> from_json(const Json& effect);
};

// Every "{index}" replaced.
std::string with_index(std::string text, std::int64_t index);

}  // namespace capstan::worker
