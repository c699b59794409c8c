// What people ask Capstan to run: jobs (gangs), services (replicas), task arrays, sandboxes; parsed, checked, compared.
//
//   auto parsed = parse_specs(yaml_text, {.source = "train.yaml", .base_directory = "/home/ada"});
//   if (!parsed) for (const Diagnostic& d : parsed.error()) print(d.text());   // train.yaml:3:5: unknown key
//   … for (const Change& change : differences(running_spec, wanted_spec)) …
//
// A spec is a value with every default filled in. Quantities are integers: milli-CPUs, bytes, milliseconds.
// YAML form: docs/workloads.md. Canonical JSON (`to_json`) is what the journal keeps; `from_json` reads it
// back. Threads: values, pure functions.  Failure: all diagnostics of a file at once (kDiagnosticsMax at
// most), nothing half-parsed.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "fleet/topology.h"
#include "workload/session_spec.h"
#include "workload/task_sandbox.h"

namespace capstan::workload {

inline constexpr int kDiagnosticsMax = 20;
inline constexpr int kDocumentsMax = 1000;
inline constexpr int kNameLengthMax = 63;
inline constexpr std::int64_t kRanksMax = 1'000'000;
inline constexpr std::int64_t kGpusMax = 1024;  // of one rank
inline constexpr std::int64_t kTasksMax = 1'000'000'000;
inline constexpr std::int64_t kReplicasMax = 100'000;
inline constexpr std::int64_t kWeightMax = 1'000;
inline constexpr std::int64_t kPriorityMin = -1000;
inline constexpr std::int64_t kPriorityMax = 1000;

enum class Kind { kJob, kService, kTasks, kSandbox };
std::string_view kind_name(Kind kind);  // "job", "service", "tasks", "sandbox"

// What each rank, replica or task gets.
struct Resources {
  std::int64_t milli_cpus = 1000;
  std::int64_t memory_bytes = 0;  // 0: no limit stated, none enforced
  std::int64_t gpus = 0;
  std::int64_t gpu_milli = 0;  // 1 to 999: a share of one GPU, instead of whole ones ("gpus: 0.25")
  friend bool operator==(const Resources&, const Resources&) = default;
};

// A gang whose rank fails starts again as a whole, at most `budget` times, after back-off doubling up to the
// maximum. Services restart replicas with the same back-off and no budget. A sandbox has a budget of 0 unless it says
// otherwise: one that starts again is empty.
struct RestartPolicy {
  std::int64_t budget = 3;
  std::int64_t backoff_ms = 1'000;
  std::int64_t backoff_max_ms = 60'000;
  friend bool operator==(const RestartPolicy&, const RestartPolicy&) = default;
};

// How often the ranks say that they checkpoint; 0: never. Preemption weighs lost work by it.
struct CheckpointPolicy {
  std::int64_t interval_ms = 0;
  friend bool operator==(const CheckpointPolicy&, const CheckpointPolicy&) = default;
};

// Where ranks may go, and how close together. What is required is never dropped; what is preferred is tried
// first.
struct PlacementSpec {
  // So many consecutive ranks lie inside one UltraServer (NVLink domain); 0: no need.
  std::int64_t segment = 0;
  // All ranks inside one of these; "none" lets them spread. A service or task array that is read from YAML or
  // JSON has "none" unless it says otherwise.
  fleet::Level required = fleet::Level::kCluster;
  fleet::Level preferred = fleet::Level::kNone;
  std::string gpu_model;   // "gb200"; empty: any
  std::string host_class;  // "m8g.48xlarge"; empty: any
  std::string cluster;     // by name; empty: any
  std::string region;
  std::string reservation;  // runs on the hosts of this reservation only; empty: on unreserved ones
  friend bool operator==(const PlacementSpec&, const PlacementSpec&) = default;
};

// CPU ranks beside a gang's GPU ranks, started and stopped with it; their ranks follow the gang's own.
struct HelpersSpec {
  std::int64_t ranks = 0;
  Resources resources;
  std::vector<std::string> command;  // empty: the job's
  friend bool operator==(const HelpersSpec&, const HelpersSpec&) = default;
};

// A replica is ready while GET path answers 2xx.
struct HealthCheck {
  std::string path = "/health";
  std::int64_t interval_ms = 1'000;
  std::int64_t timeout_ms = 2'000;
  std::int64_t start_timeout_ms = 120'000;  // not ready by then: the replica is restarted
  friend bool operator==(const HealthCheck&, const HealthCheck&) = default;
};

// The built-in engine serves this model: a directory, or the name of a model that ships with Capstan
// ("abacus").
struct EngineSpec {
  std::string model;
  std::int64_t context = 0;  // tokens; 0: the model's own maximum
  friend bool operator==(const EngineSpec&, const EngineSpec&) = default;
};

// A service behind the gateway gets as many replicas as its objectives need: more while the p95 of the time to the first
// token or per output token is above its objective, fewer after `calm_ms` well below, none (if min is 0) after
// `calm_ms` without a request. The policy: routing/autoscale.h.
struct AutoscaleSpec {
  std::int64_t min = 1;
  std::int64_t max = 1;
  std::int64_t ttft_ms = 2'000;  // 0: no objective
  std::int64_t tpot_ms = 0;      // likewise
  std::int64_t calm_ms = 300'000;
  friend bool operator==(const AutoscaleSpec&, const AutoscaleSpec&) = default;
};

struct Spec {
  using Pairs = std::vector<std::pair<std::string, std::string>>;  // sorted by key, keys unique

