// Decision: one input on its way through the controller: the events it causes and the effects that follow
// from them.
//
//   decision.emit(event("attempt_stopping", job.id).with("why", "cancel"));
//
// emit() folds the event into the state at once, so that the next line of code sees it, and adds the effects
// that it implies. Nothing else changes the state.  Threads: the controller's.
#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "controller/state.h"
#include "protocol/messages.h"

namespace capstan::controller {

// What a host must do about ranks `first` to `first + count - 1`: compact; effects.h: render makes the wire's form.
struct HostEffect {
  enum class Kind : std::uint8_t { kStart, kStop };
  HostId host{};
  Kind kind = Kind::kStart;
  StopWhy why = StopWhy::kNone;
  std::int64_t job = 0;
  std::int64_t attempt = 0;
  std::int64_t first = 0;
  std::int64_t count = 1;
};

// {"type": type, "job": id, "name": name}: how every event about a workload begins.
Json event(std::string_view type, const Workload& workload);

struct Decision {
  State& state;
  std::int64_t time_ms = 0;
  std::vector<Json> events = {};
  std::vector<HostEffect> effects = {};
  std::set<std::int64_t> touched = {};  // workloads that events were about

  void emit(Json event);
};

// The fold: applies one event. kCorrupt if it does not belong to the state (a damaged or foreign journal).
Result<void> fold(State& state, std::int64_t time_ms, const Json& event);

// ---- what each family of events does; implemented in jobs.cc, services.cc, tasks.cc, hosts.cc, admin.cc.
// `nullopt`: the family does not know the type.
using FoldResult = std::optional<Result<void>>;
FoldResult fold_admin(State& state, std::int64_t time_ms, std::string_view type, const Json& event);
FoldResult fold_fleet(State& state, std::int64_t time_ms, std::string_view type, const Json& event);
FoldResult fold_hosts(State& state, std::int64_t time_ms, std::string_view type, const Json& event);
FoldResult fold_jobs(State& state, std::int64_t time_ms, std::string_view type, const Json& event);
FoldResult fold_services(State& state, std::int64_t time_ms, std::string_view type, const Json& event);
FoldResult fold_tasks(State& state, std::int64_t time_ms, std::string_view type, const Json& event);

// Moves a workload on as far as it can go by itself: concludes what is over. True if it wants to start something now;
// whether there is room is the queue's business (starts.h).
bool advance_job(Decision& decision, Workload& workload);
bool advance_service(Decision& decision, Workload& workload);
bool advance_tasks(Decision& decision, Workload& workload);
// Starts what has been placed.
void begin_attempt(Decision& decision, Workload& workload, const scheduler::Placement& placement, scheduler::Hold hold,
                   std::int64_t port);
void begin_replica(Decision& decision, Workload& workload, std::int64_t index, const scheduler::Slice& slice,
                   std::int64_t port, scheduler::Hold hold);
void begin_tasks(Decision& decision, Workload& workload, const std::vector<scheduler::Slice>& slices,
                 scheduler::Hold hold);
// The lowest replica that is to start now, -1 if none is; how many tasks may start now.
std::int64_t next_replica(const Workload& workload, std::int64_t time_ms);
std::int64_t startable_tasks(const Workload& workload, std::int64_t time_ms);
// Single tasks, also where they are placed in chunks.
struct TaskCounts {
  std::int64_t pending = 0, running = 0, succeeded = 0, failed = 0;
};
TaskCounts count_tasks(const Workload& workload);
// The GPUs of one rank of a gang.
scheduler::GpuSet rank_gpus(const Job& job, std::int64_t rank);
// What live ranks hold: at the start of an attempt (all begin at time_ms), or of a state that is read back (0).
void begin_holding(State& state, Workload& workload, std::int64_t time_ms);
void hold_replica(State& state, Workload& workload, const Replica& replica);
void hold_tasks(State& state, Workload& workload);
// Asks all its live ranks to stop.
void stop_job(Decision& decision, Workload& workload, StopWhy why, std::string_view reason);
void stop_service(Decision& decision, Workload& workload, StopWhy why);
void stop_tasks(Decision& decision, Workload& workload, StopWhy why);
void stop_workload(Decision& decision, Workload& workload, StopWhy why, std::string_view reason);
// Asks at most `count` of the ranks on one host to stop (a gang: all of it, everywhere).
void stop_on_host(Decision& decision, Workload& workload, HostId host, std::int64_t count, StopWhy why,
                  std::string_view reason);
void stop_replicas_on(Decision& decision, Workload& workload, HostId host, std::int64_t count, StopWhy why);
void stop_tasks_on(Decision& decision, Workload& workload, HostId host, std::int64_t count, StopWhy why);
// A report about a live rank of the workload, on the host that has it.
void report_job(Decision& decision, Workload& workload, HostId host, const protocol::Report& report);
void report_service(Decision& decision, Workload& workload, HostId host, const protocol::Report& report);
// Tasks that succeeded in one batch of reports become one event.
struct TaskBatch {
  std::string host;
  std::map<std::int64_t, IntervalSet> started;  // by workload
  std::map<std::int64_t, IntervalSet> succeeded;
  std::map<std::int64_t, protocol::TaskTally> tallies;  // of those that succeeded, of arrays in sandboxes
};
void report_tasks(Decision& decision, Workload& workload, HostId host, const protocol::Report& report,
                  TaskBatch& batch);
void report_task_ranges(Decision& decision, HostId host, const protocol::TaskReport& report, TaskBatch& batch);
void flush_tasks(Decision& decision, TaskBatch& batch);
// It has ended, in this state.
void finish(Decision& decision, Workload& workload, WorkloadState state, std::string_view reason);
// What its ranks say about a workload that has not ended.
std::pair<WorkloadState, std::string> derived_state(const Workload& workload);

// The end that a report tells, in one form; the words for a person.
protocol::RankExited exit_of(const protocol::Report& report);
std::string exit_text(const protocol::RankExited& exit);
Json exit_to_json(const protocol::RankExited& exit);
Result<protocol::RankExited> exit_from_json(const Json& json);
bool is_clean(const protocol::RankExited& exit);
// Doubles from backoff_ms up to backoff_max_ms; `failures` from 1.
std::int64_t backoff_ms(const workload::RestartPolicy& policy, std::int64_t failures);

// Lookups for folds.
Result<Workload*> need_workload(State& state, const Json& event);
Result<HostId> host_named(const State& state, std::string_view name);
Result<scheduler::Hold> hold_from(const Json& event);

}  // namespace capstan::controller
