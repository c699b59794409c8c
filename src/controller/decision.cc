// How it works: emit() folds, then asks effects.cc what the event means for hosts. Also the small things that
// several families share: exits in words, back-off, lookups.
#include "controller/decision.h"

#include <algorithm>

#include "base/assert.h"
#include "controller/effects.h"
#include "protocol/fields.h"

namespace capstan::controller {

Json event(std::string_view type, const Workload& workload) {
  return Json::object({{"type", type}, {"job", workload.id}, {"name", workload.spec.name}});
}

void Decision::emit(Json event) {
  const auto folded = fold(state, time_ms, event);
  CAPSTAN_ASSERT(folded.has_value());
  append_effects(state, event, effects);
  if (const auto job = event.get_int("job")) touched.insert(*job);
  events.push_back(std::move(event));
}

Result<void> fold(State& state, std::int64_t time_ms, const Json& event) {
  CAPSTAN_TRY(const std::string type, protocol::need_text(event, "type"));
  FoldResult result;
  for (const auto family : {fold_jobs, fold_services, fold_tasks, fold_hosts, fold_admin, fold_fleet}) {
    result = family(state, time_ms, type, event);
    if (result) break;
  }
  if (!result) return fail(Code::kCorrupt, "event type '{}' is unknown to this build", type);
  CAPSTAN_CHECK(std::move(*result));
  state.time_ms = std::max(state.time_ms, time_ms);
  ++state.event_last;
  if (const auto job = event.get_int("job")) {
    if (Workload* workload = state.find(*job)) state.update_deadline(*workload);
  }
  return {};
}

Result<Workload*> need_workload(State& state, const Json& event) {
  CAPSTAN_TRY(const std::int64_t id, protocol::need_int(event, "job", 1));
  Workload* workload = state.find(id);
  if (workload == nullptr)
    return fail(Code::kCorrupt, "an event names workload {}, which does not exist", id);
  return workload;
}

Result<HostId> host_named(const State& state, std::string_view name) {
  const auto host = state.inventory.topology().find(name);
  if (!host) return fail(Code::kCorrupt, "an event names host {}, which does not exist", name);
  return *host;
}

Result<scheduler::Hold> hold_from(const Json& event) {
  const std::string name = event.get_string("hold").value_or("borrowed");
  for (const auto hold : {scheduler::Hold::kGuaranteed, scheduler::Hold::kCell, scheduler::Hold::kBorrowed}) {
    if (scheduler::hold_name(hold) == name) return hold;
  }
  return fail(Code::kCorrupt, "'{}' is no way to hold room", name);
}

protocol::RankExited exit_of(const protocol::Report& report) {
  if (const auto* exited = std::get_if<protocol::RankExited>(&report.body)) return *exited;
  protocol::RankExited exit;
  if (const auto* failed = std::get_if<protocol::RankStartFailed>(&report.body))
    exit.message = "could not start: " + failed->message;
  return exit;
}

std::string exit_text(const protocol::RankExited& exit) {
  if (exit.oom) return "ran out of its memory limit";
  if (exit.lost) return exit.message.empty() ? "was lost" : "was lost: " + exit.message;
  std::string text;
  if (exit.signal) text = fmt::format("ended by signal {}", *exit.signal);
  if (exit.exit_code) text = fmt::format("exited with code {}", *exit.exit_code);
  // A worker's message often says just that.
  if (text.empty() || exit.message.starts_with(text)) return exit.message;
  return exit.message.empty() ? text : text + ": " + exit.message;
}

Json exit_to_json(const protocol::RankExited& exit) {
  Json json = Json::object();
  if (exit.exit_code) json["exit_code"] = *exit.exit_code;
  if (exit.signal) json["signal"] = *exit.signal;
  if (exit.oom) json["oom"] = true;
  if (exit.lost) json["lost"] = true;
  if (exit.stopped) json["stopped"] = true;
  if (!exit.message.empty()) json["message"] = exit.message;
  return json;
}

Result<protocol::RankExited> exit_from_json(const Json& json) {
  protocol::RankExited exit;
  exit.exit_code = json.get_int("exit_code");
  exit.signal = json.get_int("signal");
  CAPSTAN_TRY(exit.oom, protocol::bool_or(json, "oom", false));
  CAPSTAN_TRY(exit.lost, protocol::bool_or(json, "lost", false));
  CAPSTAN_TRY(exit.stopped, protocol::bool_or(json, "stopped", false));
  CAPSTAN_TRY(exit.message, protocol::text_or(json, "message", ""));
  return exit;
}

bool is_clean(const protocol::RankExited& exit) { return exit.exit_code == 0 && !exit.lost && !exit.oom; }

std::int64_t backoff_ms(const workload::RestartPolicy& policy, std::int64_t failures) {
  CAPSTAN_ASSERT(failures >= 1);
  std::int64_t pause_ms = policy.backoff_ms;
  for (std::int64_t i = 1; i < failures && pause_ms < policy.backoff_max_ms; ++i) pause_ms *= 2;
  return std::min(pause_ms, policy.backoff_max_ms);
}

void stop_workload(Decision& decision, Workload& workload, StopWhy why, std::string_view reason) {
  switch (workload.spec.kind) {
    case workload::Kind::kJob:
    case workload::Kind::kSandbox:
      return stop_job(decision, workload, why, reason);
    case workload::Kind::kService:
      return stop_service(decision, workload, why);
    case workload::Kind::kTasks:
      return stop_tasks(decision, workload, why);
  }
}

void stop_on_host(Decision& decision, Workload& workload, HostId host, std::int64_t count, StopWhy why,
                  std::string_view reason) {
  switch (workload.spec.kind) {
    case workload::Kind::kJob:
    case workload::Kind::kSandbox:
      return stop_job(decision, workload, why, reason);
    case workload::Kind::kService:
      return stop_replicas_on(decision, workload, host, count, why);
    case workload::Kind::kTasks:
      return stop_tasks_on(decision, workload, host, count, why);
  }
}

void finish(Decision& decision, Workload& workload, WorkloadState state, std::string_view reason) {
  CAPSTAN_ASSERT(has_ended(state) && !has_ended(workload.state));
  Json ended = event("workload_state", workload);
  ended["state"] = state_name(state);
  ended["reason"] = reason;
  decision.emit(std::move(ended));
}

std::pair<WorkloadState, std::string> derived_state(const Workload& workload) {
  const auto of_job = [](const Job& job) -> std::pair<WorkloadState, std::string> {
    if (job.in_attempt) {
      if (job.stopping != StopWhy::kNone) return {WorkloadState::kStopping, job.failure};
      if (job.running == static_cast<std::int64_t>(job.ranks.size()) ||
          job.live < static_cast<std::int64_t>(job.ranks.size())) {
        return {WorkloadState::kRunning, ""};
      }
      return {WorkloadState::kStarting, ""};
    }
    return {job.backoff_until_ms > 0 ? WorkloadState::kRestarting : WorkloadState::kPending, job.failure};
  };
  const auto of_service = [&](const Service& service) -> std::pair<WorkloadState, std::string> {
    bool live = false, ready = false, waits = false;
    std::string failure;
    for (const auto& [index, replica] : service.replicas) {
      live = live || replica.rank.live();
      ready = ready || replica.rank.ready;
      waits = waits || (!replica.rank.live() && replica.backoff_until_ms > 0);
      if (!replica.rank.live() && replica.failures > 0 && failure.empty()) {
        failure = fmt::format("replica {} {}", index, exit_text(replica.exit));
      }
    }
    if (workload.cancelling) return {WorkloadState::kStopping, ""};
    if (ready) return {WorkloadState::kRunning, failure};
    if (live) return {WorkloadState::kStarting, failure};
    return {waits ? WorkloadState::kRestarting : WorkloadState::kPending, failure};
  };
  switch (workload.spec.kind) {
    case workload::Kind::kJob:
    case workload::Kind::kSandbox:
      return of_job(workload.job);
    case workload::Kind::kService:
      return of_service(workload.service);
    case workload::Kind::kTasks:
      break;
  }
  const Tasks& tasks = workload.tasks;
  if (workload.cancelling) return {WorkloadState::kStopping, ""};
  if (tasks.running > 0) return {WorkloadState::kRunning, tasks.last_failure};
  return {
      tasks.pending.empty() && !tasks.waiting.empty() ? WorkloadState::kRestarting : WorkloadState::kPending,
      tasks.last_failure};
}

}  // namespace capstan::controller