  Kind kind = Kind::kJob;
  std::string name;  // DNS label: a-z 0-9 and '-', at most kNameLengthMax
  std::string tenant = "default";
  std::int64_t priority = 0;
  Pairs labels;
  std::string user;                  // empty: the user who started Capstan
  std::vector<std::string> command;  // argv; a YAML string becomes ["/bin/sh", "-c", text]
  Pairs env;
  std::string workdir;  // absolute, or empty: the workload's own directory
  Resources resources;
  std::int64_t grace_ms = 30'000;  // between SIGTERM and SIGKILL
  RestartPolicy restarts;
  PlacementSpec placement;
  bool preemptible = true;  // may be stopped (gracefully) to make room for work of higher rank

  // kind: job
  std::int64_t ranks = 1;
  std::int64_t ranks_min = 0;  // elastic: starts with as few, if there is no room for more; 0: all or nothing
  std::optional<HelpersSpec> helpers;
  CheckpointPolicy checkpoint;
  std::int64_t time_limit_ms = 0;  // 0: none

  // kind: service. Exactly one of command and engine.
  std::int64_t replicas = 1;  // with `autoscale`: to begin with
  std::optional<AutoscaleSpec> autoscale;
  std::int64_t weight = 100;  // share of a model's requests, among the services that serve it (canary)
  std::optional<EngineSpec> engine;
  std::string model_name;  // the name under which the gateway serves it; empty: not behind the gateway
  std::int64_t hedge_after_ms = 0;  // the gateway asks another replica, too, if one says nothing for so long; 0: never
  std::optional<bool> http2;        // replicas take HTTP/2 with prior knowledge; absent: those of `engine` do
  std::int64_t port = 0;   // 0: chosen by Capstan for each replica
  std::optional<HealthCheck> health;

  // kind: tasks
  std::int64_t count = 1;
  std::int64_t parallelism = 0;  // 0: as many as fit
  std::int64_t retries = 0;      // of each task
  std::int64_t timeout_ms = 0;   // of each try; 0: none
  std::optional<TaskSandbox> sandbox;

  // kind: sandbox
  SessionSpec session;

  bool speaks_http2() const { return http2.value_or(engine.has_value()); }

  // To the scheduler a sandbox is a gang of one rank.
  bool is_gang() const { return kind == Kind::kJob || kind == Kind::kSandbox; }

  // What is placed: single tasks, or chunks of them that run in sandboxes.
  std::int64_t chunk() const { return sandbox ? sandbox->chunk : 1; }
  std::int64_t chunks() const { return (count + chunk() - 1) / chunk(); }

  friend bool operator==(const Spec&, const Spec&) = default;
};

// One thing that is wrong in a file, at a 1-based position.
struct Diagnostic {
  std::string file;
  int line = 0;
  int column = 0;
  std::string message;       // what is wrong and what would be right
  std::string hint;          // the nearest known key or value, if there is one: also part of `message`
  std::string text() const;  // "file:line:column: message"
};

struct ParseOptions {
  std::string source = "spec.yaml";  // for messages
  std::string base_directory = {};   // absolute: what a relative `workdir` or model directory is relative to;
                                     // empty refuses relative ones
};

// All documents of a YAML text, in order; an empty text is an error. Names must differ within the text.
std::expected<std::vector<Spec>, std::vector<Diagnostic>> parse_specs(std::string_view yaml,
                                                                      const ParseOptions& options);

// Canonical JSON, the fields of the kind in a fixed order; equal specs give equal text. Fields that have
// their default may be left out, for the journal (a third of the text and of the time), or written, for
// people. Cost: about 0.2 us, without dumping.
enum class Defaults { kLeftOut, kWritten };
Json to_json(const Spec& spec, Defaults defaults = Defaults::kLeftOut);
// Reads both, and what older versions wrote: an absent field has its default. kCorrupt if one has the wrong
// type.
Result<Spec> from_json(const Json& json);

// What a change of one field does to what runs.
enum class Restart {
  kNone,     // taken over in place
  kRanks,    // ranks (the gang) or replicas (one after another) start again
  kRefused,  // cannot change while it runs: cancel first
};
struct Change {
  std::string path;  // "resources.cpus"
  std::string from;  // as YAML would say it
  std::string to;
  Restart restart = Restart::kNone;
};
// Field by field; kinds must be equal. Empty if and only if the specs are equal.
std::vector<Change> differences(const Spec& from, const Spec& to);

}  // namespace capstan::workload
