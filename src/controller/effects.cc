// How it works: a start is composed from spec and placement alone, so it can be composed again for a worker
// that lost it.
#include "controller/effects.h"

#include <algorithm>
#include <map>

#include "base/assert.h"

namespace capstan::controller {
namespace {

using Env = std::map<std::string, std::string>;

std::string text(std::int64_t number) { return std::to_string(number); }

// torchrun's variables: torch.distributed.run's own list.
void add_gang_env(Env& env, const Workload& workload, std::int64_t rank) {
  const Job& job = workload.job;
  const auto world = static_cast<std::int64_t>(job.ranks.size());
  std::int64_t node = 0, first = 0;
  while (first + job.slices[static_cast<std::size_t>(node)].ranks <= rank)
    first += job.slices[static_cast<std::size_t>(node++)].ranks;
  const auto& slice = job.slices[static_cast<std::size_t>(node)];
  const bool one_host = job.slices.size() == 1;
  env["RANK"] = env["ROLE_RANK"] = text(rank);
  env["WORLD_SIZE"] = env["ROLE_WORLD_SIZE"] = text(world);
  env["LOCAL_RANK"] = text(rank - first);
  env["LOCAL_WORLD_SIZE"] = text(slice.ranks);
  env["GROUP_RANK"] = env["NODE_RANK"] = text(node);
  env["GROUP_WORLD_SIZE"] = text(static_cast<std::int64_t>(job.slices.size()));
  env["MASTER_ADDR"] = one_host ? "127.0.0.1" : job.slices.front().host;
  env["MASTER_PORT"] = text(job.master_port);
  env["TORCHELASTIC_RESTART_COUNT"] = text(job.restarts_used);
  env["TORCHELASTIC_MAX_RESTARTS"] = text(workload.spec.restarts.budget);
  env["TORCHELASTIC_RUN_ID"] = fmt::format("{}-{}", workload.spec.name, workload.id);
  env["TORCHELASTIC_USE_AGENT_STORE"] = "False";
  env["OMP_NUM_THREADS"] = text(std::max<std::int64_t>(1, workload.spec.resources.milli_cpus / 1000));
}

void add_task_env(Env& env, const Workload& workload, const RankId& id) {
  env["CAPSTAN_TASK_INDEX"] = text(id.rank);
  env["CAPSTAN_TASK_COUNT"] = text(workload.spec.count);
  env["CAPSTAN_TASK_ATTEMPT"] = text(id.attempt);
}

std::vector<std::string> engine_command(const workload::Spec& spec, std::int64_t port) {
  const std::string& model = spec.engine->model;
  std::vector<std::string> command = {
      "capstan-engine", "serve",
      "--model",        model.starts_with('/') ? model : "${CAPSTAN_SHARE}/models/" + model,
      "--host",         "127.0.0.1",
      "--port",         text(port),
      "--served-name",  spec.model_name.empty() ? spec.name : spec.model_name};
  if (spec.engine->context > 0) {
    command.emplace_back("--context");
    command.push_back(text(spec.engine->context));
  }
  return command;
}

protocol::HealthProbe probe_of(const workload::HealthCheck& check) {
  return {check.path, check.interval_ms, check.timeout_ms, check.start_timeout_ms};
}

// Where a live rank is, and whether it is on its way out.
struct Place {
  std::string host;
  Phase phase = Phase::kStarting;
  StopWhy stopping = StopWhy::kNone;
};

Place place_of(const State& state, const RankId& id) {
  const Workload* workload = state.find(id.job);
  CAPSTAN_ASSERT(workload != nullptr);
  if (workload->spec.kind == workload::Kind::kTasks) {
    const RunningTask& task = workload->tasks.running.at(id.rank);
    return {task.host, task.started ? Phase::kRunning : Phase::kStarting, task.stopping};
  }
  const Rank& rank = workload->spec.kind == workload::Kind::kJob
                         ? workload->job.ranks.at(static_cast<std::size_t>(id.rank))
                         : workload->service.replicas.at(id.rank).rank;
  return {rank.host, rank.phase, rank.stopping};
}

protocol::Effect stop_effect(const State& state, const RankId& id, StopWhy why) {
  return {0, id, protocol::StopRank{state.find(id.job)->spec.grace_ms, std::string(stop_name(why))}};
}

}  // namespace

protocol::Effect start_effect(const State& state, const RankId& id) {
  const Workload* workload = state.find(id.job);
  CAPSTAN_ASSERT(workload != nullptr);
  const workload::Spec& spec = workload->spec;
  protocol::StartRank start;
  start.name = spec.name;
  start.kind = workload::kind_name(spec.kind);
  start.tenant = spec.tenant;
  start.user = spec.user;
  start.command = spec.command;
  start.workdir = spec.workdir;
  start.resources = workload->each();
  start.grace_ms = spec.grace_ms;
  Env env = {{"CAPSTAN_JOB", spec.name},
             {"CAPSTAN_JOB_ID", text(id.job)},
             {"CAPSTAN_ATTEMPT", text(id.attempt)},
             {"CAPSTAN_RANK", text(id.rank)}};
  switch (spec.kind) {
    case workload::Kind::kJob:
      add_gang_env(env, *workload, id.rank);
      start.resources = workload->job.each;
      break;
    case workload::Kind::kService: {
      const Replica& replica = workload->service.replicas.at(id.rank);
      start.resources = replica.held;
      start.port = replica.rank.port;
      env["PORT"] = text(start.port);
      if (spec.health) start.health = probe_of(*spec.health);
      if (spec.engine) {
        start.command = engine_command(spec, start.port);
        if (!start.health) start.health = probe_of({});
      }
      break;
    }
    case workload::Kind::kTasks:
      add_task_env(env, *workload, id);
      start.timeout_ms = spec.timeout_ms;
      break;
  }
  for (const auto& [name, value] : spec.env) env[name] = value;  // the person's word is the last
  start.env.assign(env.begin(), env.end());
  return {0, id, std::move(start)};
}

void append_effects(const State& state, const Json& event, std::vector<HostEffect>& effects) {
  const std::string type = event.get_string("type").value_or("");
  const std::int64_t job_id = event.get_int("job").value_or(0);
  const std::int64_t attempt = event.get_int("attempt").value_or(0);
  const std::int64_t rank = event.get_int("rank").value_or(0);
  const Workload* workload = state.find(job_id);
  const auto start = [&](const std::string& host, const RankId& id) {
    effects.push_back({host, start_effect(state, id)});
  };
  const auto stop = [&](const std::string& host, const RankId& id, StopWhy why) {
    effects.push_back({host, stop_effect(state, id, why)});
  };
  if (type == "attempt_began" || type == "attempt_stopping") {
    const auto& ranks = workload->job.ranks;
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      const RankId id{job_id, attempt, static_cast<std::int64_t>(i)};
      if (type == "attempt_began") start(ranks[i].host, id);
      if (type == "attempt_stopping" && ranks[i].live()) stop(ranks[i].host, id, ranks[i].stopping);
    }
  } else if (type == "replica_began") {
    start(workload->service.replicas.at(rank).rank.host, {job_id, attempt, rank});
  } else if (type == "replica_stopping") {
    const Rank& replica = workload->service.replicas.at(rank).rank;
    stop(replica.host, {job_id, attempt, rank}, replica.stopping);
  } else if (type == "tasks_began") {
    const auto ranges = ranges_from_json(*event.find("ranges"));
    for (const Range& range : *ranges) {
      for (std::int64_t index = range.begin; index < range.end; ++index)
        start(*event.get_string("host"), {job_id, attempt, index});
    }
  } else if (type == "tasks_stopping") {
    for (const auto& [index, task] : workload->tasks.running)
      stop(task.host, {job_id, task.attempt, index}, task.stopping);
  }
}

