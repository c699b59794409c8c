// How it works: workloads come, change and go by commands; epochs and drains frame them. apply_specs checks
// all specs before the first event, so a file is taken whole or not at all.
#include <algorithm>

#include "controller/commands.h"
#include "protocol/fields.h"

namespace capstan::controller {
namespace {

using protocol::need_int;
using protocol::need_text;

Result<workload::Spec> spec_of(const Json& event) {
  const Json* json = event.find("spec");
  if (json == nullptr) return fail(Code::kCorrupt, "an event about a workload has no spec");
  return workload::from_json(*json);
}

void forget(State& state, std::int64_t id) {
  Workload* workload = state.find(id);
  if (workload == nullptr) return;
  state.ended.erase({workload->ended_ms, id});
  if (workload->deadline_ms != kNever) state.timers.erase({workload->deadline_ms, id});
  if (const auto at = state.by_name.find(workload->spec.name); at != state.by_name.end() && at->second == id)
    state.by_name.erase(at);
  state.workloads.erase(id);
}

Result<void> submitted(State& state, std::int64_t time_ms, const Json& event) {
  Workload workload;
  CAPSTAN_TRY(workload.id, need_int(event, "job", 1));
  CAPSTAN_TRY(workload.spec, spec_of(event));
  if (workload.id < state.next_id) return fail(Code::kCorrupt, "workload {} is submitted twice", workload.id);
  if (const Workload* older = state.find(workload.spec.name)) {
    if (!has_ended(older->state)) return fail(Code::kCorrupt, "workload {} takes a name in use", workload.id);
    forget(state, older->id);
  }
  const auto tenant = state.tenants.find(workload.spec.tenant);
  if (!tenant) return fail(Code::kCorrupt, "tenant {} does not exist", workload.spec.tenant);
  workload.tenant = *tenant;
  state.next_id = workload.id + 1;
  workload.created_ms = time_ms;
  if (workload.spec.kind == workload::Kind::kTasks) workload.tasks.pending.insert(0, workload.spec.chunks());
  state.by_name[workload.spec.name] = workload.id;
  state.count_demand(workload, 1);
  state.workloads.emplace(workload.id, std::move(workload));
  return {};
}

Result<void> updated(State& state, const Json& event) {
  CAPSTAN_TRY(Workload * workload, need_workload(state, event));
  CAPSTAN_TRY(workload::Spec spec, spec_of(event));
  CAPSTAN_TRY(const std::int64_t generation, need_int(event, "generation", 1));
  if (spec.kind == workload::Kind::kTasks) workload->tasks.pending.insert(workload->spec.chunks(), spec.chunks());
  const auto tenant = state.tenants.find(spec.tenant);
  if (!tenant) return fail(Code::kCorrupt, "tenant {} does not exist", spec.tenant);
  workload->tenant = *tenant;
  state.count_demand(*workload, -1);
  workload->spec = std::move(spec);
  state.count_demand(*workload, 1);
  if (generation != workload->generation) {
    // A changed workload deserves a fresh start: nobody waits for the old one's pauses.
    workload->generation = generation;
    workload->job.backoff_until_ms = 0;
    for (auto& [index, replica] : workload->service.replicas) {
      replica.backoff_until_ms = 0;
      replica.failures = 0;
    }
  }
  return {};
}

Result<void> state_changed(State& state, std::int64_t time_ms, const Json& event) {
  CAPSTAN_TRY(Workload * workload, need_workload(state, event));
  CAPSTAN_TRY(const std::string name, need_text(event, "state"));
  const auto parsed = parse_state(name);
  if (!parsed || has_ended(workload->state))
    return fail(Code::kCorrupt, "workload {} cannot become {}", workload->id, name);
  workload->state = *parsed;
  CAPSTAN_TRY(workload->reason, protocol::text_or(event, "reason", ""));
  if (has_ended(*parsed)) {
    workload->ended_ms = time_ms;
    state.ended.insert({time_ms, workload->id});
    state.count_demand(*workload, -1);
  }
  return {};
}

struct Plan {
  Workload* existing = nullptr;  // nullptr: a new one
  std::vector<workload::Change> changes;
  workload::Restart restart = workload::Restart::kNone;
};

// Who asks must be known, and may not rank itself above what its tenant may.
Result<void> check_tenant(const State& state, const workload::Spec& spec) {
  const auto tenant = state.tenants.find(spec.tenant);
  const auto kind = workload::kind_name(spec.kind);
  if (!tenant) {
    return fail(Code::kInvalid, "{} {}: there is no tenant {}; see: capstan tenants list", kind, spec.name,
                spec.tenant);
  }
  const std::int64_t most = state.tenants.tenant(*tenant).priority_max;
  if (spec.priority > most) {
    return fail(Code::kInvalid, "{} {}: tenant {} may give priorities up to {}, not {}", kind, spec.name,
                spec.tenant, most, spec.priority);
  }
  return {};
}

// The number that autoscaling has come to stands, within the new bounds: a file says only what to begin with.
void keep_scale(const workload::Spec& running, workload::Spec& wanted) {
  if (running.autoscale && wanted.autoscale)
    wanted.replicas = std::clamp(running.replicas, wanted.autoscale->min, wanted.autoscale->max);
}

// `spec` becomes what is carried out.
Result<Plan> plan(State& state, workload::Spec& spec) {
  CAPSTAN_CHECK(check_tenant(state, spec));
  Plan plan;
  Workload* existing = state.find(spec.name);
  if (existing == nullptr || has_ended(existing->state)) return plan;
  plan.existing = existing;
  const auto kind = workload::kind_name(existing->spec.kind);
  if (existing->spec.kind != spec.kind) {
    return fail(Code::kConflict,
                "{} is the name of a {} that has not ended; cancel it first, or choose another name",
                spec.name, kind);
  }
  if (existing->cancelling)
    return fail(Code::kConflict, "{} {} is being cancelled; apply it again once it has ended", kind,
                spec.name);
  keep_scale(existing->spec, spec);
  plan.changes = workload::differences(existing->spec, spec);
  for (const auto& change : plan.changes) {
    if (change.restart == workload::Restart::kRefused) {
      return fail(Code::kConflict, "{} {}: {} cannot change from {} to {} while it runs; cancel it first",
                  kind, spec.name, change.path, change.from.empty() ? "nothing" : change.from,
                  change.to.empty() ? "nothing" : change.to);
    }
    if (change.restart == workload::Restart::kRanks) plan.restart = workload::Restart::kRanks;
  }
  return plan;
}

Json result_of(const workload::Spec& spec, const Plan& plan) {
  Json changes = Json::array();
  for (const auto& change : plan.changes)
    changes.push_back(Json::object({{"path", change.path}, {"from", change.from}, {"to", change.to}}));
  const bool restarts = plan.restart == workload::Restart::kRanks;
  return Json::object({{"kind", workload::kind_name(spec.kind)},
                       {"name", spec.name},
                       {"action", plan.existing == nullptr ? "created"
                                  : plan.changes.empty()   ? "unchanged"
                                                           : "updated"},
                       {"changes", std::move(changes)},
                       {"restarts", !restarts                           ? "none"
                                    : spec.is_gang() ? "all"
                                                                        : "ranks"}});
}

void carry_out(Decision& decision, const workload::Spec& spec, const Plan& plan) {
  if (plan.existing == nullptr) {
    decision.emit(Json::object({{"type", "workload_submitted"},
                                {"job", decision.state.next_id},
                                {"name", spec.name},
                                {"kind", workload::kind_name(spec.kind)},
                                {"spec", workload::to_json(spec)}}));
    return;
  }
  if (plan.changes.empty()) return;
  Workload& workload = *plan.existing;
  const bool restarts = plan.restart == workload::Restart::kRanks;
  Json change = event("workload_updated", workload);
  change["generation"] = workload.generation + (restarts ? 1 : 0);
  change["spec"] = workload::to_json(spec);
  decision.emit(std::move(change));
  if (restarts && spec.is_gang())
    stop_job(decision, workload, StopWhy::kUpdate, "its spec has changed");
}

}  // namespace

FoldResult fold_admin(State& state, std::int64_t time_ms, std::string_view type, const Json& event) {
  const auto apply = [&]() -> Result<void> {
    if (type == "workload_submitted") return submitted(state, time_ms, event);
    if (type == "workload_updated") return updated(state, event);
    if (type == "workload_state") return state_changed(state, time_ms, event);
    if (type == "service_scaled") {
      CAPSTAN_TRY(Workload * workload, need_workload(state, event));
      state.count_demand(*workload, -1);
      CAPSTAN_TRY(workload->spec.replicas, need_int(event, "replicas"));
      state.count_demand(*workload, 1);
      return {};
    }
    if (type == "workload_cancelling") {
      CAPSTAN_TRY(Workload * workload, need_workload(state, event));
      workload->cancelling = true;
    } else if (type == "workload_forgotten") {
      CAPSTAN_TRY(const std::int64_t id, need_int(event, "job", 1));
      forget(state, id);
    } else if (type == "drain_began") {
      state.draining = true;
    } else {
      CAPSTAN_TRY(state.epoch, need_int(event, "epoch", state.epoch + 1));
      CAPSTAN_TRY(state.build, need_text(event, "build"));
      state.draining = false;
      state.room_grew = true;  // what waited for the drain to end is to be looked at again
    }
    return {};
  };
  for (const std::string_view known :
       {"workload_submitted", "workload_updated", "workload_state", "workload_cancelling", "service_scaled",
        "workload_forgotten", "drain_began", "epoch_began"}) {
    if (type == known) return apply();
  }
  return std::nullopt;
}

Result<Json> apply_specs(Decision& decision, Apply apply) {
  std::vector<Plan> plans;
  std::size_t fresh = 0;
  for (auto& spec : apply.specs) {
    CAPSTAN_TRY(Plan one, plan(decision.state, spec));
    fresh += one.existing == nullptr;
    plans.push_back(std::move(one));
  }
  const std::size_t active = decision.state.workloads.size() - decision.state.ended.size();
  if (active + fresh > kWorkloadsMax)
    return fail(Code::kExhausted, "{} workloads have not ended, the limit is {}", active, kWorkloadsMax);
  if (decision.state.draining && !apply.dry_run)
    return fail(Code::kUnavailable, "Capstan is going down; apply again after the next `capstan up`");
  Json results = Json::array();
  for (std::size_t i = 0; i < plans.size(); ++i) {
    results.push_back(result_of(apply.specs[i], plans[i]));
    if (!apply.dry_run) carry_out(decision, apply.specs[i], plans[i]);
  }
  return Json::object({{"results", std::move(results)}});
}

Result<Json> cancel(Decision& decision, const Cancel& command) {
  Workload* workload = decision.state.find(command.name);
  if (workload == nullptr)
    return fail(Code::kNotFound, "there is no workload {}; see: capstan get", command.name);
  if (has_ended(workload->state)) {
    return fail(Code::kConflict, "{} {} has already ended: {}", workload::kind_name(workload->spec.kind),
                command.name, state_name(workload->state));
  }
  if (!workload->cancelling) {
    decision.emit(event("workload_cancelling", *workload));
    stop_workload(decision, *workload, StopWhy::kCancel, "cancelled");
  }
  return Json::object({{"name", command.name}, {"state", "stopping"}});
}

Result<Json> scale(Decision& decision, const Scale& command) {
  Workload* workload = decision.state.find(command.name);
  if (workload == nullptr || has_ended(workload->state) || workload->cancelling)
    return fail(Code::kNotFound, "there is no service {} that runs; see: capstan get", command.name);
  if (workload->spec.kind != workload::Kind::kService) {
    return fail(Code::kInvalid, "{} is a {}; only services have replicas", command.name,
                workload::kind_name(workload->spec.kind));
  }
  const auto& autoscale = workload->spec.autoscale;
  const std::int64_t low = autoscale ? autoscale->min : 0;
  const std::int64_t high = autoscale                  ? autoscale->max
                            : workload->spec.port != 0 ? 1
                                                       : workload::kReplicasMax;
  if (command.replicas < low || command.replicas > high) {
    return fail(Code::kInvalid, "service {} may have {} to {} replicas{}, not {}", command.name, low, high,
                autoscale                  ? " (its 'autoscale')"
                : workload->spec.port != 0 ? " (it has one port)"
                                           : "",
                command.replicas);
  }
  const std::int64_t from = workload->spec.replicas;
  if (command.replicas != from) {
    Json scaled = event("service_scaled", *workload);
    scaled["replicas"] = command.replicas;
    scaled["from"] = from;
    if (!command.why.empty()) scaled["why"] = command.why;
    decision.emit(std::move(scaled));
  }
  return Json::object({{"name", command.name}, {"replicas", command.replicas}, {"from", from}});
}

void begin_epoch(Decision& decision, const BeginEpoch& begin) {
  if (begin.epoch <= decision.state.epoch) return;
  decision.emit(Json::object({{"type", "epoch_began"}, {"epoch", begin.epoch}, {"build", begin.build}}));
}

void drain(Decision& decision) {
  if (!decision.state.draining) decision.emit(Json::object({{"type", "drain_began"}}));
  for (auto& [id, workload] : decision.state.workloads) {
    if (!has_ended(workload.state)) stop_workload(decision, workload, StopWhy::kDown, "capstan down");
  }
}

}  // namespace capstan::controller
