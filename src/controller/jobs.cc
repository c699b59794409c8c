// How it works: a gang's life is a chain of attempts. attempt_began places and starts all ranks; rank_ended
// takes one away; the first bad end stops the others; when the last has ended, attempt_ended says what comes
// next.
#include <algorithm>

#include "base/assert.h"
#include "controller/decision.h"
#include "protocol/fields.h"

namespace capstan::controller {
namespace {

using protocol::need_int;
using protocol::need_text;
using protocol::text_or;

Result<std::size_t> rank_index(const Workload& workload, const Json& event) {
  CAPSTAN_TRY(const std::int64_t rank, need_int(event, "rank"));
  CAPSTAN_TRY(const std::int64_t attempt, need_int(event, "attempt", 1));
  if (attempt != workload.job.attempt || rank >= static_cast<std::int64_t>(workload.job.ranks.size())) {
    return fail(Code::kCorrupt, "an event names rank {} of attempt {}, which job {} does not have", rank,
                attempt, workload.id);
  }
  return static_cast<std::size_t>(rank);
}

// The slices of an attempt, checked against the fleet.
Result<std::vector<scheduler::Slice>> slices_from(const State& state, const Json& event) {
  CAPSTAN_TRY(const Json::Array list, protocol::array_or_empty(event, "slices", SIZE_MAX));
  std::vector<scheduler::Slice> slices;
  slices.reserve(list.size());
  for (const Json& item : list) {
    scheduler::Slice slice;
    CAPSTAN_TRY(const std::string host, need_text(item, "host"));
    CAPSTAN_TRY(slice.host, host_named(state, host));
    CAPSTAN_TRY(slice.ranks, need_int(item, "ranks", 1, workload::kRanksMax));
    CAPSTAN_TRY(const std::int64_t gpus, protocol::int_or(item, "gpus", 0, 0, UINT32_MAX));
    slice.gpus = static_cast<scheduler::GpuSet>(gpus);
    slices.push_back(slice);
  }
  return slices;
}

Result<void> attempt_began(State& state, std::int64_t time_ms, Workload& workload, const Json& event) {
  Job& job = workload.job;
  CAPSTAN_TRY(job.attempt, need_int(event, "attempt", 1));
  CAPSTAN_TRY(job.master_port, need_int(event, "master_port", 1, 65'535));
  CAPSTAN_TRY(workload.hold, hold_from(event));
  CAPSTAN_TRY(job.slices, slices_from(state, event));
  job.in_attempt = true;
  job.stopping = StopWhy::kNone;
  job.failure.clear();
  job.fatal = job.start_failure = false;
  job.began_ms = time_ms;
  job.backoff_until_ms = 0;
  job.exits.clear();
  job.session.clear();
  std::int64_t total = 0;
  for (const auto& slice : job.slices) total += slice.ranks;
  const auto& helpers = workload.spec.helpers;
  job.groups = {{total - (helpers ? helpers->ranks : 0), workload.each()}};
  if (helpers) job.groups.push_back({helpers->ranks, Workload::capacity_of(helpers->resources)});
  job.ranks.assign(static_cast<std::size_t>(total), Rank{});
  begin_holding(state, workload, time_ms);
  if (const auto* claim = state.claims.of_job(workload.id)) state.claims.remove(state.inventory, claim->id);
  return {};
}

Result<void> rank_started(Workload& workload, const Json& event) {
  CAPSTAN_TRY(const std::size_t index, rank_index(workload, event));
  Rank& rank = workload.job.ranks[index];
  if (rank.phase != Phase::kStarting)
    return fail(Code::kCorrupt, "rank {} of job {} starts twice", index, workload.id);
  rank.phase = Phase::kRunning;
  CAPSTAN_TRY(const std::int64_t pid, need_int(event, "pid", -1));
  rank.pid = static_cast<std::int32_t>(pid);
  if (event.contains("session")) {
    CAPSTAN_TRY(workload.job.session, need_text(event, "session"));
  }
  ++workload.job.running;
  return {};
}

Result<void> rank_ended(State& state, std::int64_t time_ms, Workload& workload, const Json& event) {
  CAPSTAN_TRY(const std::size_t index, rank_index(workload, event));
  Job& job = workload.job;
  Rank& rank = job.ranks[index];
  if (!rank.live()) return fail(Code::kCorrupt, "rank {} of job {} ends twice", index, workload.id);
  CAPSTAN_TRY(protocol::RankExited exit, exit_from_json(event));
  if (rank.phase == Phase::kRunning) --job.running;
  rank.phase = Phase::kEnded;
  rank.ended_ms = time_ms;
  rank.clean = is_clean(exit) && !exit.stopped;
  if (!rank.clean) job.exits[static_cast<std::int64_t>(index)] = std::move(exit);
  --job.live;
  const auto number = static_cast<std::int64_t>(index);
  state.release(rank.host, workload, 1, job.each(number), rank_gpus(job, number), index == 0 ? job.master_port : 0);
  state.rank_left(workload, number);
  if (job.live == 0) state.end_running(workload.id);
  return {};
}

Result<void> attempt_stopping(State& state, Workload& workload, const Json& event) {
  Job& job = workload.job;
  CAPSTAN_TRY(const std::string why, need_text(event, "why"));
  const auto parsed = parse_stop(why);
  if (!parsed) return fail(Code::kCorrupt, "a job stops because of '{}'", why);
  job.stopping = *parsed;
  CAPSTAN_TRY(job.failure, text_or(event, "reason", ""));
  CAPSTAN_TRY(job.fatal, protocol::bool_or(event, "fatal", false));
  CAPSTAN_TRY(job.start_failure, protocol::bool_or(event, "start_failure", false));
  for (Rank& rank : job.ranks) {
    if (rank.live()) rank.stopping = *parsed;
  }
  if (*parsed == StopWhy::kPreempted) ++job.preemptions;
  state.mark_stopping(workload.id);
  return {};
}

Result<void> attempt_ended(std::int64_t time_ms, Workload& workload, const Json& event) {
  Job& job = workload.job;
  if (job.live != 0) return fail(Code::kCorrupt, "an attempt of job {} ends with live ranks", workload.id);
  job.in_attempt = false;
  job.stopping = StopWhy::kNone;
  job.served_ms += time_ms - job.began_ms;
  CAPSTAN_TRY(job.restarts_used, need_int(event, "restarts_used"));
  CAPSTAN_TRY(job.start_retries, need_int(event, "start_retries"));
  CAPSTAN_TRY(job.backoff_until_ms, need_int(event, "backoff_until_ms"));
  CAPSTAN_TRY(job.failure, text_or(event, "reason", ""));
  return {};
}

// The last rank has ended: what comes next. `last` is what was said of it.
void conclude(Decision& decision, Workload& workload, const std::string& last) {
  const Job& job = workload.job;
  const auto& policy = workload.spec.restarts;
  const bool complete =
      std::all_of(job.ranks.begin(), job.ranks.end(), [](const Rank& rank) { return rank.clean; });
  const StopWhy why = job.stopping;
  const std::string failure = job.failure;
  Json ended = event("attempt_ended", workload);
  ended["attempt"] = job.attempt;
  ended["restarts_used"] = job.restarts_used;
  ended["start_retries"] = job.start_retries;
  ended["backoff_until_ms"] = 0;
  WorkloadState final = WorkloadState::kPending;
  std::string reason = failure;
  if (workload.cancelling) {
    final = WorkloadState::kCancelled;
    reason = "cancelled";
  } else if (complete) {
    final = WorkloadState::kSucceeded;
    reason = workload.spec.kind == workload::Kind::kSandbox ? last : "";  // its time was over, or a client ended it
  } else if (why == StopWhy::kTimeLimit || job.fatal) {
    final = WorkloadState::kFailed;
  } else if (why == StopWhy::kFailure && job.start_failure && job.start_retries < kStartRetriesMax) {
    ended["start_retries"] = job.start_retries + 1;
    ended["backoff_until_ms"] = decision.time_ms + backoff_ms(policy, job.start_retries + 1);
    ended["reason"] = failure;
  } else if (why == StopWhy::kFailure && job.restarts_used < policy.budget) {
    ended["restarts_used"] = job.restarts_used + 1;
    ended["start_retries"] = 0;
    ended["backoff_until_ms"] = decision.time_ms + backoff_ms(policy, job.restarts_used + 1);
    ended["reason"] = failure;
  } else if (why == StopWhy::kFailure) {
    final = WorkloadState::kFailed;
    if (policy.budget > 0) reason += fmt::format("; the restart budget of {} is used up", policy.budget);
  }
  // What makes room for others resumes from its last checkpoint, with its restart budget untouched.
  ended["next"] = has_ended(final) ? state_name(final) : why == StopWhy::kFailure ? "restart" : "resume";
  decision.emit(std::move(ended));
  if (has_ended(final)) finish(decision, workload, final, reason);
}

}  // namespace

FoldResult fold_jobs(State& state, std::int64_t time_ms, std::string_view type, const Json& event) {
  const bool shared = type == "rank_started" || type == "rank_ended";
  if (!shared && !type.starts_with("attempt_")) return std::nullopt;
  const auto found = need_workload(state, event);
  if (!found) return std::unexpected(found.error());
  Workload& workload = **found;
  if (!workload.spec.is_gang()) return std::nullopt;
  if (type == "attempt_began") return attempt_began(state, time_ms, workload, event);
  if (type == "rank_started") return rank_started(workload, event);
  if (type == "rank_ended") return rank_ended(state, time_ms, workload, event);
  if (type == "attempt_stopping") return attempt_stopping(state, workload, event);
  if (type == "attempt_ended") return attempt_ended(time_ms, workload, event);
  return std::nullopt;
}

bool advance_job(Decision& decision, Workload& workload) {
  Job& job = workload.job;
  if (job.in_attempt) {
    const std::int64_t limit_ms = workload.spec.time_limit_ms;
    if (job.stopping == StopWhy::kNone && limit_ms > 0 && decision.time_ms >= job.began_ms + limit_ms) {
      stop_job(decision, workload, StopWhy::kTimeLimit,
               fmt::format("ran longer than its time limit of {} ms", limit_ms));
    }
    return false;
  }
  if (workload.cancelling) {
    finish(decision, workload, WorkloadState::kCancelled, "cancelled");
    return false;
  }
  return !decision.state.draining && decision.time_ms >= job.backoff_until_ms;
}

void begin_attempt(Decision& decision, Workload& workload, const scheduler::Placement& placement,
                   scheduler::Hold hold,
                   std::int64_t port) {
  const State& state = decision.state;
  Json::Array list;
  list.reserve(placement.slices.size());
  for (const auto& slice : placement.slices) {
    Json item = Json::object({{"host", state.name(slice.host)}, {"ranks", slice.ranks}});
    if (slice.gpus != 0) item["gpus"] = slice.gpus;
    list.push_back(std::move(item));
  }
  Json began = event("attempt_began", workload);
  began["attempt"] = workload.job.attempt + 1;
  began["slices"] = std::move(list);
  began["master_port"] = port;
  began["hold"] = scheduler::hold_name(hold);
  decision.emit(std::move(began));
}

scheduler::GpuSet rank_gpus(const Job& job, std::int64_t rank) {
  const std::int64_t number = rank;
  for (const auto& slice : job.slices) {
    if (rank >= slice.ranks) {
      rank -= slice.ranks;
      continue;
    }
    const fleet::Capacity& each = job.each(number);
    if (each.gpus == 0) return slice.gpus;
    // Its own share: the next `gpus` bits of the slice's.
    scheduler::GpuSet rest = slice.gpus, own = 0;
    for (std::int64_t i = 0; i < (rank + 1) * each.gpus; ++i) {
      const scheduler::GpuSet bit = rest & (~rest + 1);
      if (i >= rank * each.gpus) own |= bit;
      rest &= ~bit;
    }
    return own;
  }
  return 0;
}

void begin_holding(State& state, Workload& workload, std::int64_t time_ms) {
  Job& job = workload.job;
  scheduler::Running row;
  row.slices = job.slices;
  row.began_ms = job.began_ms;
  if (workload.spec.time_limit_ms > 0) row.ends_by_ms = job.began_ms + workload.spec.time_limit_ms;
  job.live = job.running = 0;
  std::int64_t rank = 0;
  std::size_t group = 0, in_group = 0;
  for (std::size_t at = 0; at < job.slices.size(); ++at) {
    const scheduler::Slice& slice = job.slices[at];
    for (std::int64_t i = 0; i < slice.ranks; ++i, ++rank) {
      Rank& one = job.ranks[static_cast<std::size_t>(rank)];
      if (time_ms > 0) one = {slice.host, Phase::kStarting, false, false, StopWhy::kNone, 0, 0, time_ms, 0};
      if (!one.live()) continue;
      ++job.live;
      job.running += one.phase == Phase::kRunning;
      if (time_ms > 0) continue;
      state.hold(slice.host, workload, 1, job.each(rank), rank_gpus(job, rank), rank == 0 ? job.master_port : 0);
    }
    if (time_ms > 0) {  // all of a slice at once
      state.hold(slice.host, workload, static_cast<std::uint32_t>(slice.ranks), job.groups[group].each, slice.gpus,
                 at == 0 ? job.master_port : 0);
    }
    in_group += static_cast<std::size_t>(slice.ranks);
    if (static_cast<std::int64_t>(in_group) == job.groups[group].ranks) {
      row.group_ends.push_back(at + 1);
      row.each.push_back(job.groups[group].each);
      in_group = 0;
      if (group + 1 < job.groups.size()) ++group;
    }
  }
  if (job.live > 0) state.begin_running(workload, std::move(row));
  for (std::int64_t i = 0; time_ms == 0 && job.live > 0 && i < rank; ++i) {
    if (!job.ranks[static_cast<std::size_t>(i)].live()) state.rank_left(workload, i);
  }
  if (job.stopping != StopWhy::kNone) state.mark_stopping(workload.id);
}

void stop_job(Decision& decision, Workload& workload, StopWhy why, std::string_view reason) {
  if (!workload.job.in_attempt || workload.job.stopping != StopWhy::kNone) return;
  Json stopping = event("attempt_stopping", workload);
  stopping["attempt"] = workload.job.attempt;
  stopping["why"] = stop_name(why);
  stopping["reason"] = reason;
  decision.emit(std::move(stopping));
}

void report_job(Decision& decision, Workload& workload, HostId host, const protocol::Report& report) {
  Job& job = workload.job;
  if (!job.in_attempt || report.id.attempt != job.attempt ||
      report.id.rank >= static_cast<std::int64_t>(job.ranks.size()))
    return;
  const Rank& rank = job.ranks[static_cast<std::size_t>(report.id.rank)];
  if (rank.host != host) return;
  if (const auto* started = std::get_if<protocol::RankStarted>(&report.body)) {
    if (rank.phase != Phase::kStarting) return;
    Json began = event("rank_started", workload);
    began["attempt"] = report.id.attempt;
    began["rank"] = report.id.rank;
    began["host"] = decision.state.name(rank.host);
    began["pid"] = started->pid;
    if (!started->session.empty()) began["session"] = started->session;
    decision.emit(std::move(began));
    return;
  }
  if (!report.is_end() || !rank.live()) return;
  const protocol::RankExited exit = exit_of(report);
  const auto* start_failed = std::get_if<protocol::RankStartFailed>(&report.body);
  Json ended = event("rank_ended", workload);
  ended["attempt"] = report.id.attempt;
  ended["rank"] = report.id.rank;
  ended["host"] = decision.state.name(rank.host);
  Json how = exit_to_json(exit);
  for (auto& [key, value] : how.members()) ended[key] = std::move(value);
  decision.emit(std::move(ended));
  if (job.stopping == StopWhy::kNone && !is_clean(exit)) {
    Json stopping = event("attempt_stopping", workload);
    stopping["attempt"] = job.attempt;
    stopping["why"] = stop_name(StopWhy::kFailure);
    const bool sandbox = workload.spec.kind == workload::Kind::kSandbox;
    stopping["reason"] = sandbox ? "it " + exit_text(exit) : fmt::format("rank {} {}", report.id.rank, exit_text(exit));
    if (start_failed != nullptr) stopping[start_failed->retryable ? "start_failure" : "fatal"] = true;
    decision.emit(std::move(stopping));
  }
  if (job.live == 0) conclude(decision, workload, exit.message);
}

}  // namespace capstan::controller
