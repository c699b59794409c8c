// How it works: an array of tasks keeps ranges of indices (never started, succeeded, failed) and single
// entries only for tasks that run or were tried before. Events carry ranges per array and host, so a million
// tasks make few rows.
#include <algorithm>

#include "base/assert.h"
#include "controller/decision.h"
#include "protocol/fields.h"

namespace capstan::controller {
namespace {

using protocol::need_int;
using protocol::need_text;

Result<std::vector<Range>> ranges_of(const Json& event) {
  const Json* ranges = event.find("ranges");
  if (ranges == nullptr) return fail(Code::kCorrupt, "an event about tasks has no ranges");
  return ranges_from_json(*ranges);
}

Result<RunningTask*> running_task(Workload& workload, std::int64_t index) {
  const auto at = workload.tasks.running.find(index);
  if (at == workload.tasks.running.end())
    return fail(Code::kCorrupt, "task {} of {} does not run", index, workload.id);
  return &at->second;
}

// The task no longer runs.
Result<RunningTask> take_running(State& state, Workload& workload, std::int64_t index) {
  CAPSTAN_TRY(const RunningTask* task, running_task(workload, index));
  const RunningTask copy = *task;
  workload.tasks.running.erase(index);
  state.release(copy.host, {workload.id, copy.attempt, index}, workload.each(), 0);
  return copy;
}

Result<void> tasks_began(State& state, Workload& workload, const Json& event) {
  CAPSTAN_TRY(const std::string host, need_text(event, "host"));
  CAPSTAN_TRY(const std::int64_t attempt, need_int(event, "attempt", 1));
  CAPSTAN_TRY(const std::vector<Range> ranges, ranges_of(event));
  Tasks& tasks = workload.tasks;
  for (const Range& range : ranges) {
    if (attempt == 1) tasks.pending.erase(range.begin, range.end);
    for (std::int64_t index = range.begin; index < range.end; ++index) {
      const bool is_new =
          tasks.running.emplace(index, RunningTask{attempt, host, false, StopWhy::kNone}).second;
      if (!is_new) return fail(Code::kCorrupt, "task {} of {} starts twice", index, workload.id);
      if (const auto at = tasks.retried.find(index); at != tasks.retried.end()) {
        tasks.waiting.erase({at->second.not_before_ms, index});
        at->second.attempt = attempt;
        at->second.not_before_ms = -1;
      }
      state.hold(host, {workload.id, attempt, index}, workload.each(), 0);
    }
  }
  return {};
}

Result<void> task_ended(State& state, Workload& workload, const Json& event) {
  CAPSTAN_TRY(const std::int64_t index, need_int(event, "rank"));
  CAPSTAN_TRY(const RunningTask task, take_running(state, workload, index));
  CAPSTAN_TRY(const std::string next, need_text(event, "next"));
  CAPSTAN_TRY(const protocol::RankExited exit, exit_from_json(event));
  Tasks& tasks = workload.tasks;
  if (next == "failed") {
    tasks.failed.insert(index, index + 1);
    tasks.last_failure = fmt::format("task {} {}", index, exit_text(exit));
    return {};
  }
  RetriedTask& retried = tasks.retried[index];
  retried.attempt = task.attempt;
  CAPSTAN_TRY(retried.failures, need_int(event, "failures"));
  CAPSTAN_TRY(retried.not_before_ms, need_int(event, "not_before_ms"));
  tasks.waiting.insert({retried.not_before_ms, index});
  if (next == "retry") tasks.last_failure = fmt::format("task {} {}", index, exit_text(exit));
  return {};
}

// Of one start: indices with the same host and attempt.
using Groups = std::map<std::pair<std::string, std::int64_t>, IntervalSet>;

void emit_groups(Decision& decision, Workload& workload, const Groups& groups) {
  for (const auto& [key, indices] : groups) {
    Json began = event("tasks_began", workload);
    began["host"] = key.first;
    began["attempt"] = key.second;
    began["ranges"] = ranges_to_json(indices.ranges());
    decision.emit(std::move(began));
  }
}

// The tasks that may start now, at most `count`: those that wait and are due first, then new ones, by index.
std::vector<std::pair<std::int64_t, std::int64_t>> eligible(const Tasks& tasks, std::int64_t time_ms,
                                                            std::int64_t count) {
  std::vector<std::pair<std::int64_t, std::int64_t>> chosen;  // (index, attempt)
  for (const auto& [not_before_ms, index] : tasks.waiting) {
    if (not_before_ms > time_ms || static_cast<std::int64_t>(chosen.size()) == count) break;
    chosen.emplace_back(index, tasks.retried.at(index).attempt + 1);
  }
  for (const Range& range : tasks.pending.first(count - static_cast<std::int64_t>(chosen.size()))) {
    for (std::int64_t index = range.begin; index < range.end; ++index) chosen.emplace_back(index, 1);
  }
  return chosen;
}

}  // namespace

FoldResult fold_tasks(State& state, std::int64_t, std::string_view type, const Json& event) {
  if (type != "rank_ended" && !type.starts_with("tasks_")) return std::nullopt;
  const auto found = need_workload(state, event);
  if (!found) return std::unexpected(found.error());
  Workload& workload = **found;
  if (workload.spec.kind != workload::Kind::kTasks) return std::nullopt;
  const auto apply = [&]() -> Result<void> {
    if (type == "rank_ended") return task_ended(state, workload, event);
    if (type == "tasks_began") return tasks_began(state, workload, event);
    if (type == "tasks_stopping") {
      CAPSTAN_TRY(const std::string why, need_text(event, "why"));
      for (auto& [index, task] : workload.tasks.running)
        task.stopping = parse_stop(why).value_or(StopWhy::kCancel);
      return {};
    }
    CAPSTAN_TRY(const std::vector<Range> ranges, ranges_of(event));
    for (const Range& range : ranges) {
      for (std::int64_t index = range.begin; index < range.end; ++index) {
        if (type == "tasks_started") {
          CAPSTAN_TRY(RunningTask * task, running_task(workload, index));
          task->started = true;
        } else if (type == "tasks_succeeded") {
          CAPSTAN_TRY(const RunningTask taken, take_running(state, workload, index));
          (void)taken;
        }
      }
      if (type == "tasks_succeeded") workload.tasks.succeeded.insert(range.begin, range.end);
    }
    return {};
  };
  return apply();
}

bool advance_tasks(Decision& decision, Workload& workload) {
  const Tasks& tasks = workload.tasks;
  const auto running = static_cast<std::int64_t>(tasks.running.size());
  if (workload.cancelling) {
    if (running == 0) finish(decision, workload, WorkloadState::kCancelled, "cancelled");
    return false;
  }
  if (running == 0 && tasks.pending.empty() && tasks.waiting.empty()) {
    const bool all_well = tasks.failed.empty();
    finish(decision, workload, all_well ? WorkloadState::kSucceeded : WorkloadState::kFailed,
           all_well ? ""
                    : fmt::format("{} of {} tasks failed; {}", tasks.failed.size(), workload.spec.count,
                                  tasks.last_failure));
    return false;
  }
  if (decision.state.draining) return false;
  const std::int64_t limit = workload.spec.parallelism > 0 ? workload.spec.parallelism : scheduler::kFitMax;
  const std::int64_t wanted =
      std::min<std::int64_t>(limit - running, static_cast<std::int64_t>(protocol::kRanksPerHostMax));
  if (wanted <= 0) return false;
  const auto chosen = eligible(tasks, decision.time_ms, wanted);
  if (chosen.empty()) return false;
  const auto placed = scheduler::place_some(
      decision.state.inventory, {.ranks = static_cast<std::int64_t>(chosen.size()), .each = workload.each()});
  if (!placed) return true;
  Groups groups;
  std::size_t next = 0;
  for (const auto& slice : *placed) {
    for (std::int64_t i = 0; i < slice.ranks; ++i, ++next) {
      const auto [index, attempt] = chosen[next];
      groups[{slice.host, attempt}].insert(index, index + 1);
    }
  }
  emit_groups(decision, workload, groups);
  return next < chosen.size();
}

void stop_tasks(Decision& decision, Workload& workload, StopWhy why) {
  const bool all_stop =
      std::all_of(workload.tasks.running.begin(), workload.tasks.running.end(),
                  [](const auto& entry) { return entry.second.stopping != StopWhy::kNone; });
  if (all_stop) return;
  Json stopping = event("tasks_stopping", workload);
  stopping["why"] = stop_name(why);
  decision.emit(std::move(stopping));
}

void report_tasks(Decision& decision, Workload& workload, const protocol::Report& report, TaskBatch& batch) {
  const std::int64_t index = report.id.rank;
  const auto at = workload.tasks.running.find(index);
  if (at == workload.tasks.running.end() || at->second.attempt != report.id.attempt) return;
  if (batch.succeeded[workload.id].contains(index)) return;
  if (std::holds_alternative<protocol::RankStarted>(report.body)) {
    if (!at->second.started) batch.started[workload.id].insert(index, index + 1);
    return;
  }
  if (!report.is_end()) return;
  const protocol::RankExited exit = exit_of(report);
  const bool ours = at->second.stopping != StopWhy::kNone && exit.stopped;
  if (is_clean(exit) && !ours) {
    batch.started[workload.id].erase(index, index + 1);
    batch.succeeded[workload.id].insert(index, index + 1);
    return;
  }
  batch.started[workload.id].erase(index, index + 1);
  const auto known = workload.tasks.retried.find(index);
  const std::int64_t failures_before = known == workload.tasks.retried.end() ? 0 : known->second.failures;
  const bool requeue = at->second.stopping != StopWhy::kNone;
  const std::int64_t failures = requeue ? failures_before : failures_before + 1;
  const auto* start_failed = std::get_if<protocol::RankStartFailed>(&report.body);
  const bool hopeless = start_failed != nullptr && !start_failed->retryable;
  const bool retry = !hopeless && failures <= workload.spec.retries;
  Json ended = event("rank_ended", workload);
  ended["attempt"] = report.id.attempt;
  ended["rank"] = index;
  ended["host"] = at->second.host;
  Json how = exit_to_json(exit);
  for (auto& [key, value] : how.members()) ended[key] = std::move(value);
  ended["next"] = requeue ? "requeue" : retry ? "retry" : "failed";
  ended["failures"] = failures;
  ended["not_before_ms"] = requeue ? 0
                           : retry ? decision.time_ms + backoff_ms(workload.spec.restarts, failures)
                                   : 0;
  decision.emit(std::move(ended));
}

void flush_tasks(Decision& decision, TaskBatch& batch) {
  const auto flush = [&](std::map<std::int64_t, IntervalSet>& all, std::string_view type) {
    for (const auto& [id, indices] : all) {
      if (indices.empty()) continue;
      Json done = event(type, *decision.state.find(id));
      done["host"] = batch.host;
      done["ranges"] = ranges_to_json(indices.ranges());
      decision.emit(std::move(done));
    }
    all.clear();
  };
  flush(batch.started, "tasks_started");
  flush(batch.succeeded, "tasks_succeeded");
}

}  // namespace capstan::controller