Reconciliation reconcile(const State& state, const std::string& host,
                         const std::vector<protocol::RankStatus>& ranks) {
  Reconciliation result;
  std::map<RankId, protocol::RankPhase> there;
  for (const auto& status : ranks) there.emplace(status.id, status.phase);
  static const std::set<RankId> kNone;
  const auto known = state.hosts.find(host);
  const std::set<RankId>& wanted = known == state.hosts.end() ? kNone : known->second.ranks;
  // What is to end comes first, so that what starts finds room.
  for (const auto& [id, phase] : there) {
    if (wanted.contains(id)) continue;
    if (phase == protocol::RankPhase::kExited) {
      result.effects.push_back({0, id, protocol::ForgetRank{}});
    } else {
      result.effects.push_back({0, id, protocol::StopRank{10'000, "the controller does not know it"}});
      result.leftovers.push_back(id);
    }
  }
  for (const RankId& id : wanted) {
    const Place place = place_of(state, id);
    const auto at = there.find(id);
    if (at == there.end() && place.phase == Phase::kRunning) {
      protocol::RankExited exit;
      exit.lost = true;
      exit.message = "its host has no record of it";
      result.lost.push_back({1, id, exit});
    } else if (place.stopping != StopWhy::kNone) {
      result.effects.push_back(stop_effect(state, id, place.stopping));
    } else if (at == there.end() || at->second != protocol::RankPhase::kRunning ||
               place.phase != Phase::kRunning) {
      result.effects.push_back(
          start_effect(state, id));  // or, if it started before, the worker says again what it knows
    }
  }
  return result;
}

}  // namespace capstan::controller
