// How it works: an array of tasks keeps ranges of indices (never started, running on which host, succeeded, failed) and
// single entries only for tasks that were tried before. Events carry ranges per array and host, so a million tasks make
// few rows and little memory.
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

scheduler::GpuSet lowest_gpus(scheduler::GpuSet set, std::int64_t count) {
  scheduler::GpuSet out = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const scheduler::GpuSet bit = set & (~set + 1);
    out |= bit;
    set &= ~bit;
  }
  return out;
}

// Adds a run in order; joins it to the one before if that ends where it begins and is alike.
void insert_run(std::vector<TaskRun>& runs, const TaskRun& run) {
  const auto at = std::lower_bound(runs.begin(), runs.end(), run.begin,
                                   [](const TaskRun& one, std::int64_t begin) { return one.begin < begin; });
  if (at != runs.begin() && run.gpus == 0) {
    TaskRun& before = *std::prev(at);
    if (before.end == run.begin && before.attempt == run.attempt && before.started == run.started &&
        before.stopping == run.stopping && before.gpus == 0) {
      before.end = run.end;
      return;
    }
  }
  runs.insert(at, run);
}

constexpr std::int64_t kChunkRetries = 5;  // of a chunk that was lost with its host or could not start there

// Takes [begin, end) out of the runs of a host and calls take(piece) for each piece. kCorrupt if a part does not run.
template <class Take>
Result<void> take_runs(Workload& workload, HostId host, std::int64_t begin, std::int64_t end, Take take) {
  const auto list = workload.tasks.runs.find(host);
  while (begin < end) {
    const TaskRun* found = list == workload.tasks.runs.end() ? nullptr : workload.tasks.find_on(host, begin);
    if (found == nullptr) return fail(Code::kCorrupt, "task {} of {} does not run there", begin, workload.id);
    auto& runs = list->second;
    const auto at = runs.begin() + (found - runs.data());
    TaskRun piece = *at;
    piece.begin = begin;
    piece.end = std::min(end, at->end);
    begin = piece.end;
    TaskRun after = *at;
    after.begin = piece.end;
    at->end = piece.begin;
    const bool rest_before = at->begin < at->end, rest_after = after.begin < after.end;
    if (rest_before && rest_after) {
      runs.insert(at + 1, after);
    } else if (rest_after) {
      *at = after;
    } else if (!rest_before) {
      runs.erase(at);
    }
    take(piece);
  }
  if (list != workload.tasks.runs.end() && list->second.empty()) workload.tasks.runs.erase(list);
  return {};
}

// What the scheduler knows of tasks that are asked to end: all of them, or where they are.
void note_leaving(State& state, const Workload& workload) {
  scheduler::Running& row = state.running.at(workload.id);
  row.leaving.clear();
  row.stopping = workload.tasks.stopping > 0 && workload.tasks.stopping == workload.tasks.running;
  if (row.stopping || workload.tasks.stopping == 0) return;
  for (const auto& [host, runs] : workload.tasks.runs) {
    for (const TaskRun& run : runs) {
      if (run.stopping != StopWhy::kNone) state.begin_leaving(workload.id, {host, run.end - run.begin, run.gpus});
    }
  }
}

// The tasks no longer run.
Result<void> end_runs(State& state, Workload& workload, HostId host, const Range& range, std::int64_t* attempt) {
  const auto ended = [&](const TaskRun& piece) {
    const std::int64_t count = piece.end - piece.begin;
    state.release(host, workload, static_cast<std::uint32_t>(count), workload.each(), piece.gpus, 0);
    workload.tasks.running -= count;
    if (attempt != nullptr) *attempt = piece.attempt;
    if (piece.stopping == StopWhy::kNone) return;
    workload.tasks.stopping -= count;
    if (!state.running.at(workload.id).stopping) state.end_leaving(workload.id, {host, count, piece.gpus});
  };
  CAPSTAN_CHECK(take_runs(workload, host, range.begin, range.end, ended));
  if (workload.tasks.running == 0) {
    state.end_running(workload.id);
  } else if (workload.tasks.stopping == workload.tasks.running) {
    note_leaving(state, workload);
  }
  return {};
}

