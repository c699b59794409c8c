// How it works: each replica restarts alone. advance_service compares what is wanted (replicas 0..n-1 of the
// newest generation) with what lives, and takes one step for each difference. A change rolls: an old replica
// is stopped only while all the others are ready.
#include <algorithm>

#include "base/assert.h"
#include "controller/decision.h"
#include "protocol/fields.h"

namespace capstan::controller {
namespace {

using protocol::need_int;
using protocol::need_text;

Result<Replica*> live_replica(Workload& workload, const Json& event) {
  CAPSTAN_TRY(const std::int64_t index, need_int(event, "rank"));
  CAPSTAN_TRY(const std::int64_t attempt, need_int(event, "attempt", 1));
  const auto at = workload.service.replicas.find(index);
  if (at == workload.service.replicas.end() || at->second.attempt != attempt || !at->second.rank.live()) {
    return fail(Code::kCorrupt, "an event names replica {} attempt {}, which service {} does not have", index,
                attempt, workload.id);
  }
  return &at->second;
}

Result<void> replica_began(State& state, std::int64_t time_ms, Workload& workload, const Json& event) {
  CAPSTAN_TRY(const std::int64_t index, need_int(event, "rank"));
  Replica& replica = workload.service.replicas[index];
  if (replica.rank.live())
    return fail(Code::kCorrupt, "replica {} of service {} starts twice", index, workload.id);
  CAPSTAN_TRY(replica.attempt, need_int(event, "attempt", 1));
  replica.generation = workload.generation;
  replica.backoff_until_ms = 0;
  replica.held = workload.each();
  replica.rank = Rank{};
  replica.address.clear();
  replica.ready_ms = 0;
  CAPSTAN_TRY(const std::string host, need_text(event, "host"));
  CAPSTAN_TRY(replica.rank.host, host_named(state, host));
  CAPSTAN_TRY(const std::int64_t port, need_int(event, "port", 1, 65'535));
  CAPSTAN_TRY(const std::int64_t gpus, protocol::int_or(event, "gpus", 0, 0, UINT32_MAX));
  replica.rank.port = static_cast<std::int32_t>(port);
  replica.gpus = static_cast<scheduler::GpuSet>(gpus);
  replica.rank.phase = Phase::kStarting;
  replica.rank.began_ms = time_ms;
  if (!state.running.contains(workload.id)) {
    CAPSTAN_TRY(workload.hold, hold_from(event));
  }
  hold_replica(state, workload, replica);
  return {};
}

Result<void> replica_ended(State& state, std::int64_t time_ms, Workload& workload, const Json& event) {
  CAPSTAN_TRY(Replica * replica, live_replica(workload, event));
  const bool was_stopping = replica->rank.stopping != StopWhy::kNone;
  CAPSTAN_TRY(replica->exit, exit_from_json(event));
  CAPSTAN_TRY(replica->failures, need_int(event, "failures"));
  CAPSTAN_TRY(replica->backoff_until_ms, need_int(event, "backoff_until_ms"));
  replica->rank.phase = Phase::kEnded;
  replica->rank.ready = false;
  replica->rank.ended_ms = time_ms;
  state.release(replica->rank.host, workload, 1, replica->held, replica->gpus, replica->rank.port);
  if (was_stopping) state.end_leaving(workload.id, {replica->rank.host, 1, replica->gpus});
  const auto& replicas = workload.service.replicas;
  if (std::none_of(replicas.begin(), replicas.end(), [](const auto& one) { return one.second.rank.live(); }))
    state.end_running(workload.id);
  return {};
}

bool is_wanted(const Workload& workload, std::int64_t index) {
  return !workload.cancelling && index < workload.spec.replicas;
}

void stop_replica(Decision& decision, Workload& workload, std::int64_t index, StopWhy why) {
  const Replica& replica = workload.service.replicas.at(index);
  if (!replica.rank.live() || replica.rank.stopping != StopWhy::kNone) return;
  Json stopping = event("replica_stopping", workload);
  stopping["attempt"] = replica.attempt;
  stopping["rank"] = index;
  stopping["host"] = decision.state.name(replica.rank.host);
  stopping["why"] = stop_name(why);
  decision.emit(std::move(stopping));
}

// Stops the lowest replica of an old generation, if the others can carry the service meanwhile.
void roll(Decision& decision, Workload& workload) {
  std::int64_t oldest = -1;
  for (const auto& [index, replica] : workload.service.replicas) {
    if (!is_wanted(workload, index) || !replica.rank.live() || replica.generation == workload.generation)
      continue;
    if (replica.rank.stopping != StopWhy::kNone) return;  // one at a time
    if (!replica.rank.ready) return stop_replica(decision, workload, index, StopWhy::kUpdate);
    if (oldest < 0) oldest = index;
  }
  if (oldest < 0) return;
  for (std::int64_t index = 0; index < workload.spec.replicas; ++index) {
    const auto at = workload.service.replicas.find(index);
    if (at == workload.service.replicas.end() || !at->second.rank.ready) return;
  }
  stop_replica(decision, workload, oldest, StopWhy::kUpdate);
}

}  // namespace

FoldResult fold_services(State& state, std::int64_t time_ms, std::string_view type, const Json& event) {
  const bool shared = type == "rank_started" || type == "rank_ended";
  if (!shared && !type.starts_with("replica_")) return std::nullopt;
  const auto found = need_workload(state, event);
  if (!found) return std::unexpected(found.error());
  Workload& workload = **found;
  if (workload.spec.kind != workload::Kind::kService) return std::nullopt;
  const auto apply = [&]() -> Result<void> {
    if (type == "replica_began") return replica_began(state, time_ms, workload, event);
    if (type == "rank_ended") return replica_ended(state, time_ms, workload, event);
    if (type == "replica_idle") {
      CAPSTAN_TRY(const std::int64_t index, need_int(event, "rank"));
      workload.service.replicas[index].backoff_until_ms = 0;
      workload.service.replicas[index].failures = 0;
      return {};
    }
    CAPSTAN_TRY(Replica * replica, live_replica(workload, event));
    if (type == "rank_started") {
      replica->rank.phase = Phase::kRunning;
      CAPSTAN_TRY(const std::int64_t pid, need_int(event, "pid", -1));
      replica->rank.pid = static_cast<std::int32_t>(pid);
      // Without a check, running is all that is known.
      replica->rank.ready = !workload.spec.health && !workload.spec.engine;
      replica->ready_ms = time_ms;
      replica->address = "127.0.0.1";
    } else if (type == "replica_ready") {
      replica->rank.phase = Phase::kRunning;
      replica->rank.ready = true;
      replica->ready_ms = time_ms;
      CAPSTAN_TRY(replica->address, need_text(event, "address"));
    } else if (type == "replica_unready") {
      replica->rank.ready = false;
    } else if (type == "replica_stopping") {
      CAPSTAN_TRY(const std::string why, need_text(event, "why"));
      if (replica->rank.stopping == StopWhy::kNone)
        state.begin_leaving(workload.id, {replica->rank.host, 1, replica->gpus});
      replica->rank.stopping = parse_stop(why).value_or(StopWhy::kCancel);
      replica->rank.ready = false;  // takes no new requests
    }
    return {};
  };
  return apply();
}

bool advance_service(Decision& decision, Workload& workload) {
  bool live = false;
  std::vector<std::int64_t> surplus;
  for (const auto& [index, replica] : workload.service.replicas) {
    live = live || replica.rank.live();
    if (!is_wanted(workload, index)) surplus.push_back(index);
  }
  if (workload.cancelling && !live) {
    finish(decision, workload, WorkloadState::kCancelled, "cancelled");
    return false;
  }
  for (const std::int64_t index : surplus) {
    const Replica& replica = workload.service.replicas.at(index);
    if (replica.rank.live()) {
      stop_replica(decision, workload, index, workload.cancelling ? StopWhy::kCancel : StopWhy::kScaleDown);
    } else if (!workload.cancelling && replica.backoff_until_ms > 0) {
      // Its number of attempts is kept, so that a later replica of this index does not repeat one; its wait
      // is not.
      Json calm = event("replica_idle", workload);
      calm["rank"] = index;
      decision.emit(std::move(calm));
    }
  }
  if (workload.cancelling || decision.state.draining) return false;
  roll(decision, workload);
  return next_replica(workload, decision.time_ms) >= 0;
}

std::int64_t next_replica(const Workload& workload, std::int64_t time_ms) {
  for (std::int64_t index = 0; index < workload.spec.replicas; ++index) {
    const auto at = workload.service.replicas.find(index);
    const bool due = at == workload.service.replicas.end() ||
                     (!at->second.rank.live() && time_ms >= at->second.backoff_until_ms);
    if (due) return index;
  }
  return -1;
}

void begin_replica(Decision& decision, Workload& workload, std::int64_t index, const scheduler::Slice& slice,
                   std::int64_t port, scheduler::Hold hold) {
  const auto known = workload.service.replicas.find(index);
  Json began = event("replica_began", workload);
  began["attempt"] = known == workload.service.replicas.end() ? 1 : known->second.attempt + 1;
  began["rank"] = index;
  began["host"] = decision.state.name(slice.host);
  began["port"] = port;
  began["hold"] = scheduler::hold_name(hold);
  if (slice.gpus != 0) began["gpus"] = slice.gpus;
  decision.emit(std::move(began));
}

void hold_replica(State& state, Workload& workload, const Replica& replica) {
  if (!state.running.contains(workload.id)) {
    scheduler::Running row;
    row.gang = false;
    row.each = {replica.held};
    row.began_ms = replica.rank.began_ms;
    state.begin_running(workload, std::move(row));
  }
  state.hold(replica.rank.host, workload, 1, replica.held, replica.gpus, replica.rank.port);
  if (replica.rank.stopping != StopWhy::kNone) state.begin_leaving(workload.id, {replica.rank.host, 1, replica.gpus});
}

void stop_replicas_on(Decision& decision, Workload& workload, HostId host, std::int64_t count, StopWhy why) {
  for (const auto& [index, replica] : workload.service.replicas) {
    if (count == 0) return;
    if (!replica.rank.live() || replica.rank.host != host || replica.rank.stopping != StopWhy::kNone) continue;
    stop_replica(decision, workload, index, why);
    --count;
  }
}

void stop_service(Decision& decision, Workload& workload, StopWhy why) {
  for (const auto& [index, replica] : workload.service.replicas) stop_replica(decision, workload, index, why);
}

void report_service(Decision& decision, Workload& workload, HostId host, const protocol::Report& report) {
  const auto at = workload.service.replicas.find(report.id.rank);
  if (at == workload.service.replicas.end() || at->second.attempt != report.id.attempt ||
      !at->second.rank.live())
    return;
  const Replica& replica = at->second;
  if (replica.rank.host != host) return;
  const auto about = [&](std::string_view type) {
    Json json = event(type, workload);
    json["attempt"] = report.id.attempt;
    json["rank"] = report.id.rank;
    json["host"] = decision.state.name(replica.rank.host);
    return json;
  };
  if (const auto* started = std::get_if<protocol::RankStarted>(&report.body)) {
    if (replica.rank.phase != Phase::kStarting) return;
    Json began = about("rank_started");
    began["pid"] = started->pid;
    decision.emit(std::move(began));
  } else if (const auto* ready = std::get_if<protocol::RankReady>(&report.body)) {
    if (replica.rank.ready || replica.rank.stopping != StopWhy::kNone) return;
    Json now = about("replica_ready");
    now["address"] = ready->host;
    now["port"] = replica.rank.port;
    decision.emit(std::move(now));
  } else if (const auto* unready = std::get_if<protocol::RankUnready>(&report.body)) {
    if (!replica.rank.ready) return;
    Json now = about("replica_unready");
    now["why"] = unready->why;
    decision.emit(std::move(now));
  } else {
    const protocol::RankExited exit = exit_of(report);
    const auto& policy = workload.spec.restarts;
    const bool ours = replica.rank.stopping != StopWhy::kNone;
    // Having served for longer than the longest pause counts as healthy: the next failure is a first one
    // again.
    const bool was_healthy =
        replica.ready_ms > 0 && decision.time_ms - replica.ready_ms > policy.backoff_max_ms;
    const std::int64_t failures = ours ? 0 : was_healthy ? 1 : replica.failures + 1;
    Json ended = about("rank_ended");
    Json how = exit_to_json(exit);
    for (auto& [key, value] : how.members()) ended[key] = std::move(value);
    ended["failures"] = failures;
    ended["backoff_until_ms"] = ours ? 0 : decision.time_ms + backoff_ms(policy, failures);
    decision.emit(std::move(ended));
  }
}

}  // namespace capstan::controller
