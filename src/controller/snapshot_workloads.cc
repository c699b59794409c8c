// How it works: one pair of functions a struct. Ranks are rows of numbers, and hosts are numbers (of the topology), so
// that a large gang stays small.
#include <charconv>

#include "controller/decision.h"
#include "controller/input.h"
#include "controller/snapshot.h"
#include "protocol/fields.h"

namespace capstan::controller {
namespace {

using protocol::array_or_empty;
using protocol::bool_or;
using protocol::need_int;
using protocol::need_text;
using protocol::text_or;

// [host, phase, ready, clean, stopping, pid, port, began_ms, ended_ms]
Json put(const Rank& rank) {
  return Json::array({index(rank.host), static_cast<int>(rank.phase), rank.ready ? 1 : 0, rank.clean ? 1 : 0,
                      static_cast<int>(rank.stopping), rank.pid, rank.port, rank.began_ms, rank.ended_ms});
}

Result<StopWhy> stop_from(const Json& json) {
  CAPSTAN_TRY(const std::string name, text_or(json, "stopping", ""));
  if (const auto why = parse_stop(name)) return *why;
  return fail(Code::kCorrupt, "'{}' is no reason to stop", name);
}

Result<Rank> rank_from(const Json& json) {
  const bool fits = json.is_array() && json.size() == 9 &&
                    std::all_of(json.items().begin(), json.items().end(), [](const Json& item) { return item.is_int(); });
  if (!fits) return fail(Code::kCorrupt, "a rank is not nine numbers");
  const auto number = [&](std::size_t at) { return json.items()[at].as_int(); };
  if (number(1) < 0 || number(1) > 2 || !(number(4) >= 0 && number(4) <= static_cast<int>(StopWhy::kMove)))
    return fail(Code::kCorrupt, "a rank has no known phase");
  Rank rank;
  rank.host = HostId{static_cast<std::uint32_t>(number(0))};
  rank.phase = static_cast<Phase>(number(1));
  rank.ready = number(2) != 0;
  rank.clean = number(3) != 0;
  rank.stopping = static_cast<StopWhy>(number(4));
  rank.pid = static_cast<std::int32_t>(number(5));
  rank.port = static_cast<std::int32_t>(number(6));
  rank.began_ms = number(7);
  rank.ended_ms = number(8);
  return rank;
}

Json put(const Job& job) {
  Json ranks = Json::array(), slices = Json::array(), groups = Json::array(), exits = Json::array();
  for (const Rank& rank : job.ranks) ranks.push_back(put(rank));
  for (const auto& slice : job.slices) slices.push_back(Json::array({index(slice.host), slice.ranks, slice.gpus}));
  for (const auto& group : job.groups)
    groups.push_back(Json::object({{"ranks", group.ranks}, {"each", protocol::to_json(group.each)}}));
  for (const auto& [rank, exit] : job.exits) {
    Json json = exit_to_json(exit);
    json["rank"] = rank;
    exits.push_back(std::move(json));
  }
  Json json = Json::object({{"attempt", job.attempt},
                       {"restarts_used", job.restarts_used},
                       {"start_retries", job.start_retries},
                       {"preemptions", job.preemptions},
                       {"in_attempt", job.in_attempt},
                       {"ranks", std::move(ranks)},
                       {"slices", std::move(slices)},
                       {"groups", std::move(groups)},
                       {"exits", std::move(exits)},
                       {"master_port", job.master_port},
                       {"stopping", stop_name(job.stopping)},
                       {"failure", job.failure},
                       {"fatal", job.fatal},
                       {"start_failure", job.start_failure},
                       {"began_ms", job.began_ms},
                       {"served_ms", job.served_ms},
                       {"backoff_until_ms", job.backoff_until_ms}});
  if (!job.session.empty()) json["session"] = job.session;
  return json;
}

Result<fleet::Capacity> capacity_member(const Json& json, std::string_view key) {
  const Json* capacity = json.find(key);
  if (capacity == nullptr) return fail(Code::kCorrupt, "'{}' is absent", key);
  return protocol::capacity_from_json(*capacity);
}

Result<Job> job_from(const Json& json) {
  Job job;
  CAPSTAN_TRY(job.attempt, need_int(json, "attempt"));
  CAPSTAN_TRY(job.restarts_used, need_int(json, "restarts_used"));
  CAPSTAN_TRY(job.start_retries, need_int(json, "start_retries"));
  CAPSTAN_TRY(job.in_attempt, bool_or(json, "in_attempt", false));
  CAPSTAN_TRY(job.preemptions, need_int(json, "preemptions"));
  CAPSTAN_TRY(job.served_ms, need_int(json, "served_ms"));
  CAPSTAN_TRY(job.master_port, need_int(json, "master_port"));
  CAPSTAN_TRY(job.stopping, stop_from(json));
  CAPSTAN_TRY(job.failure, need_text(json, "failure"));
  CAPSTAN_TRY(job.fatal, bool_or(json, "fatal", false));
  CAPSTAN_TRY(job.start_failure, bool_or(json, "start_failure", false));
  CAPSTAN_TRY(job.session, text_or(json, "session", ""));
  CAPSTAN_TRY(job.began_ms, need_int(json, "began_ms"));
  CAPSTAN_TRY(job.backoff_until_ms, need_int(json, "backoff_until_ms"));
  CAPSTAN_TRY(const Json::Array ranks, array_or_empty(json, "ranks", SIZE_MAX));
  std::int64_t placed = 0;
  for (const Json& item : ranks) {
    CAPSTAN_TRY(Rank rank, rank_from(item));
    job.ranks.push_back(rank);
  }
  CAPSTAN_TRY(const Json::Array slices, array_or_empty(json, "slices", SIZE_MAX));
  for (const Json& item : slices) {
    if (!item.is_array() || item.size() != 3 || !item.items()[0].is_int() || !item.items()[1].is_int() ||
        !item.items()[2].is_int())
      return fail(Code::kCorrupt, "a slice is not three numbers");
    job.slices.push_back({HostId{static_cast<std::uint32_t>(item.items()[0].as_int())}, item.items()[1].as_int(),
                          static_cast<scheduler::GpuSet>(item.items()[2].as_int())});
    placed += job.slices.back().ranks;
  }
  CAPSTAN_TRY(const Json::Array groups, array_or_empty(json, "groups", SIZE_MAX));
  for (const Json& item : groups) {
    RankGroup group;
    CAPSTAN_TRY(group.ranks, need_int(item, "ranks"));
    CAPSTAN_TRY(group.each, capacity_member(item, "each"));
    placed -= group.ranks;
    job.groups.push_back(group);
  }
  if (placed != 0) return fail(Code::kCorrupt, "a gang's slices do not hold its ranks");
  CAPSTAN_TRY(const Json::Array exits, array_or_empty(json, "exits", SIZE_MAX));
  for (const Json& item : exits) {
    CAPSTAN_TRY(const std::int64_t rank, need_int(item, "rank"));
    CAPSTAN_TRY(job.exits[rank], exit_from_json(item));
  }
  return job;
}

Json put(const Service& service) {
  Json list = Json::array();
  for (const auto& [index, replica] : service.replicas) {
    list.push_back(Json::object({{"index", index},
                                 {"attempt", replica.attempt},
                                 {"generation", replica.generation},
                                 {"failures", replica.failures},
                                 {"backoff_until_ms", replica.backoff_until_ms},
                                 {"held", protocol::to_json(replica.held)},
                                 {"gpus", replica.gpus},
                                 {"ready_ms", replica.ready_ms},
                                 {"address", replica.address},
                                 {"exit", exit_to_json(replica.exit)},
                                 {"rank", put(replica.rank)}}));
  }
  return list;
}

Result<Service> service_from(const Json& json) {
  Service service;
  for (const Json& item : json.items()) {
    CAPSTAN_TRY(const std::int64_t index, need_int(item, "index"));
    Replica& replica = service.replicas[index];
    CAPSTAN_TRY(replica.attempt, need_int(item, "attempt"));
    CAPSTAN_TRY(replica.generation, need_int(item, "generation"));
    CAPSTAN_TRY(replica.failures, need_int(item, "failures"));
    CAPSTAN_TRY(replica.backoff_until_ms, need_int(item, "backoff_until_ms"));
    CAPSTAN_TRY(replica.held, capacity_member(item, "held"));
    CAPSTAN_TRY(const std::int64_t gpus, need_int(item, "gpus", 0, UINT32_MAX));
    replica.gpus = static_cast<scheduler::GpuSet>(gpus);
    CAPSTAN_TRY(replica.ready_ms, need_int(item, "ready_ms"));
    CAPSTAN_TRY(replica.address, need_text(item, "address"));
    const Json* rank = item.find("rank");
    const Json* exit = item.find("exit");
    if (rank == nullptr || exit == nullptr) return fail(Code::kCorrupt, "'rank' or 'exit' is absent");
    CAPSTAN_TRY(replica.exit, exit_from_json(*exit));
    CAPSTAN_TRY(replica.rank, rank_from(*rank));
  }
  return service;
}

Json put(const Tasks& tasks) {
  Json retried = Json::array();
  for (const auto& [index, task] : tasks.retried) {
    retried.push_back(Json::object({{"index", index},
                                    {"attempt", task.attempt},
                                    {"failures", task.failures},
                                    {"not_before_ms", task.not_before_ms}}));
  }
  Json json = Json::object({{"pending", ranges_to_json(tasks.pending.ranges())},
                            {"succeeded", ranges_to_json(tasks.succeeded.ranges())},
                            {"failed", ranges_to_json(tasks.failed.ranges())},
                            {"retried", std::move(retried)},
                            {"began_ms", tasks.began_ms},
                            {"last_failure", tasks.last_failure}});
  if (tasks.tally != protocol::TaskTally{}) json["tally"] = protocol::to_json(tasks.tally);
  return json;
}

Result<IntervalSet> set_from(const Json& json, std::string_view key) {
  const Json* member = json.find(key);
  if (member == nullptr) return fail(Code::kCorrupt, "'{}' is absent", key);
  CAPSTAN_TRY(const std::vector<Range> ranges, ranges_from_json(*member));
  IntervalSet set;
  for (const Range& range : ranges) set.insert(range.begin, range.end);
  return set;
}

Result<Tasks> tasks_from(const Json& json) {
  Tasks tasks;
  CAPSTAN_TRY(tasks.pending, set_from(json, "pending"));
  CAPSTAN_TRY(tasks.succeeded, set_from(json, "succeeded"));
  CAPSTAN_TRY(tasks.failed, set_from(json, "failed"));
  CAPSTAN_TRY(tasks.began_ms, need_int(json, "began_ms"));
  CAPSTAN_TRY(const Json::Array retried, array_or_empty(json, "retried", SIZE_MAX));
  for (const Json& item : retried) {
    CAPSTAN_TRY(const std::int64_t index, need_int(item, "index"));
    RetriedTask& task = tasks.retried[index];
    CAPSTAN_TRY(task.attempt, need_int(item, "attempt", 1));
    CAPSTAN_TRY(task.failures, need_int(item, "failures"));
    CAPSTAN_TRY(task.not_before_ms, need_int(item, "not_before_ms", -1));
    if (task.not_before_ms >= 0) tasks.waiting.insert({task.not_before_ms, index});
  }
  CAPSTAN_TRY(tasks.last_failure, need_text(json, "last_failure"));
  if (const Json* tally = json.find("tally")) {
    CAPSTAN_TRY(tasks.tally, protocol::task_tally_from_json(*tally));
  }
  return tasks;
}

}  // namespace

Json workload_to_json(const Workload& workload) {
  Json json = Json::object({{"id", workload.id},
                            {"spec", workload::to_json(workload.spec)},
                            {"generation", workload.generation},
                            {"created_ms", workload.created_ms},
                            {"ended_ms", workload.ended_ms},
                            {"state", state_name(workload.state)},
                            {"reason", workload.reason},
                            {"cancelling", workload.cancelling},
                            {"hold", scheduler::hold_name(workload.hold)}});
  switch (workload.spec.kind) {
    case workload::Kind::kJob:
    case workload::Kind::kSandbox:
      json["job"] = put(workload.job);
      break;
    case workload::Kind::kService:
      json["replicas"] = put(workload.service);
      break;
    case workload::Kind::kTasks:
      json["tasks"] = put(workload.tasks);
      break;
  }
  return json;
}

Result<Workload> workload_from_json(const Json& json) {
  Workload workload;
  CAPSTAN_TRY(workload.id, need_int(json, "id", 1));
  const Json* spec = json.find("spec");
  if (spec == nullptr) return fail(Code::kCorrupt, "'spec' is absent");
  CAPSTAN_TRY(workload.spec, workload::from_json(*spec));
  CAPSTAN_TRY(workload.generation, need_int(json, "generation", 1));
  CAPSTAN_TRY(workload.created_ms, need_int(json, "created_ms"));
  CAPSTAN_TRY(workload.ended_ms, need_int(json, "ended_ms"));
  CAPSTAN_TRY(const std::string state, need_text(json, "state"));
  const auto parsed = parse_state(state);
  if (!parsed) return fail(Code::kCorrupt, "'{}' is no state", state);
  workload.state = *parsed;
  CAPSTAN_TRY(workload.reason, need_text(json, "reason"));
  CAPSTAN_TRY(workload.cancelling, bool_or(json, "cancelling", false));
  CAPSTAN_TRY(workload.hold, hold_from(json));
  constexpr std::string_view kParts[] = {"job", "replicas", "tasks", "job"};
  const Json* part = json.find(kParts[static_cast<std::size_t>(workload.spec.kind)]);
  if (part == nullptr) return fail(Code::kCorrupt, "workload {} has no body", workload.id);
  if (workload.spec.is_gang()) {
    CAPSTAN_TRY(workload.job, job_from(*part));
  } else if (workload.spec.kind == workload::Kind::kService) {
    CAPSTAN_TRY(workload.service, service_from(*part));
  } else {
    CAPSTAN_TRY(workload.tasks, tasks_from(*part));
  }
  return workload;
}

void write_runs(const Workload& workload, const TextSink& sink) {
  std::string text;
  std::size_t hosts = 0;
  const auto flush = [&] {
    if (hosts == 0) return;
    sink(Json::object({{"runs", workload.id}, {"of", std::move(text)}}).dump());
    sink("\n");
    text.clear();
    hosts = 0;
  };
  for (const auto& [host, runs] : workload.tasks.runs) {
    text += fmt::format("{}:", index(host));
    for (const TaskRun& run : runs) {
      text += fmt::format("{}-{}/{}/{}/{}/{},", run.begin, run.end, run.attempt, run.started ? 1 : 0,
                          static_cast<int>(run.stopping), run.gpus);
    }
    text.back() = ';';
    if (++hosts == kHostsPerLine) flush();
  }
  flush();
}

Result<void> read_runs(Workload& workload, std::string_view text) {
  const char* at = text.data();
  const char* const end = at + text.size();
  bool fits = true;
  // One number and the mark that follows it.
  const auto number = [&](std::string_view marks) {
    std::int64_t value = 0;
    const auto read = std::from_chars(at, end, value);
    fits = fits && read.ec == std::errc() && read.ptr < end && marks.find(*read.ptr) != marks.npos;
    if (fits) at = read.ptr + 1;
    return value;
  };
  while (fits && at < end) {
    const HostId host{static_cast<std::uint32_t>(number(":"))};
    auto& runs = workload.tasks.runs[host];
    do {
      TaskRun run;
      run.begin = number("-");
      run.end = number("/");
      run.attempt = static_cast<std::int32_t>(number("/"));
      run.started = number("/") != 0;
      run.stopping = static_cast<StopWhy>(number("/"));
      run.gpus = static_cast<scheduler::GpuSet>(number(",;"));
      fits = fits && run.begin >= 0 && run.begin < run.end && run.stopping <= StopWhy::kMove;
      if (fits) runs.push_back(run);
    } while (fits && at[-1] == ',');
  }
  if (!fits) return fail(Code::kCorrupt, "the running tasks of workload {} cannot be read", workload.id);
  return {};
}

}  // namespace capstan::controller