// One row for all of its tasks. What a task loses when it is stopped is bounded by how long it may run.
void begin_tasks_row(State& state, const Workload& workload) {
  scheduler::Running row;
  row.gang = false;
  row.each = {workload.each()};
  row.began_ms = workload.tasks.began_ms;
  row.checkpoint_ms = workload.spec.timeout_ms;
  state.begin_running(workload, std::move(row));
}

Result<void> tasks_began(State& state, std::int64_t time_ms, Workload& workload, const Json& event) {
  CAPSTAN_TRY(const std::string name, need_text(event, "host"));
  CAPSTAN_TRY(const HostId host, host_named(state, name));
  CAPSTAN_TRY(const std::int64_t attempt, need_int(event, "attempt", 1, INT32_MAX));
  CAPSTAN_TRY(const std::int64_t mask, protocol::int_or(event, "gpus", 0, 0, UINT32_MAX));
  CAPSTAN_TRY(const std::vector<Range> ranges, ranges_of(event));
  Tasks& tasks = workload.tasks;
  auto gpus = static_cast<scheduler::GpuSet>(mask);
  if (tasks.running == 0) {
    tasks.began_ms = time_ms;
    CAPSTAN_TRY(workload.hold, hold_from(event));
    begin_tasks_row(state, workload);
  }
  const fleet::Capacity each = workload.each();
  for (const Range& range : ranges) {
    const bool twice = range.begin < 0 || range.end > workload.spec.chunks() ||
                       (attempt == 1 && !tasks.pending.contains(range.begin));
    if (twice) return fail(Code::kCorrupt, "task {} of {} starts twice", range.begin, workload.id);
    if (attempt == 1) tasks.pending.erase(range.begin, range.end);
    for (std::int64_t index = range.begin; attempt > 1 && index < range.end; ++index) {
      const auto at = tasks.retried.find(index);
      if (at == tasks.retried.end()) return fail(Code::kCorrupt, "task {} of {} was never tried", index, workload.id);
      tasks.waiting.erase({at->second.not_before_ms, index});
      at->second.attempt = attempt;
      at->second.not_before_ms = -1;
    }
    TaskRun run{range.begin, range.end, static_cast<std::int32_t>(attempt), false, StopWhy::kNone, 0};
    if (gpus == 0) {
      insert_run(tasks.runs[host], run);
      state.hold(host, workload, static_cast<std::uint32_t>(range.end - range.begin), each, 0, 0);
    }
    for (std::int64_t index = range.begin; gpus != 0 && index < range.end; ++index) {
      run.begin = index;
      run.end = index + 1;
      run.gpus = each.gpus > 0 ? lowest_gpus(gpus, each.gpus) : gpus;
      gpus &= each.gpus > 0 ? ~run.gpus : gpus;
      insert_run(tasks.runs[host], run);
      state.hold(host, workload, 1, each, run.gpus, 0);
    }
    tasks.running += range.end - range.begin;
  }
  if (state.running.at(workload.id).stopping) note_leaving(state, workload);  // not all of them any more
  return {};
}

std::string failure_text(const Workload& workload, std::int64_t index, const protocol::RankExited& exit) {
  return fmt::format("{} {} {}", workload.spec.sandbox ? "chunk" : "task", index, exit_text(exit));
}

