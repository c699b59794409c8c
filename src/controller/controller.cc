// How it works: apply() dispatches the input to its family, then lets every workload that was touched (or
// whose time has come, or that waited for room which has grown) advance, in order of priority and submission,
// until nothing moves.
#include "controller/controller.h"

#include <algorithm>

#include "base/sha256.h"
#include "controller/commands.h"
#include "controller/state_json.h"

namespace capstan::controller {
namespace {

bool advance(Decision& decision, Workload& workload) {
  switch (workload.spec.kind) {
    case workload::Kind::kJob:
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
            },
            [&](const Apply& what) { outcome.answer = apply_specs(decision, what); },
            [&](const Cancel& what) { outcome.answer = cancel(decision, what); },
            [&](const Drain&) { drain(decision); }, [&](const JoinHost& what) { join_host(decision, what); },
            [&](const SetHealth& what) { set_health(decision, what); },
            [&](const Reports& what) { take_reports(decision, what); }, [&](const Tick&) {}},
      input.what);
  settle(decision);
  outcome.events = std::move(decision.events);
  outcome.effects = std::move(decision.effects);
  return outcome;
}

// Who is to be looked at: what events touched, what time has reached, what waited for room.
void Controller::note(const Decision& decision) {
  const auto add = [&](const Workload& workload) {
    if (!has_ended(workload.state)) to_try_.insert({-workload.spec.priority, workload.id});
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
  if (state_.room_grew) {
    to_try_.merge(blocked_);
    blocked_.clear();
    state_.room_grew = false;
  }
}

void Controller::advance_all(Decision& decision) {
  while (!to_try_.empty()) {
    const Order next = *to_try_.begin();
    to_try_.erase(to_try_.begin());
    Workload* workload = state_.find(next.second);
    if (workload == nullptr || has_ended(workload->state)) continue;
    if (advance(decision, *workload)) blocked_.insert({-workload->spec.priority, workload->id});
  }
}

void Controller::settle(Decision& decision) {
  note(decision);
  advance_all(decision);
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
  return at == state_.timers.end() ? kNever : at->first;
}

Json Controller::snapshot() const { return state_to_json(state_); }

Result<Controller> Controller::from_snapshot(const Json& snapshot) {
  Controller controller;
  CAPSTAN_TRY(controller.state_, state_from_json(snapshot));
  return controller;
}

std::string Controller::state_hash() const { return sha256_hex(state_to_json(state_).dump()); }

}  // namespace capstan::controller
