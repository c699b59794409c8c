// What controller and workers say to each other: sync requests with reports, sync answers with effects.
//
//   CAPSTAN_TRY(SyncRequest request, SyncRequest::from_json(body));
//   std::string reply = answer.to_json().dump();
//
// Form on the wire: docs/formats/worker-wire.md. Both directions are idempotent on (job, attempt, rank);
// reports also carry a sequence number within one worker incarnation, effects an id within one controller
// session. Failure: decoding refuses with kInvalid, naming the member.  Threads: values.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "fleet/host.h"
#include "protocol/task_tally.h"

namespace capstan::protocol {

inline constexpr std::size_t kReportsPerSyncMax = 10'000;
inline constexpr std::size_t kEffectsPerAnswerMax = 1'000;
inline constexpr std::size_t kRanksPerHostMax = 100'000;
inline constexpr std::int64_t kLongPollMs = 5'000;

// One start of one process, ever. For services `attempt` counts per replica, for tasks per task.
struct RankId {
  std::int64_t job = 0;
  std::int64_t attempt = 0;
  std::int64_t rank = 0;
  std::string text() const;  // "7-1-0"
  friend auto operator<=>(const RankId&, const RankId&) = default;
};

enum class RankPhase { kStarting, kRunning, kExited };

struct RankStatus {
  RankId id;
  RankPhase phase = RankPhase::kStarting;
  friend bool operator==(const RankStatus&, const RankStatus&) = default;
};

// What a host can and cannot enforce, in words.
struct Capability {
  std::string name;
  bool ok = false;
  std::string why;
  friend bool operator==(const Capability&, const Capability&) = default;
};

// ---- reports: worker to controller
struct RankStarted {
  std::int64_t pid = 0;
  std::int64_t port = 0;
  std::string session{};  // of a sandbox: its id
  friend bool operator==(const RankStarted&, const RankStarted&) = default;
};
struct RankReady {
  std::string host;
  std::int64_t port = 0;
  friend bool operator==(const RankReady&, const RankReady&) = default;
};
struct RankUnready {
  std::string why;
  friend bool operator==(const RankUnready&, const RankUnready&) = default;
};
struct RankExited {
  std::optional<std::int64_t> exit_code;
  std::optional<std::int64_t> signal;
  bool oom = false;
  bool lost = false;     // found dead without a record
  bool stopped = false;  // we had asked
  std::string message;
  std::optional<TaskTally> tally{};  // of a chunk of tasks in sandboxes: each has ended, well or not
  friend bool operator==(const RankExited&, const RankExited&) = default;
};
struct RankStartFailed {
  std::string message;
  bool retryable = false;
  friend bool operator==(const RankStartFailed&, const RankStartFailed&) = default;
};

struct Report {
  std::int64_t seq = 0;
  RankId id;
  std::variant<RankStarted, RankReady, RankUnready, RankExited, RankStartFailed> body;

  bool is_end() const {
    return std::holds_alternative<RankExited>(body) || std::holds_alternative<RankStartFailed>(body);
  }
  Json to_json() const;
  static Result<Report> from_json(const Json& json);
  friend bool operator==(const Report&, const Report&) = default;
};

// Tasks of one array and attempt that started, or that ended well, on the host that reports: half-open ranges.
struct TaskReport {
  std::int64_t job = 0;
  std::int64_t attempt = 1;
  std::vector<std::pair<std::int64_t, std::int64_t>> started;
  std::vector<std::pair<std::int64_t, std::int64_t>> succeeded;
  friend bool operator==(const TaskReport&, const TaskReport&) = default;
};
Json to_json(const std::vector<TaskReport>& reports);
Result<std::vector<TaskReport>> task_reports_from_json(const Json& json, std::string_view key);

struct SyncRequest {
  std::string worker;  // host name
  std::string incarnation;
  std::string build;
  std::int64_t epoch_seen = 0;
  fleet::Capacity resources;
  std::vector<Capability> capabilities;
  std::string logs_url;
  std::optional<std::vector<RankStatus>> ranks;  // all of them, when it is a full sync
  std::int64_t effects_done = 0;
  std::vector<Report> reports;

  Json to_json() const;
  static Result<SyncRequest> from_json(const Json& json);
  friend bool operator==(const SyncRequest&, const SyncRequest&) = default;
};

// ---- effects: controller to worker
struct HealthProbe {
  std::string path;
  std::int64_t interval_ms = 0;
  std::int64_t timeout_ms = 0;
  std::int64_t start_timeout_ms = 0;
  friend bool operator==(const HealthProbe&, const HealthProbe&) = default;
};
// A chunk of a task array, for the host's sandboxes: rank is its number, `sandbox` the array's settings.
struct TaskChunk {
  std::int64_t first = 0;  // index of its first task
  std::int64_t count = 0;
  std::int64_t retries = 0;
  std::int64_t backoff_ms = 0;
  Json sandbox;  // workload/task_sandbox.h
  friend bool operator==(const TaskChunk&, const TaskChunk&) = default;
};
struct StartRank {
  std::string name;
  std::string kind;
  std::string tenant;
  std::string user;
  std::vector<std::string> command;
  std::vector<std::pair<std::string, std::string>> env;  // sorted by name
  std::string workdir;
  fleet::Capacity resources;
  std::int64_t grace_ms = 0;
  std::int64_t timeout_ms = 0;  // 0: none
  std::int64_t port = 0;        // 0: none
  std::optional<HealthProbe> health;
  std::int64_t log_bytes_max = 64 << 20;
  std::optional<TaskChunk> chunk{};
  std::optional<Json> session{};  // of a sandbox, which has no command: workload/session_spec.h
  friend bool operator==(const StartRank&, const StartRank&) = default;
};
struct StopRank {
  std::int64_t grace_ms = 0;
  std::string why;
  friend bool operator==(const StopRank&, const StopRank&) = default;
};
struct ForgetRank {
  friend bool operator==(const ForgetRank&, const ForgetRank&) = default;
};

struct Effect {
  std::int64_t id = 0;  // given by the session that sends it
  RankId rank;
  std::variant<StartRank, StopRank, ForgetRank> body;

  Json to_json() const;
  static Result<Effect> from_json(const Json& json);
  friend bool operator==(const Effect&, const Effect&) = default;
};

struct SyncAnswer {
  std::int64_t epoch = 0;
  std::int64_t reports_acked = 0;
  bool full = false;
  std::vector<Effect> effects;
  bool shutdown = false;

  Json to_json() const;
  static Result<SyncAnswer> from_json(const Json& json);
  friend bool operator==(const SyncAnswer&, const SyncAnswer&) = default;
};

Json to_json(const fleet::Capacity& capacity);
Result<fleet::Capacity> capacity_from_json(const Json& json);
Json to_json(const std::vector<Capability>& capabilities);
Result<std::vector<Capability>> capabilities_from_json(const Json& json, std::string_view key);

}  // namespace capstan::protocol
