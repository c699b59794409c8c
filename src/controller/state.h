// State: everything the controller knows, and nothing that events do not say.
//
// State = fold of events (fold.h). It is a plain value: snapshot and hash come from its canonical JSON
// (state_json.h). Indices that can be computed from the rest (hosts' use, timers, names) are not part of the
// JSON but kept current here. Threads: the controller's one thread owns it; readers get it through the
// driver.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "controller/interval_set.h"
#include "fleet/fleet_spec.h"
#include "protocol/messages.h"
#include "scheduler/claims.h"
#include "scheduler/inventory.h"
#include "scheduler/queue.h"
#include "scheduler/running.h"
#include "scheduler/single_host_room.h"
#include "scheduler/tenants.h"
#include "workload/spec.h"

namespace capstan::controller {

using fleet::HostId;
using protocol::RankId;

inline constexpr std::int64_t kNever = INT64_MAX;  // a deadline that does not come
inline constexpr std::int64_t kPortMin = 20'000;
inline constexpr std::int64_t kPortMax = 29'999;
inline constexpr std::size_t kWorkloadsMax = 1'000'000;  // that have not ended
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

enum class Phase : std::uint8_t { kStarting, kRunning, kEnded };
std::string_view phase_name(Phase phase);

// Why ranks are being stopped.
enum class StopWhy : std::uint8_t {
  kNone,
  kFailure,
  kCancel,
  kUpdate,
  kDown,
  kTimeLimit,
  kScaleDown,
  kPreempted,  // makes room for other work
  kDrain,      // its host is drained, reserved or maintained; it goes on elsewhere
  kMove,       // defragmentation
};
std::string_view stop_name(StopWhy why);
std::optional<StopWhy> parse_stop(std::string_view name);

// One process of a gang or service, from the decision to start it until its successor.
struct Rank {
  HostId host{};
  Phase phase = Phase::kEnded;
  bool ready = false;
  bool clean = false;  // it ended, and well, by itself
  StopWhy stopping = StopWhy::kNone;
  std::int32_t pid = 0;
  std::int32_t port = 0;
  std::int64_t began_ms = 0;
  std::int64_t ended_ms = 0;
  bool live() const { return phase != Phase::kEnded; }
};

// Equal ranks of a gang: the gang proper, then its helpers.
struct RankGroup {
  std::int64_t ranks = 0;
  fleet::Capacity each;
};

// A gang: all ranks of an attempt start together and end together.
struct Job {
  std::int64_t attempt = 0;
  std::int64_t restarts_used = 0;
  std::int64_t start_retries = 0;
  std::int64_t preemptions = 0;
  bool in_attempt = false;
  std::vector<Rank> ranks;                     // of the current or last attempt
  std::vector<scheduler::Slice> slices;        // where they are, in order of rank
  std::vector<RankGroup> groups;
  std::map<std::int64_t, protocol::RankExited> exits;  // of ranks of this attempt that did not end well
  std::int64_t master_port = 0;
  std::int64_t live = 0;     // computed
  std::int64_t running = 0;  // computed: phase kRunning
  StopWhy stopping = StopWhy::kNone;
  std::string failure;         // why the attempt failed, in words
  bool fatal = false;          // starting again would not help
  bool start_failure = false;  // retryable: does not use the budget
  std::int64_t began_ms = 0;
  std::int64_t served_ms = 0;       // time in attempts before this one
  std::int64_t backoff_until_ms = 0;  // 0: none
  std::string session;                // of a sandbox: the id of its session, once that runs