Result<void> task_ended(State& state, Workload& workload, const Json& event) {
  CAPSTAN_TRY(const std::int64_t index, need_int(event, "rank"));
  CAPSTAN_TRY(const std::string name, need_text(event, "host"));
  CAPSTAN_TRY(const HostId host, host_named(state, name));
  std::int64_t attempt = 0;
  CAPSTAN_CHECK(end_runs(state, workload, host, {index, index + 1}, &attempt));
  CAPSTAN_TRY(const std::string next, need_text(event, "next"));
  CAPSTAN_TRY(const protocol::RankExited exit, exit_from_json(event));
  Tasks& tasks = workload.tasks;
  if (next == "failed") {
    tasks.failed.insert(index, index + 1);
    tasks.last_failure = failure_text(workload, index, exit);
    return {};
  }
  RetriedTask& retried = tasks.retried[index];
  retried.attempt = attempt;
  CAPSTAN_TRY(retried.failures, need_int(event, "failures"));
  CAPSTAN_TRY(retried.not_before_ms, need_int(event, "not_before_ms"));
  tasks.waiting.insert({retried.not_before_ms, index});
  if (next == "retry") tasks.last_failure = failure_text(workload, index, exit);
  return {};
}

Result<void> tasks_started(Workload& workload, HostId host, const Range& range) {
  std::vector<TaskRun> started;
  CAPSTAN_CHECK(take_runs(workload, host, range.begin, range.end, [&](TaskRun piece) {
    piece.started = true;
    started.push_back(piece);
  }));
  for (const TaskRun& piece : started) insert_run(workload.tasks.runs[host], piece);
  return {};
}

Result<void> tasks_stopping(State& state, Workload& workload, const Json& event) {
  CAPSTAN_TRY(const std::string text, need_text(event, "why"));
  const StopWhy why = parse_stop(text).value_or(StopWhy::kCancel);
  CAPSTAN_TRY(const std::string name, protocol::text_or(event, "host", ""));
  CAPSTAN_TRY(std::int64_t left, protocol::int_or(event, "count", INT64_MAX));
  HostId only{};
  if (!name.empty()) {
    CAPSTAN_TRY(only, host_named(state, name));
  }
  Tasks& tasks = workload.tasks;
  for (auto& [host, runs] : tasks.runs) {
    if (!name.empty() && host != only) continue;
    // The newest go first: they have done least. A run that is cut is cut before what stops.
    for (std::size_t i = runs.size(); i-- > 0 && left > 0;) {
      TaskRun& run = runs[i];
      if (run.stopping != StopWhy::kNone) continue;
      const std::int64_t count = std::min(left, run.end - run.begin);
      left -= count;
      tasks.stopping += count;
      if (!name.empty()) state.begin_leaving(workload.id, {host, count, run.gpus});
      if (count == run.end - run.begin) {
        run.stopping = why;
        continue;
      }
      TaskRun cut = run;
      cut.begin = run.end - count;
      cut.stopping = why;
      run.end = cut.begin;
      runs.insert(runs.begin() + static_cast<std::ptrdiff_t>(i) + 1, cut);
    }
  }
  if (tasks.stopping == tasks.running) note_leaving(state, workload);
  return {};
}

// Tasks that may start now: those that wait and are due first, then new ones, by index; at most `count`.
struct Eligible {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t attempt = 1;
};
std::vector<Eligible> eligible(const Tasks& tasks, std::int64_t time_ms, std::int64_t count) {
  std::vector<Eligible> chosen;
  for (const auto& [not_before_ms, index] : tasks.waiting) {
    if (not_before_ms > time_ms || count == 0) break;
    const std::int64_t attempt = tasks.retried.at(index).attempt + 1;
    if (!chosen.empty() && chosen.back().end == index && chosen.back().attempt == attempt) {
      chosen.back().end = index + 1;
    } else {
      chosen.push_back({index, index + 1, attempt});
    }
    --count;
  }
  for (const Range& range : tasks.pending.first(count)) chosen.push_back({range.begin, range.end, 1});
  return chosen;
}

