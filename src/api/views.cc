#include "api/views.h"

namespace capstan::api {
namespace {

using controller::Rank;
using controller::Workload;
using workload::Kind;

struct Progress {
  std::int64_t ready = 0;
  std::int64_t wanted = 0;
};

Progress progress_of(const Workload& workload) {
  Progress progress;
  switch (workload.spec.kind) {
    case Kind::kJob:
      progress.wanted = workload.spec.ranks;
      progress.ready = workload.job.running;
      break;
    case Kind::kService:
      progress.wanted = workload.spec.replicas;
      for (const auto& [index, replica] : workload.service.replicas) progress.ready += replica.rank.ready ? 1 : 0;
      break;
    case Kind::kTasks:
      progress.wanted = workload.spec.count;
      progress.ready = workload.tasks.succeeded.size() + workload.tasks.failed.size();
      break;
  }
  return progress;
}

std::int64_t attempt_of(const Workload& workload) {
  if (workload.spec.kind == Kind::kJob) return workload.job.attempt;
  std::int64_t attempt = 0;
  for (const auto& [index, replica] : workload.service.replicas) attempt = std::max(attempt, replica.attempt);
  return attempt;
}

Json rank_view(std::int64_t index, std::int64_t attempt, const Rank& rank) {
  Json out = Json::object({{"rank", index},
                           {"attempt", attempt},
                           {"state", rank.live() && rank.stopping != controller::StopWhy::kNone ? "stopping" : controller::phase_name(rank.phase)},
                           {"ready", rank.ready},
                           {"host", rank.host}});
  if (rank.pid > 0) out["pid"] = rank.pid;
  if (rank.port > 0) out["port"] = rank.port;
  if (rank.began_ms > 0) out["began_ms"] = rank.began_ms;
  if (rank.live()) return out;
  if (rank.ended_ms > 0) out["ended_ms"] = rank.ended_ms;
  if (rank.exit.exit_code) out["exit_code"] = *rank.exit.exit_code;
  if (rank.exit.signal) out["signal"] = *rank.exit.signal;
  if (rank.exit.oom) out["oom"] = true;
  if (rank.exit.lost) out["lost"] = true;
  if (!rank.exit.message.empty()) out["message"] = rank.exit.message;
  return out;
}

Json task_counts(const controller::Tasks& tasks) {
  return Json::object({{"pending", tasks.pending.size()},
                       {"running", tasks.running.size()},
                       {"waiting", tasks.waiting.size()},
                       {"succeeded", tasks.succeeded.size()},
                       {"failed", tasks.failed.size()}});
}

Json ranks_view(const Workload& workload) {
  Json out = Json::array();
  if (workload.spec.kind == Kind::kJob) {
    for (std::size_t i = 0; i < workload.job.ranks.size(); ++i) {
      out.push_back(rank_view(static_cast<std::int64_t>(i), workload.job.attempt, workload.job.ranks[i]));
    }
  }
  for (const auto& [index, replica] : workload.service.replicas) out.push_back(rank_view(index, replica.attempt, replica.rank));
  for (const auto& [index, task] : workload.tasks.running) {
    if (out.size() >= kTasksShownMax) break;
    out.push_back(Json::object({{"rank", index},
                                {"attempt", task.attempt},
                                {"state", task.stopping != controller::StopWhy::kNone ? "stopping" : task.started ? "running" : "starting"},
                                {"host", task.host}}));
  }
  return out;
}

}  // namespace

Json workload_summary(const Workload& workload) {
  const Progress progress = progress_of(workload);
  Json labels = Json::object();
  for (const auto& [key, value] : workload.spec.labels) labels.members().emplace_back(key, value);
  return Json::object({{"id", workload.id},
                       {"name", workload.spec.name},
                       {"kind", workload::kind_name(workload.spec.kind)},
                       {"tenant", workload.spec.tenant},
                       {"priority", workload.spec.priority},
                       {"labels", std::move(labels)},
                       {"state", controller::state_name(workload.state)},
                       {"reason", workload.reason},
                       {"ready", progress.ready},
                       {"wanted", progress.wanted},
                       {"attempt", attempt_of(workload)},
                       {"restarts_used", workload.job.restarts_used},
                       {"created_ms", workload.created_ms},
                       {"ended_ms", workload.ended_ms}});
}

Json workload_details(const Workload& workload) {
  Json out = workload_summary(workload);
  if (workload.spec.kind == Kind::kTasks) {
    out["tasks"] = task_counts(workload.tasks);
    if (!workload.tasks.last_failure.empty()) out["last_failure"] = workload.tasks.last_failure;
  }
  out["spec"] = workload::to_json(workload.spec);
  out["ranks"] = ranks_view(workload);
  return out;
}

Json host_view(const std::string& name, const controller::Host& host, const scheduler::Inventory& inventory) {
  constexpr std::string_view kHealth[] = {"healthy", "suspect", "lost"};
  scheduler::Capacity used;
  if (const auto found = inventory.hosts().find(name); found != inventory.hosts().end()) used = found->second.used;
  return Json::object({{"name", name},
                       {"health", kHealth[static_cast<std::size_t>(host.health)]},
                       {"milli_cpus", host.capacity.milli_cpus},
                       {"milli_cpus_free", host.capacity.milli_cpus - used.milli_cpus},
                       {"memory_bytes", host.capacity.memory_bytes},
                       {"memory_bytes_free", host.capacity.memory_bytes - used.memory_bytes},
                       {"gpus", host.capacity.gpus},
                       {"gpus_free", host.capacity.gpus - used.gpus},
                       {"ranks", host.ranks.size()},
                       {"build", host.build},
                       {"capabilities", protocol::to_json(host.capabilities)}});
}

}  // namespace capstan::api