  const fleet::Capacity& each(std::int64_t rank) const;
};

struct Replica {
  std::int64_t attempt = 0;
  std::int64_t generation = 0;  // of the spec that it was started with
  std::int64_t failures = 0;    // in a row
  std::int64_t backoff_until_ms = 0;
  fleet::Capacity held;
  scheduler::GpuSet gpus = 0;
  Rank rank;
  std::int64_t ready_ms = 0;
  std::string address;        // where a ready replica answers
  protocol::RankExited exit;  // once ended
};

struct Service {
  std::map<std::int64_t, Replica> replicas;
};

// Tasks of one attempt, consecutive, that run on one host.
struct TaskRun {
  std::int64_t begin = 0;
  std::int64_t end = 0;  // not included
  std::int32_t attempt = 1;
  bool started = false;
  StopWhy stopping = StopWhy::kNone;
  scheduler::GpuSet gpus = 0;  // of a task with GPUs, which then makes a run of its own
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
  std::map<HostId, std::vector<TaskRun>> runs;  // in order of `begin`; no empty vectors
  std::int64_t running = 0;                     // computed: tasks in runs
  std::int64_t stopping = 0;                    // computed: of these, those that are asked to end
  std::map<std::int64_t, RetriedTask> retried;
  std::set<std::pair<std::int64_t, std::int64_t>> waiting;  // computed: (not_before_ms, index)
  std::string last_failure;
  protocol::TaskTally tally;  // of tasks in sandboxes, which all of the above counts in chunks
  std::int64_t began_ms = 0;  // when the first of those in runs started

  // The run that holds the task, on any host (O(hosts of the array)) or on this one.
  struct Found {
    HostId host{};
    const TaskRun* run = nullptr;
  };
  Found find(std::int64_t index) const;
  const TaskRun* find_on(HostId host, std::int64_t index) const;
};

struct Workload {
  std::int64_t id = 0;
  workload::Spec spec;
  std::int64_t generation = 1;  // grows with each change that restarts ranks
  std::int64_t created_ms = 0;
  std::int64_t ended_ms = 0;
  WorkloadState state = WorkloadState::kPending;
  std::string reason;
  scheduler::TenantId tenant = scheduler::kDefaultTenant;  // computed: of spec.tenant
  scheduler::Hold hold = scheduler::Hold::kBorrowed;       // as what of its tenant's what it holds counts
  bool cancelling = false;
  Job job;                            // kinds job and sandbox
  Service service;                    // kind service
  Tasks tasks;                        // kind tasks
  std::int64_t deadline_ms = kNever;  // computed: when time alone gives it something to do

  fleet::Capacity each() const { return capacity_of(spec.resources); }
  static fleet::Capacity capacity_of(const workload::Resources& resources) {
    return {resources.milli_cpus, resources.memory_bytes, resources.gpus, resources.gpu_milli};
  }
};

// What a worker has told about itself. Hosts of a fleet file have one once their worker has called.
struct Contact {
  std::string incarnation;
  std::string build;
  std::string logs_url;
  std::vector<protocol::Capability> capabilities;
};

// Ports of ranks on one host.
struct Ports {
  std::int64_t next = kPortMin;
  std::set<std::int64_t> held;  // computed: by live ranks
};

// How often a host was lost lately: enough of that and it is quarantined.
struct Flaps {
  std::int64_t window_began_ms = 0;
  std::int64_t losses = 0;
};
inline constexpr std::int64_t kFlapWindowMs = 3'600'000;
inline constexpr std::int64_t kFlapsMax = 3;

struct Policy {
  scheduler::Order order = scheduler::Order::kFairShare;
  std::int64_t starvation_ms = 600'000;
};

class Planner;

struct State {
  State();
  ~State();
  State(State&&) noexcept;
  State& operator=(State&&) noexcept;

