// How it works: apply() dispatches the input to its family, then lets every workload that was touched (or
// whose time has come, or that waited for room which has grown) advance, in order of priority and submission,
// until nothing moves.
#include "controller/controller.h"

#include <algorithm>

#include "base/sha256.h"
#include "base/text.h"
#include "controller/commands.h"
#include "controller/planner.h"
#include "controller/snapshot.h"

namespace capstan::controller {
namespace {

bool advance(Decision& decision, Workload& workload) {
  switch (workload.spec.kind) {
    case workload::Kind::kJob:
    case workload::Kind::kSandbox:
      return advance_job(decision, workload);
    case workload::Kind::kService:
      return advance_service(decision, workload);
    case workload::Kind::kTasks:
      return advance_tasks(decision, workload);
  }
  return false;
}

template <class... Ts>
struct Cases : Ts... {
  using Ts::operator()...;
};

}  // namespace

Outcome Controller::apply(const Input& input) {
  Decision decision{.state = state_, .time_ms = std::max(input.time_ms, state_.time_ms)};
  Outcome outcome;
  outcome.time_ms = decision.time_ms;
  std::visit(
      Cases{[&](const BeginEpoch& what) {
              begin_epoch(decision, what);
              try_all_ = true;  // what a drain held back
              state_.planner->forget_hints();
            },
            [&](const Apply& what) { outcome.answer = apply_specs(decision, what); },
            [&](const Cancel& what) { outcome.answer = cancel(decision, what); },
            [&](const Scale& what) { outcome.answer = scale(decision, what); },
            [&](const Drain&) { drain(decision); }, [&](const JoinHost& what) { join_host(decision, what); },
            [&](const SetHealth& what) { set_health(decision, what); },
            [&](const Reports& what) { take_reports(decision, what); }, [&](const Tick&) {},
            [&](const ApplyFleet& what) { outcome.answer = apply_fleet(decision, what); },
            [&](const SetTenants& what) {
              outcome.answer = set_tenants(decision, what);
              try_all_ = true;  // whoever is promised something now ranks differently
            },
            [&](const RemoveTenant& what) { outcome.answer = remove_tenant(decision, what); },
            [&](const Reserve& what) { outcome.answer = reserve(decision, what); },
            [&](const Unreserve& what) { outcome.answer = unreserve(decision, what); },
            [&](const Maintain& what) { outcome.answer = maintain(decision, what); },
            [&](const Defragment& what) { outcome.answer = defragment(decision, what); },
            [&](const SetCondition& what) { outcome.answer = set_condition(decision, what); },
            [&](const SetPolicy& what) { outcome.answer = set_policy(decision, what); }},
      input.what);
  settle(decision);
  outcome.events = std::move(decision.events);
  outcome.effects = std::move(decision.effects);
  return outcome;
}

// Who is to be looked at: what events touched, what time has reached.
void Controller::note(const Decision& decision) {
  const auto add = [&](const Workload& workload) {
    if (!has_ended(workload.state)) to_try_.insert(workload.id);
  };
  if (try_all_) {
    for (const auto& [id, workload] : state_.workloads) add(workload);
    try_all_ = false;
  }
  for (const std::int64_t id : decision.touched) {
    if (const Workload* workload = state_.find(id)) add(*workload);
  }
  for (auto at = state_.timers.upper_bound({looked_until_ms_, INT64_MAX});
       at != state_.timers.end() && at->first <= decision.time_ms; ++at) {
    add(*state_.find(at->second));
  }
  looked_until_ms_ = decision.time_ms;
}

void Controller::advance_all(Decision& decision) {
  while (!to_try_.empty()) {
    const std::int64_t next = *to_try_.begin();
    to_try_.erase(to_try_.begin());
    Workload* workload = state_.find(next);
    if (workload == nullptr) continue;
    const bool wants = !has_ended(workload->state) && advance(decision, *workload);
    state_.planner->want(state_, *workload, wants && !has_ended(workload->state));
  }
}

void Controller::settle(Decision& decision) {
  pass_boundaries(decision, looked_until_ms_);
  note(decision);
  advance_all(decision);
  for (const std::int64_t id : std::set(decision.touched)) {
    const Workload* workload = state_.find(id);
    if (workload == nullptr) continue;
    if (has_ended(workload->state)) state_.planner->want(state_, *workload, false);
    const bool over = has_ended(workload->state) || workload->cancelling;
    if (over && state_.claims.of_job(workload->id) != nullptr) give_up_claim(decision, *workload, "it has ended");
  }
  state_.planner->run(decision);
  // What people see follows from what is.
  const std::set<std::int64_t> touched = decision.touched;
  for (const std::int64_t id : touched) {
    const Workload* workload = state_.find(id);
    if (workload == nullptr || has_ended(workload->state)) continue;
    const auto [now, reason] = derived_state(*workload);
    if (now == workload->state && reason == workload->reason) continue;
    Json changed = event("workload_state", *workload);
    changed["state"] = state_name(now);
    changed["reason"] = reason;
    decision.emit(std::move(changed));
  }
  while (state_.ended.size() > kEndedMax) {
    decision.emit(event("workload_forgotten", *state_.find(state_.ended.begin()->second)));
  }
}

Result<void> Controller::replay(std::int64_t time_ms, const Json& event) {
  CAPSTAN_CHECK(fold(state_, time_ms, event));
  try_all_ = true;
  return {};
}

// A deadline that has passed and changed nothing waits for room, not for time.
std::int64_t Controller::next_deadline_ms() const {
  const auto at = state_.timers.upper_bound({looked_until_ms_, INT64_MAX});
  std::int64_t next_ms = at == state_.timers.end() ? kNever : at->first;
  next_ms = std::min(next_ms, state_.claims.next_boundary_ms(looked_until_ms_));
  return std::min(next_ms, std::max(state_.planner->next_look_ms(), looked_until_ms_ + 1));
}

void Controller::write_snapshot(const std::function<void(std::string_view)>& sink) const {
  write_state(state_, sink);
}

Result<Controller> Controller::from_snapshot_text(std::string_view text) {
  Controller controller;
  CAPSTAN_TRY(controller.state_, read_state(text));
  return controller;
}

std::string Controller::state_hash() const {
  Sha256 hash;
  write_state(state_, [&](std::string_view text) { hash.update(text); });
  return hex(hash.finish());
}

}  // namespace capstan::controller