void emit_began(Decision& decision, Workload& workload, const scheduler::Slice& slice, const Eligible& what,
                scheduler::Hold hold) {
  Json began = event("tasks_began", workload);
  began["host"] = decision.state.name(slice.host);
  began["attempt"] = what.attempt;
  if (workload.tasks.running == 0) began["hold"] = scheduler::hold_name(hold);
  if (slice.gpus != 0) began["gpus"] = slice.gpus;
  began["ranges"] = ranges_to_json({{what.begin, what.end}});
  decision.emit(std::move(began));
}

}  // namespace

FoldResult fold_tasks(State& state, std::int64_t time_ms, std::string_view type, const Json& event) {
  if (type != "rank_ended" && !type.starts_with("tasks_")) return std::nullopt;
  const auto found = need_workload(state, event);
  if (!found) return std::unexpected(found.error());
  Workload& workload = **found;
  if (workload.spec.kind != workload::Kind::kTasks) return std::nullopt;
  const auto apply = [&]() -> Result<void> {
    if (type == "rank_ended") return task_ended(state, workload, event);
    if (type == "tasks_began") return tasks_began(state, time_ms, workload, event);
    if (type == "tasks_stopping") return tasks_stopping(state, workload, event);
    CAPSTAN_TRY(const std::string name, need_text(event, "host"));
    CAPSTAN_TRY(const HostId host, host_named(state, name));
    CAPSTAN_TRY(const std::vector<Range> ranges, ranges_of(event));
    for (const Range& range : ranges) {
      if (type == "tasks_started") CAPSTAN_CHECK(tasks_started(workload, host, range));
      if (type != "tasks_succeeded") continue;
      CAPSTAN_CHECK(end_runs(state, workload, host, range, nullptr));
      workload.tasks.succeeded.insert(range.begin, range.end);
    }
    if (const Json* tally = event.find("tally")) {
      CAPSTAN_TRY(const protocol::TaskTally more, protocol::task_tally_from_json(*tally));
      workload.tasks.tally.add(more);
      if (!more.failure.empty()) workload.tasks.last_failure = more.failure;
    }
    return {};
  };
  return apply();
}

void hold_tasks(State& state, Workload& workload) {
  Tasks& tasks = workload.tasks;
  if (tasks.runs.empty()) return;
  begin_tasks_row(state, workload);
  for (const auto& [host, runs] : tasks.runs) {
    for (const TaskRun& run : runs) {
      state.hold(host, workload, static_cast<std::uint32_t>(run.end - run.begin), workload.each(), run.gpus, 0);
      tasks.running += run.end - run.begin;
      if (run.stopping != StopWhy::kNone) tasks.stopping += run.end - run.begin;
    }
  }
  note_leaving(state, workload);
}

TaskCounts count_tasks(const Workload& workload) {
  const Tasks& tasks = workload.tasks;
  if (!workload.spec.sandbox) {
    return {tasks.pending.size() + static_cast<std::int64_t>(tasks.waiting.size()), tasks.running,
            tasks.succeeded.size(), tasks.failed.size()};
  }
  const std::int64_t chunk = workload.spec.chunk(), count = workload.spec.count;
  // The last chunk may not be full.
  const std::int64_t last = workload.spec.chunks() - 1, lacks = (last + 1) * chunk - count;
  TaskCounts out{.succeeded = tasks.tally.succeeded(), .failed = tasks.tally.failed()};
  out.failed += tasks.failed.size() * chunk - (tasks.failed.contains(last) ? lacks : 0);
  const std::int64_t open = count - out.succeeded - out.failed;
  out.running = std::min(tasks.running * chunk, open);
  out.pending = open - out.running;
  return out;
}

bool advance_tasks(Decision& decision, Workload& workload) {
  const Tasks& tasks = workload.tasks;
  if (workload.cancelling) {
    if (tasks.running == 0) finish(decision, workload, WorkloadState::kCancelled, "cancelled");
    return false;
  }
  if (tasks.running == 0 && tasks.pending.empty() && tasks.waiting.empty()) {
    const std::int64_t failed = count_tasks(workload).failed;
    finish(decision, workload, failed == 0 ? WorkloadState::kSucceeded : WorkloadState::kFailed,
           failed == 0 ? ""
                       : fmt::format("{} of {} tasks failed; {}", failed, workload.spec.count, tasks.last_failure));
    return false;
  }
  if (decision.state.draining) return false;
  return startable_tasks(workload, decision.time_ms) > 0;
}

