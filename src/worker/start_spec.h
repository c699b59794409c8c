// StartSpec: what a start_rank effect says, and the environment that the rank gets from it.
//
// The controller composes what belongs to the workload (torchrun's variables, PORT, CAPSTAN_…); the worker
// adds what belongs to the host: PATH, HOME, USER, LANG, TMPDIR, CAPSTAN_JOB_DIR, CAPSTAN_SHARE and
// CAPSTAN_RANK_MARK, a secret by which leftover processes of the rank are recognised. Nothing of the worker's
// own environment gets through.
// "${CAPSTAN_SHARE}" and "${CAPSTAN_JOB_DIR}" are replaced in arguments and values; nothing else is
// interpreted. Threads: values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "worker/rank_id.h"

namespace capstan::worker {

struct HealthSpec {
  std::string path;
  std::int64_t interval_ms = 1000;
  std::int64_t timeout_ms = 2000;
  std::int64_t start_timeout_ms = 120'000;
};

struct StartSpec {
  RankId id;
  std::string name;  // of the workload
  std::string kind;  // "job", "service", "tasks"
  std::string user;
  std::vector<std::string> command;
  std::vector<std::pair<std::string, std::string>> env;
  std::string workdir;
  std::int64_t milli_cpus = 0;
  std::int64_t memory_bytes = 0;
  std::int64_t gpus = 0;
  std::int64_t grace_ms = 30'000;
  std::int64_t timeout_ms = 0;
  std::int64_t port = 0;
  std::optional<HealthSpec> health;
  std::int64_t log_bytes_max = 64 << 20;

  // Refuses what cannot be started: no command, strings with NUL bytes, names with '=' …
  static Result<StartSpec> from_json(const Json& effect);
};

struct HostPaths {
  std::string job_directory;
  std::string share;
  std::string bin;
};

std::string expand(std::string text, const HostPaths& paths);

// "NAME=value" strings, sorted by name.
std::vector<std::string> rank_environment(const StartSpec& spec, const HostPaths& paths,
                                          const std::string& user, const std::string& home,
                                          const std::string& mark);

}  // namespace capstan::worker
