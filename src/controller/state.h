// State: everything the controller knows, and nothing that events do not say.
//
// State = fold of events (fold.h). It is a plain value: snapshot and hash come from its canonical JSON
// (state_json.h). Indices that can be computed from the rest (hosts' use, timers, names) are not part of the
// JSON but kept current here. Threads: the controller's one thread owns it; readers get it through the
// driver.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "controller/interval_set.h"
#include "fleet/host.h"
#include "protocol/messages.h"
#include "scheduler/scheduler.h"
#include "workload/spec.h"

namespace capstan::controller {

using protocol::RankId;

inline constexpr std::int64_t kNever = INT64_MAX;  // a deadline that does not come
inline constexpr std::int64_t kPortMin = 20'000;
inline constexpr std::int64_t kPortMax = 29'999;
inline constexpr std::size_t kWorkloadsMax = 100'000;  // that have not ended
inline constexpr std::size_t kEndedMax = 1'000;        // ended workloads that are kept for people to look at
inline constexpr int kStartRetriesMax = 5;  // starts that failed through no fault of the workload, in a row

enum class WorkloadState {
  kPending,
  kStarting,
  kRunning,
  kStopping,
  kRestarting,
  kSucceeded,
  kFailed,
  kCancelled
};
std::string_view state_name(WorkloadState state);
std::optional<WorkloadState> parse_state(std::string_view name);
inline bool has_ended(WorkloadState state) { return state >= WorkloadState::kSucceeded; }

enum class Phase { kStarting, kRunning, kEnded };
std::string_view phase_name(Phase phase);

// Why ranks are being stopped.
enum class StopWhy { kNone, kFailure, kCancel, kUpdate, kDown, kTimeLimit, kScaleDown };
std::string_view stop_name(StopWhy why);
std::optional<StopWhy> parse_stop(std::string_view name);

// One process of a gang or service, from the decision to start it until its successor.
struct Rank {
  std::string host;
  Phase phase = Phase::kEnded;
  bool ready = false;
  StopWhy stopping = StopWhy::kNone;
  std::int64_t pid = 0;
  std::int64_t port = 0;
  std::int64_t began_ms = 0;
  std::int64_t ready_ms = 0;
  std::int64_t ended_ms = 0;
  std::string address;        // where a ready replica answers
  protocol::RankExited exit;  // once ended
  bool live() const { return phase != Phase::kEnded; }
};

// A gang: all ranks of an attempt start together and end together.
struct Job {
  std::int64_t attempt = 0;
  std::int64_t restarts_used = 0;
  std::int64_t start_retries = 0;
  bool in_attempt = false;
  std::vector<Rank> ranks;               // of the current or last attempt
  std::vector<scheduler::Slice> slices;  // where they are, in order of rank
  fleet::Capacity each;                  // what each of them holds
  std::int64_t master_port = 0;
  std::int64_t live = 0;     // computed
  std::int64_t running = 0;  // computed: phase kRunning
  StopWhy stopping = StopWhy::kNone;
  std::string failure;         // why the attempt failed, in words
  bool fatal = false;          // starting again would not help
  bool start_failure = false;  // retryable: does not use the budget
  std::int64_t began_ms = 0;
  std::int64_t backoff_until_ms = 0;  // 0: none
};

struct Replica {
  std::int64_t attempt = 0;
  std::int64_t generation = 0;  // of the spec that it was started with
  std::int64_t failures = 0;    // in a row
  std::int64_t backoff_until_ms = 0;
  fleet::Capacity held;
  Rank rank;
};

struct Service {
  std::map<std::int64_t, Replica> replicas;
};

struct RunningTask {
  std::int64_t attempt = 1;
  std::string host;
  bool started = false;
  StopWhy stopping = StopWhy::kNone;
};
// Only tasks that were started more than once, or wait to be, have one.
struct RetriedTask {
  std::int64_t attempt = 0;  // the last one made
  std::int64_t failures = 0;
  std::int64_t not_before_ms = -1;  // waits until then; -1: does not wait
};
struct Tasks {
  IntervalSet pending;  // never started
  IntervalSet succeeded;
  IntervalSet failed;
  std::map<std::int64_t, RunningTask> running;
  std::map<std::int64_t, RetriedTask> retried;
  std::set<std::pair<std::int64_t, std::int64_t>> waiting;  // computed: (not_before_ms, index)
  std::string last_failure;
};

struct Workload {
  std::int64_t id = 0;
  workload::Spec spec;
  std::int64_t generation = 1;  // grows with each change that restarts ranks
  std::int64_t created_ms = 0;
  std::int64_t ended_ms = 0;
  WorkloadState state = WorkloadState::kPending;
  std::string reason;
  bool cancelling = false;
  Job job;                            // kind job
  Service service;                    // kind service
  Tasks tasks;                        // kind tasks
  std::int64_t deadline_ms = kNever;  // computed: when time alone gives it something to do

  fleet::Capacity each() const {
    return {spec.resources.milli_cpus, spec.resources.memory_bytes, spec.resources.gpus};
  }
};

struct Host {
  fleet::Capacity capacity;
  fleet::Health health = fleet::Health::kHealthy;
  std::string incarnation;
  std::string build;
  std::string logs_url;
  std::vector<protocol::Capability> capabilities;
  std::int64_t port_next = kPortMin;
  std::set<std::int64_t> ports;  // computed: held by live ranks
  std::set<RankId> ranks;        // computed: live
};

struct State {
  std::int64_t epoch = 0;
  std::string build;
  std::int64_t time_ms = 0;     // of the newest event
  std::int64_t event_last = 0;  // number of the newest event
  std::int64_t next_id = 1;
  bool draining = false;  // everything stops; nothing starts before the next epoch
  std::map<std::string, Host> hosts;
  std::map<std::int64_t, Workload> workloads;

  // Computed from the rest.
  std::map<std::string, std::int64_t> by_name;             // the newest workload of each name
  std::set<std::pair<std::int64_t, std::int64_t>> timers;  // (deadline_ms, workload)
  std::set<std::pair<std::int64_t, std::int64_t>> ended;   // (ended_ms, workload)
  scheduler::Inventory inventory;
  std::int64_t live_ranks = 0;
  bool room_grew = false;  // since someone last looked; not state, but a hint for the scheduler

  Workload* find(std::string_view name);
  const Workload* find(std::string_view name) const;
  Workload* find(std::int64_t id);
  const Workload* find(std::int64_t id) const;

  // A rank begins or stops to hold its part of a host.
  void hold(const std::string& host, const RankId& id, const fleet::Capacity& amount, std::int64_t port);
  void release(const std::string& host, const RankId& id, const fleet::Capacity& amount, std::int64_t port);
  // The next free port of the host in rotation; 0 if all are held.
  std::int64_t free_port(const std::string& host) const;
  // After anything changed in it.
  void update_deadline(Workload& workload);
};

}  // namespace capstan::controller