std::int64_t startable_tasks(const Workload& workload, std::int64_t time_ms) {
  const Tasks& tasks = workload.tasks;
  const std::int64_t limit = workload.spec.parallelism > 0 ? workload.spec.parallelism : INT64_MAX;
  if (tasks.running >= limit) return 0;
  std::int64_t count = tasks.pending.size();
  // Enough to know that there are some; what waits is counted exactly only when nothing else does.
  if (count == 0) {
    for (const auto& [not_before_ms, index] : tasks.waiting) {
      if (not_before_ms > time_ms) break;
      ++count;
    }
  } else {
    count += static_cast<std::int64_t>(tasks.waiting.size());
  }
  return std::min(count, limit - tasks.running);
}

void begin_tasks(Decision& decision, Workload& workload, const std::vector<scheduler::Slice>& slices,
                 scheduler::Hold hold) {
  std::int64_t total = 0;
  for (const auto& slice : slices) total += slice.ranks;
  const auto chosen = eligible(workload.tasks, decision.time_ms, total);
  std::size_t next = 0;
  Eligible rest = chosen.empty() ? Eligible{} : chosen[0];
  for (const auto& slice : slices) {
    scheduler::Slice left = slice;
    while (left.ranks > 0 && next < chosen.size()) {
      Eligible piece = rest;
      piece.end = std::min(rest.end, rest.begin + left.ranks);
      const std::int64_t count = piece.end - piece.begin;
      scheduler::Slice part = left;
      part.ranks = count;
      if (workload.spec.resources.gpus > 0) part.gpus = lowest_gpus(left.gpus, workload.spec.resources.gpus * count);
      emit_began(decision, workload, part, piece, hold);
      left.gpus &= ~part.gpus;
      left.ranks -= count;
      rest.begin = piece.end;
      if (rest.begin == rest.end && ++next < chosen.size()) rest = chosen[next];
    }
  }
}

void stop_tasks(Decision& decision, Workload& workload, StopWhy why) {
  const auto lives = [](const auto& entry) {
    return std::any_of(entry.second.begin(), entry.second.end(),
                       [](const TaskRun& run) { return run.stopping == StopWhy::kNone; });
  };
  if (std::none_of(workload.tasks.runs.begin(), workload.tasks.runs.end(), lives)) return;
  Json stopping = event("tasks_stopping", workload);
  stopping["why"] = stop_name(why);
  decision.emit(std::move(stopping));
}

void stop_tasks_on(Decision& decision, Workload& workload, HostId host, std::int64_t count, StopWhy why) {
  const auto runs = workload.tasks.runs.find(host);
  if (runs == workload.tasks.runs.end()) return;
  const bool any = std::any_of(runs->second.begin(), runs->second.end(),
                               [](const TaskRun& run) { return run.stopping == StopWhy::kNone; });
  if (!any) return;
  Json stopping = event("tasks_stopping", workload);
  stopping["why"] = stop_name(why);
  stopping["host"] = decision.state.name(host);
  stopping["count"] = count;
  decision.emit(std::move(stopping));
}

