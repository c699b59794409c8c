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

struct HostEffect {
  std::string host;
  protocol::Effect effect;
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
FoldResult fold_hosts(State& state, std::int64_t time_ms, std::string_view type, const Json& event);
FoldResult fold_jobs(State& state, std::int64_t time_ms, std::string_view type, const Json& event);
FoldResult fold_services(State& state, std::int64_t time_ms, std::string_view type, const Json& event);
FoldResult fold_tasks(State& state, std::int64_t time_ms, std::string_view type, const Json& event);

// Moves a workload on as far as it can go now: starts what is wanted, concludes what is over. True if it
// wants room that is not there.
bool advance_job(Decision& decision, Workload& workload);
bool advance_service(Decision& decision, Workload& workload);
bool advance_tasks(Decision& decision, Workload& workload);
// Asks all its live ranks to stop.
void stop_job(Decision& decision, Workload& workload, StopWhy why, std::string_view reason);
void stop_service(Decision& decision, Workload& workload, StopWhy why);
void stop_tasks(Decision& decision, Workload& workload, StopWhy why);
void stop_workload(Decision& decision, Workload& workload, StopWhy why, std::string_view reason);
// A report about a live rank of the workload, on the host that has it.
void report_job(Decision& decision, Workload& workload, const protocol::Report& report);
void report_service(Decision& decision, Workload& workload, const protocol::Report& report);
// Tasks that succeeded in one batch of reports become one event.
struct TaskBatch {
  std::string host;
  std::map<std::int64_t, IntervalSet> started;  // by workload
  std::map<std::int64_t, IntervalSet> succeeded;
};
void report_tasks(Decision& decision, Workload& workload, const protocol::Report& report, TaskBatch& batch);
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

}  // namespace capstan::controller