  std::int64_t epoch = 0;
  std::string build;
  std::int64_t time_ms = 0;     // of the newest event
  std::int64_t event_last = 0;  // number of the newest event
  std::int64_t next_id = 1;
  bool draining = false;  // everything stops; nothing starts before the next epoch
  Policy policy;
  scheduler::Inventory inventory;  // the fleet, and what is used of it
  // What the topology was made of, in order, apart from hosts that joined unasked: `first` is its first host.
  struct Fleet {
    std::int64_t first = 0;
    std::int64_t hosts = 0;
    bool present = false;
    fleet::FleetSpec spec;
  };
  std::vector<Fleet> fleets;
  std::map<HostId, fleet::ClassId> resized;  // the class that a fleet file gave, where the worker says otherwise
  std::map<HostId, Contact> contacts;
  std::map<HostId, Ports> ports;
  std::map<HostId, Flaps> flaps;
  scheduler::Tenants tenants;
  scheduler::Claims claims;
  std::int64_t next_claim = 1;
  std::map<std::int64_t, Workload> workloads;

  // Computed from the rest.
  std::map<std::string, std::int64_t> by_name;             // the newest workload of each name
  std::set<std::pair<std::int64_t, std::int64_t>> timers;  // (deadline_ms, workload)
  std::set<std::pair<std::int64_t, std::int64_t>> ended;   // (ended_ms, workload)
  scheduler::RunningJobs running;                          // who holds what is used
  std::map<std::int64_t, std::int64_t> displaceable;       // of preemptible work: priority -> workloads
  std::int64_t borrowed = 0;                               // preemptible workloads beyond their tenants' guarantees
  // NVLink domains that gangs of a tenant hold as its cells: how many gangs each, and which promise of cells it counts for.
  struct Cell {
    std::int64_t gangs = 0;
    workload::CellQuota kind;
  };
  std::map<scheduler::TenantId, std::map<fleet::DomainId, Cell>> cells;
  std::map<fleet::DomainId, scheduler::TenantId> cell_owners;  // whose cell a domain is
  std::set<std::pair<std::int64_t, std::int64_t>> ends;  // known ends of running gangs: (ends_by_ms, workload)
  std::map<scheduler::HostRequest, std::int64_t> demand;  // GPU ranks that workloads ask for, ended ones aside
  std::int64_t live_ranks = 0;
  bool room_grew = false;  // since someone last looked; not state, but a hint for the scheduler
  std::unique_ptr<Planner> planner;  // caches over all this

  Workload* find(std::string_view name);
  const Workload* find(std::string_view name) const;
  Workload* find(std::int64_t id);
  const Workload* find(std::int64_t id) const;

  const std::string& name(HostId host) const { return inventory.topology().name(host); }
  // `ranks` ranks of the workload begin or stop to hold their part of a host; a port of 0 is none.
  void hold(HostId host, Workload& workload, std::uint32_t ranks, const fleet::Capacity& each,
            scheduler::GpuSet gpus, std::int64_t port);
  void release(HostId host, Workload& workload, std::uint32_t ranks, const fleet::Capacity& each,
               scheduler::GpuSet gpus, std::int64_t port);
  // What the scheduler needs to know of a workload that begins to hold room, and no longer when it holds none.
  void begin_running(const Workload& workload, scheduler::Running running);
  void end_running(std::int64_t id);
  // The promise of whole cells that such GPUs would count for; nullptr: the tenant has none.
  const workload::CellQuota* cell_promise(scheduler::TenantId tenant, std::string_view gpu_model) const;
  void mark_stopping(std::int64_t id);
  // Of a service or task array: ranks on a host are asked to end; they have ended.
  void begin_leaving(std::int64_t id, const scheduler::Slice& slice);
  void end_leaving(std::int64_t id, const scheduler::Slice& slice);
  // A rank of a gang has ended: the others are what is left of it.
  void rank_left(const Workload& workload, std::int64_t rank);
  // Hosts have come or changed: shares are fractions of what there is now.
  void fleet_changed();
  // The next free port of the host in rotation; 0 if all are held.
  std::int64_t free_port(HostId host) const;
  // Live ranks on a host, in order of id.
  std::vector<RankId> ranks_on(HostId host) const;
  // The workload's ranks begin (1) or cease (-1) to count as demand.
  void count_demand(const Workload& workload, int sign);
  // After anything changed in it.
  void update_deadline(Workload& workload);
};

}  // namespace capstan::controller
