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

// torchrun's variables: torch.distributed.run's own list. Helpers know the gang, and who they are beside it.
void add_gang_env(const State& state, Env& env, const Workload& workload, std::int64_t rank) {
  const Job& job = workload.job;
  const std::int64_t world = job.groups.front().ranks;
  std::int64_t nodes = 0, node = 0, first = 0, local_size = 0;
  std::int64_t begin = 0;
  for (const auto& slice : job.slices) {
    if (begin < world) ++nodes;
    if (rank >= begin && rank < begin + slice.ranks) {
      node = nodes - 1;
      first = begin;
      local_size = slice.ranks;
    }
    begin += slice.ranks;
  }
  env["WORLD_SIZE"] = env["ROLE_WORLD_SIZE"] = text(world);
  env["GROUP_WORLD_SIZE"] = text(nodes);
  env["MASTER_ADDR"] = job.slices.size() == 1 ? "127.0.0.1" : state.name(job.slices.front().host);
  env["MASTER_PORT"] = text(job.master_port);
  if (rank < world) {
    env["RANK"] = env["ROLE_RANK"] = text(rank);
    env["LOCAL_RANK"] = text(rank - first);
    env["LOCAL_WORLD_SIZE"] = text(local_size);
    env["GROUP_RANK"] = env["NODE_RANK"] = text(node);
  } else {
    env["CAPSTAN_HELPER_RANK"] = text(rank - world);
    env["CAPSTAN_HELPER_COUNT"] = text(job.groups.back().ranks);
  }
  env["TORCHELASTIC_RESTART_COUNT"] = text(job.restarts_used);
  env["TORCHELASTIC_MAX_RESTARTS"] = text(workload.spec.restarts.budget);
  env["TORCHELASTIC_RUN_ID"] = fmt::format("{}-{}", workload.spec.name, workload.id);
  env["TORCHELASTIC_USE_AGENT_STORE"] = "False";
  env["OMP_NUM_THREADS"] = text(std::max<std::int64_t>(1, job.each(rank).milli_cpus / 1000));
}

// Which GPUs are its own: what CUDA, and everything on top of it, goes by.
void add_gpu_env(Env& env, scheduler::GpuSet gpus) {
  if (gpus == 0) return;
  std::string list;
  for (int gpu = 0; gpu < 32; ++gpu) {
    if ((gpus >> gpu & 1) != 0) list += (list.empty() ? "" : ",") + std::to_string(gpu);
  }
  env["CUDA_VISIBLE_DEVICES"] = list;
}

void add_task_env(Env& env, const Workload& workload, const RankId& id) {
  env["CAPSTAN_TASK_INDEX"] = text(id.rank);
  env["CAPSTAN_TASK_COUNT"] = text(workload.spec.count);
  env["CAPSTAN_TASK_ATTEMPT"] = text(id.attempt);
}

// The worker gives each task of the chunk what is its own.
void make_chunk(const Workload& workload, const RankId& id, protocol::StartRank& start, Env& env) {
  const workload::Spec& spec = workload.spec;
  for (const char* name : {"CAPSTAN_ATTEMPT", "CAPSTAN_RANK", "CAPSTAN_TASK_INDEX", "CAPSTAN_TASK_ATTEMPT"}) env.erase(name);
  const std::int64_t first = id.rank * spec.chunk();
  start.chunk = protocol::TaskChunk{first, std::min(spec.chunk(), spec.count - first), spec.retries,
                                    spec.restarts.backoff_ms, workload::to_json(*spec.sandbox, false)};
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
  HostId host{};
  Phase phase = Phase::kEnded;
  StopWhy stopping = StopWhy::kNone;
  scheduler::GpuSet gpus = 0;
};

// kEnded if that attempt of the rank does not live (any more).
Place place_of(const State& state, const RankId& id, std::optional<HostId> host) {
  const Workload* workload = state.find(id.job);
  if (workload == nullptr) return {};
  switch (workload->spec.kind) {
    case workload::Kind::kJob:
    case workload::Kind::kSandbox: {
      const Job& job = workload->job;
      if (job.attempt != id.attempt || id.rank >= static_cast<std::int64_t>(job.ranks.size())) return {};
      const Rank& rank = job.ranks[static_cast<std::size_t>(id.rank)];
      return {rank.host, rank.phase, rank.stopping, rank_gpus(job, id.rank)};
    }
    case workload::Kind::kService: {
      const auto at = workload->service.replicas.find(id.rank);
      if (at == workload->service.replicas.end() || at->second.attempt != id.attempt) return {};
      return {at->second.rank.host, at->second.rank.phase, at->second.rank.stopping, at->second.gpus};
    }
    case workload::Kind::kTasks: {
      const Tasks::Found found = host ? Tasks::Found{*host, workload->tasks.find_on(*host, id.rank)}
                                      : workload->tasks.find(id.rank);
      if (found.run == nullptr || found.run->attempt != id.attempt) return {};
      return {found.host, found.run->started ? Phase::kRunning : Phase::kStarting, found.run->stopping,
              found.run->gpus};
    }
  }
  return {};
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
      add_gang_env(state, env, *workload, id.rank);
      start.resources = workload->job.each(id.rank);
      if (spec.helpers && id.rank >= workload->job.groups.front().ranks && !spec.helpers->command.empty())
        start.command = spec.helpers->command;
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
      if (spec.sandbox) make_chunk(*workload, id, start, env);
      break;
    case workload::Kind::kSandbox:
      env.erase("CAPSTAN_RANK");
      start.session = workload::to_json(spec.session, true);
      break;
  }
  add_gpu_env(env, place_of(state, id, std::nullopt).gpus);
  for (const auto& [name, value] : spec.env) env[name] = value;  // the person's word is the last
  start.env.assign(env.begin(), env.end());
  return {0, id, std::move(start)};
}

