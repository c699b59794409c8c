// How it works: one pair of functions a struct. Reading ends by rebuilding what is computed: names, timers,
// what hosts hold.
#include "controller/state_json.h"

#include "controller/decision.h"
#include "controller/input.h"
#include "protocol/fields.h"

namespace capstan::controller {
namespace {

using protocol::array_or_empty;
using protocol::bool_or;
using protocol::need_int;
using protocol::need_text;
using protocol::text_or;

Json put(const Rank& rank) {
  Json json = Json::object({{"host", rank.host},
                            {"phase", phase_name(rank.phase)},
                            {"ready", rank.ready},
                            {"stopping", stop_name(rank.stopping)},
                            {"pid", rank.pid},
                            {"port", rank.port},
                            {"began_ms", rank.began_ms},
                            {"ready_ms", rank.ready_ms},
                            {"ended_ms", rank.ended_ms},
                            {"address", rank.address}});
  if (!rank.live()) json["exit"] = exit_to_json(rank.exit);
  return json;
}

Result<StopWhy> stop_from(const Json& json) {
  CAPSTAN_TRY(const std::string name, text_or(json, "stopping", ""));
  if (const auto why = parse_stop(name)) return *why;
  return fail(Code::kCorrupt, "'{}' is no reason to stop", name);
}

Result<Rank> rank_from(const Json& json) {
  Rank rank;
  CAPSTAN_TRY(rank.host, need_text(json, "host"));
  CAPSTAN_TRY(const std::string phase, need_text(json, "phase"));
  rank.phase = phase == "starting" ? Phase::kStarting : phase == "running" ? Phase::kRunning : Phase::kEnded;
  CAPSTAN_TRY(rank.ready, bool_or(json, "ready", false));
  CAPSTAN_TRY(rank.stopping, stop_from(json));
  CAPSTAN_TRY(rank.pid, need_int(json, "pid", -1));
  CAPSTAN_TRY(rank.port, need_int(json, "port"));
  CAPSTAN_TRY(rank.began_ms, need_int(json, "began_ms"));
  CAPSTAN_TRY(rank.ready_ms, need_int(json, "ready_ms"));
  CAPSTAN_TRY(rank.ended_ms, need_int(json, "ended_ms"));
  CAPSTAN_TRY(rank.address, need_text(json, "address"));
  if (const Json* exit = json.find("exit")) {
    CAPSTAN_TRY(rank.exit, exit_from_json(*exit));
  }
  return rank;
}

Json put(const Job& job) {
  Json ranks = Json::array(), slices = Json::array();
  for (const Rank& rank : job.ranks) ranks.push_back(put(rank));
  for (const auto& slice : job.slices)
    slices.push_back(Json::object({{"host", slice.host}, {"ranks", slice.ranks}}));
  return Json::object({{"attempt", job.attempt},
                       {"restarts_used", job.restarts_used},
                       {"start_retries", job.start_retries},
                       {"in_attempt", job.in_attempt},
                       {"ranks", std::move(ranks)},
                       {"slices", std::move(slices)},
                       {"each", protocol::to_json(job.each)},
                       {"master_port", job.master_port},
                       {"stopping", stop_name(job.stopping)},
                       {"failure", job.failure},
                       {"fatal", job.fatal},
                       {"start_failure", job.start_failure},
                       {"began_ms", job.began_ms},
                       {"backoff_until_ms", job.backoff_until_ms}});
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
  CAPSTAN_TRY(job.each, capacity_member(json, "each"));
  CAPSTAN_TRY(job.master_port, need_int(json, "master_port"));
  CAPSTAN_TRY(job.stopping, stop_from(json));
  CAPSTAN_TRY(job.failure, need_text(json, "failure"));
  CAPSTAN_TRY(job.fatal, bool_or(json, "fatal", false));
  CAPSTAN_TRY(job.start_failure, bool_or(json, "start_failure", false));
  CAPSTAN_TRY(job.began_ms, need_int(json, "began_ms"));
  CAPSTAN_TRY(job.backoff_until_ms, need_int(json, "backoff_until_ms"));
  CAPSTAN_TRY(const Json::Array ranks, array_or_empty(json, "ranks", SIZE_MAX));
  for (const Json& item : ranks) {
    CAPSTAN_TRY(Rank rank, rank_from(item));
    job.live += rank.live();
    job.running += rank.phase == Phase::kRunning;
    job.ranks.push_back(std::move(rank));
  }
  CAPSTAN_TRY(const Json::Array slices, array_or_empty(json, "slices", SIZE_MAX));
  for (const Json& item : slices) {
    scheduler::Slice slice;
    CAPSTAN_TRY(slice.host, need_text(item, "host"));
    CAPSTAN_TRY(slice.ranks, need_int(item, "ranks", 1));
    job.slices.push_back(std::move(slice));
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
    const Json* rank = item.find("rank");
    if (rank == nullptr) return fail(Code::kCorrupt, "'rank' is absent");
    CAPSTAN_TRY(replica.rank, rank_from(*rank));
  }
  return service;
}

Json put(const Tasks& tasks) {
  Json running = Json::array(), retried = Json::array();
  for (const auto& [index, task] : tasks.running) {
    running.push_back(Json::object({{"index", index},
                                    {"attempt", task.attempt},
                                    {"host", task.host},
                                    {"started", task.started},
                                    {"stopping", stop_name(task.stopping)}}));
  }
  for (const auto& [index, task] : tasks.retried) {
    retried.push_back(Json::object({{"index", index},
                                    {"attempt", task.attempt},
                                    {"failures", task.failures},
                                    {"not_before_ms", task.not_before_ms}}));
  }
  return Json::object({{"pending", ranges_to_json(tasks.pending.ranges())},
                       {"succeeded", ranges_to_json(tasks.succeeded.ranges())},
                       {"failed", ranges_to_json(tasks.failed.ranges())},
                       {"running", std::move(running)},
                       {"retried", std::move(retried)},
                       {"last_failure", tasks.last_failure}});
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
  CAPSTAN_TRY(const Json::Array running, array_or_empty(json, "running", SIZE_MAX));
  for (const Json& item : running) {
    CAPSTAN_TRY(const std::int64_t index, need_int(item, "index"));
    RunningTask& task = tasks.running[index];
    CAPSTAN_TRY(task.attempt, need_int(item, "attempt", 1));
    CAPSTAN_TRY(task.host, need_text(item, "host"));
    CAPSTAN_TRY(task.started, bool_or(item, "started", false));
    CAPSTAN_TRY(task.stopping, stop_from(item));
  }
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
  return tasks;
}

Json put(const Workload& workload) {
  Json json = Json::object({{"id", workload.id},
                            {"spec", workload::to_json(workload.spec)},
                            {"generation", workload.generation},
                            {"created_ms", workload.created_ms},
                            {"ended_ms", workload.ended_ms},
                            {"state", state_name(workload.state)},
                            {"reason", workload.reason},
                            {"cancelling", workload.cancelling}});
  switch (workload.spec.kind) {
    case workload::Kind::kJob:
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

Result<Workload> workload_from(const Json& json) {
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
  constexpr std::string_view kParts[] = {"job", "replicas", "tasks"};
  const Json* part = json.find(kParts[static_cast<std::size_t>(workload.spec.kind)]);
  if (part == nullptr) return fail(Code::kCorrupt, "workload {} has no body", workload.id);
  if (workload.spec.kind == workload::Kind::kJob) {
    CAPSTAN_TRY(workload.job, job_from(*part));
  } else if (workload.spec.kind == workload::Kind::kService) {
    CAPSTAN_TRY(workload.service, service_from(*part));
  } else {
    CAPSTAN_TRY(workload.tasks, tasks_from(*part));
  }
  return workload;
}

Json put(const std::string& name, const Host& host) {
  return Json::object({{"name", name},
                       {"capacity", protocol::to_json(host.capacity)},
                       {"health", health_name(host.health)},
                       {"incarnation", host.incarnation},
                       {"build", host.build},
                       {"logs_url", host.logs_url},
                       {"capabilities", protocol::to_json(host.capabilities)},
                       {"port_next", host.port_next}});
}

Result<void> host_from(State& state, const Json& json) {
  CAPSTAN_TRY(const std::string name, need_text(json, "name"));
  Host& host = state.hosts[name];
  CAPSTAN_TRY(host.capacity, capacity_member(json, "capacity"));
  CAPSTAN_TRY(const std::string health, need_text(json, "health"));
  CAPSTAN_TRY(host.health, parse_health(health));
  CAPSTAN_TRY(host.incarnation, need_text(json, "incarnation"));
  CAPSTAN_TRY(host.build, need_text(json, "build"));
  CAPSTAN_TRY(host.logs_url, need_text(json, "logs_url"));
  CAPSTAN_TRY(host.capabilities, protocol::capabilities_from_json(json, "capabilities"));
  CAPSTAN_TRY(host.port_next, need_int(json, "port_next", kPortMin, kPortMax));
  state.inventory.set_host({name, host.capacity, host.health});
  return {};
}

// Names, timers, and what live ranks hold.
void rebuild(State& state, Workload& workload) {
  if (!has_ended(workload.state) || !state.by_name.contains(workload.spec.name))
    state.by_name[workload.spec.name] = workload.id;
  if (has_ended(workload.state)) state.ended.insert({workload.ended_ms, workload.id});
  for (std::size_t i = 0; i < workload.job.ranks.size(); ++i) {
    const Rank& rank = workload.job.ranks[i];
    const RankId id{workload.id, workload.job.attempt, static_cast<std::int64_t>(i)};
    if (rank.live()) state.hold(rank.host, id, workload.job.each, i == 0 ? workload.job.master_port : 0);
  }
  for (const auto& [index, replica] : workload.service.replicas) {
    if (replica.rank.live())
      state.hold(replica.rank.host, {workload.id, replica.attempt, index}, replica.held, replica.rank.port);
  }
  for (const auto& [index, task] : workload.tasks.running)
    state.hold(task.host, {workload.id, task.attempt, index}, workload.each(), 0);
  state.update_deadline(workload);
}

}  // namespace

Json state_to_json(const State& state) {
  Json hosts = Json::array(), workloads = Json::array();
  for (const auto& [name, host] : state.hosts) hosts.push_back(put(name, host));
  for (const auto& [id, workload] : state.workloads) workloads.push_back(put(workload));
  return Json::object({{"format", 1},
                       {"epoch", state.epoch},
                       {"build", state.build},
                       {"time_ms", state.time_ms},
                       {"event_last", state.event_last},
                       {"next_id", state.next_id},
                       {"draining", state.draining},
                       {"hosts", std::move(hosts)},
                       {"workloads", std::move(workloads)}});
}

Result<State> state_from_json(const Json& json) {
  State state;
  CAPSTAN_TRY(const std::int64_t format, need_int(json, "format"));
  if (format != 1)
    return fail(Code::kUnsupported, "a snapshot has format {}, this build reads format 1", format);
  CAPSTAN_TRY(state.epoch, need_int(json, "epoch"));
  CAPSTAN_TRY(state.build, need_text(json, "build"));
  CAPSTAN_TRY(state.time_ms, need_int(json, "time_ms"));
  CAPSTAN_TRY(state.event_last, need_int(json, "event_last"));
  CAPSTAN_TRY(state.next_id, need_int(json, "next_id", 1));
  CAPSTAN_TRY(state.draining, bool_or(json, "draining", false));
  CAPSTAN_TRY(const Json::Array hosts, array_or_empty(json, "hosts", SIZE_MAX));
  for (const Json& item : hosts) CAPSTAN_CHECK(host_from(state, item));
  std::map<std::string, std::int64_t> port_next;
  for (const auto& [name, host] : state.hosts) port_next[name] = host.port_next;
  CAPSTAN_TRY(const Json::Array workloads, array_or_empty(json, "workloads", SIZE_MAX));
  for (const Json& item : workloads) {
    CAPSTAN_TRY(Workload workload, workload_from(item));
    const std::int64_t id = workload.id;
    rebuild(state, state.workloads[id] = std::move(workload));
  }
  for (auto& [name, host] : state.hosts) {
    if (const auto at = port_next.find(name); at != port_next.end()) host.port_next = at->second;
  }
  return state;
}

}  // namespace capstan::controller