void report_tasks(Decision& decision, Workload& workload, HostId host, const protocol::Report& report,
                  TaskBatch& batch) {
  const std::int64_t index = report.id.rank;
  const TaskRun* run = workload.tasks.find_on(host, index);
  if (run == nullptr || run->attempt != report.id.attempt) return;
  if (batch.succeeded[workload.id].contains(index)) return;
  if (std::holds_alternative<protocol::RankStarted>(report.body)) {
    if (!run->started) batch.started[workload.id].insert(index, index + 1);
    return;
  }
  if (!report.is_end()) return;
  const protocol::RankExited exit = exit_of(report);
  const bool stopping = run->stopping != StopWhy::kNone;
  batch.started[workload.id].erase(index, index + 1);
  if (is_clean(exit) && !(stopping && exit.stopped)) {
    batch.succeeded[workload.id].insert(index, index + 1);
    if (exit.tally) batch.tallies[workload.id].add(*exit.tally);
    return;
  }
  const auto known = workload.tasks.retried.find(index);
  const std::int64_t failures_before = known == workload.tasks.retried.end() ? 0 : known->second.failures;
  const std::int64_t failures = stopping ? failures_before : failures_before + 1;
  const auto* start_failed = std::get_if<protocol::RankStartFailed>(&report.body);
  const bool hopeless = start_failed != nullptr && !start_failed->retryable;
  // Tasks in sandboxes are retried by their worker; a chunk fails only with its host.
  const std::int64_t retries = workload.spec.sandbox ? kChunkRetries : workload.spec.retries;
  const bool retry = !hopeless && failures <= retries;
  Json ended = event("rank_ended", workload);
  ended["attempt"] = report.id.attempt;
  ended["rank"] = index;
  ended["host"] = decision.state.name(host);
  Json how = exit_to_json(exit);
  for (auto& [key, value] : how.members()) ended[key] = std::move(value);
  ended["next"] = stopping ? "requeue" : retry ? "retry" : "failed";
  ended["failures"] = failures;
  ended["not_before_ms"] =
      !stopping && retry ? decision.time_ms + backoff_ms(workload.spec.restarts, failures) : 0;
  decision.emit(std::move(ended));
}

void report_task_ranges(Decision& decision, HostId host, const protocol::TaskReport& report, TaskBatch& batch) {
  const Workload* workload = decision.state.find(report.job);
  if (workload == nullptr || workload->spec.kind != workload::Kind::kTasks) return;
  // What really runs here in that attempt, of what is said.
  const auto each_run = [&](const auto& ranges, auto use) {
    for (const auto& [begin, end] : ranges) {
      const auto runs = workload->tasks.runs.find(host);
      if (runs == workload->tasks.runs.end()) return;
      auto at = std::upper_bound(runs->second.begin(), runs->second.end(), begin,
                                 [](std::int64_t wanted, const TaskRun& run) { return wanted < run.begin; });
      if (at != runs->second.begin()) --at;
      for (; at != runs->second.end() && at->begin < end; ++at) {
        const std::int64_t from = std::max(begin, at->begin), to = std::min(end, at->end);
        if (from < to && at->attempt == report.attempt) use(*at, from, to);
      }
    }
  };
  each_run(report.started, [&](const TaskRun& run, std::int64_t from, std::int64_t to) {
    if (!run.started) batch.started[report.job].insert(from, to);
  });
  each_run(report.succeeded, [&](const TaskRun&, std::int64_t from, std::int64_t to) {
    batch.started[report.job].erase(from, to);
    batch.succeeded[report.job].insert(from, to);
  });
}

void flush_tasks(Decision& decision, TaskBatch& batch) {
  const auto flush = [&](std::map<std::int64_t, IntervalSet>& all, std::string_view type) {
    for (const auto& [id, indices] : all) {
      if (indices.empty()) continue;
      Json done = event(type, *decision.state.find(id));
      done["host"] = batch.host;
      done["ranges"] = ranges_to_json(indices.ranges());
      const auto tally = batch.tallies.find(id);
      if (type == "tasks_succeeded" && tally != batch.tallies.end()) done["tally"] = protocol::to_json(tally->second);
      decision.emit(std::move(done));
    }
    all.clear();
  };
  flush(batch.started, "tasks_started");
  flush(batch.succeeded, "tasks_succeeded");
}

}  // namespace capstan::controller