namespace {

// One effect for each run of consecutive live ranks on a slice.
void stop_gang(const Workload& workload, std::vector<HostEffect>& effects) {
  const Job& job = workload.job;
  std::int64_t rank = 0;
  for (const auto& slice : job.slices) {
    HostEffect stop{slice.host, HostEffect::Kind::kStop, job.stopping, workload.id, job.attempt, rank, 0};
    for (std::int64_t i = 0; i < slice.ranks; ++i, ++rank) {
      if (job.ranks[static_cast<std::size_t>(rank)].live()) {
        if (stop.count++ == 0) stop.first = rank;
      } else if (stop.count > 0) {
        effects.push_back(stop);
        stop.count = 0;
      }
    }
    if (stop.count > 0) effects.push_back(stop);
  }
}

}  // namespace

void append_effects(const State& state, const Json& event, std::vector<HostEffect>& effects) {
  const Json* type_member = event.find("type");
  const std::string& type = type_member->as_string();
  const bool ranks = type.starts_with("attempt_") || type.starts_with("replica_") || type.starts_with("tasks_");
  if (!ranks) return;
  using Kind = HostEffect::Kind;
  const std::int64_t job_id = event.get_int("job").value_or(0);
  const std::int64_t attempt = event.get_int("attempt").value_or(0);
  const std::int64_t rank = event.get_int("rank").value_or(0);
  const Workload* workload = state.find(job_id);
  if (type == "attempt_began") {
    std::int64_t first = 0;
    for (const auto& slice : workload->job.slices) {
      effects.push_back({slice.host, Kind::kStart, StopWhy::kNone, job_id, attempt, first, slice.ranks});
      first += slice.ranks;
    }
  } else if (type == "attempt_stopping") {
    stop_gang(*workload, effects);
  } else if (type == "replica_began" || type == "replica_stopping") {
    const Rank& replica = workload->service.replicas.at(rank).rank;
    effects.push_back({replica.host, type == "replica_began" ? Kind::kStart : Kind::kStop, replica.stopping, job_id,
                       attempt, rank, 1});
  } else if (type == "tasks_began") {
    const auto host = state.inventory.topology().find(event.find("host")->as_string());
    const auto ranges = ranges_from_json(*event.find("ranges"));
    for (const Range& range : *ranges)
      effects.push_back({*host, Kind::kStart, StopWhy::kNone, job_id, attempt, range.begin, range.end - range.begin});
  } else if (type == "tasks_stopping") {
    const Json* only = event.find("host");
    for (const auto& [host, runs] : workload->tasks.runs) {
      if (only != nullptr && only->as_string() != state.name(host)) continue;
      for (const TaskRun& run : runs) {
        if (run.stopping == StopWhy::kNone) continue;
        effects.push_back({host, Kind::kStop, run.stopping, job_id, run.attempt, run.begin, run.end - run.begin});
      }
    }
  }
}

std::vector<protocol::Effect> render(const State& state, const HostEffect& effect) {
  std::vector<protocol::Effect> out;
  for (std::int64_t i = 0; i < effect.count; ++i) {
    const RankId id{effect.job, effect.attempt, effect.first + i};
    const Place place = place_of(state, id, effect.host);
    if (place.phase == Phase::kEnded || place.host != effect.host) continue;
    out.push_back(effect.kind == HostEffect::Kind::kStart ? start_effect(state, id)
                                                          : stop_effect(state, id, effect.why));
  }
  return out;
}

std::vector<HostEffect> outstanding(const State& state, HostId host) {
  std::vector<HostEffect> out;
  for (const RankId& id : state.ranks_on(host)) {
    const Place place = place_of(state, id, host);
    HostEffect effect{host, HostEffect::Kind::kStart, place.stopping, id.job, id.attempt, id.rank, 1};
    if (place.phase == Phase::kStarting) out.push_back(effect);
    effect.kind = HostEffect::Kind::kStop;
    if (place.stopping != StopWhy::kNone) out.push_back(effect);
  }
  return out;
}

Reconciliation reconcile(const State& state, std::string_view host,
                         const std::vector<protocol::RankStatus>& ranks) {
  Reconciliation result;
  std::map<RankId, protocol::RankPhase> there;
  for (const auto& status : ranks) there.emplace(status.id, status.phase);
  const auto known = state.inventory.topology().find(host);
  const std::vector<RankId> wanted = known ? state.ranks_on(*known) : std::vector<RankId>{};
  // What is to end comes first, so that what starts finds room.
  for (const auto& [id, phase] : there) {
    if (std::binary_search(wanted.begin(), wanted.end(), id)) continue;
    if (phase == protocol::RankPhase::kExited) {
      result.effects.push_back({0, id, protocol::ForgetRank{}});
    } else {
      result.effects.push_back({0, id, protocol::StopRank{10'000, "the controller does not know it"}});
      result.leftovers.push_back(id);
    }
  }
  for (const RankId& id : wanted) {
    const Place place = place_of(state, id, *known);
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
