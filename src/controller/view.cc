// How it works: reads the state and words it. Why a workload waits is asked anew from the scheduler each
// time, so that the answer is true now.
#include "controller/view.h"

#include <algorithm>

#include "controller/decision.h"
#include "controller/input.h"

namespace capstan::controller {
namespace {

Json rank_view(std::int64_t index, const Rank& rank, std::int64_t attempt) {
  std::string shown(phase_name(rank.phase));
  if (rank.live() && rank.stopping != StopWhy::kNone) shown = "stopping";
  if (rank.live() && rank.ready) shown = "ready";
  Json json = Json::object({{"rank", index}, {"attempt", attempt}, {"state", shown}, {"host", rank.host}});
  if (rank.pid > 0) json["pid"] = rank.pid;
  if (rank.port > 0) json["port"] = rank.port;
  if (!rank.live()) {
    const Json exit = exit_to_json(rank.exit);
    for (const auto& [key, value] : exit.members()) json[key] = value;
    json["message"] = is_clean(rank.exit) ? "" : exit_text(rank.exit);
  }
  return json;
}

Json ranks_view(const Workload& workload) {
  Json list = Json::array();
  for (std::size_t i = 0; i < std::min(workload.job.ranks.size(), kRanksShownMax); ++i) {
    list.push_back(rank_view(static_cast<std::int64_t>(i), workload.job.ranks[i], workload.job.attempt));
  }
  for (const auto& [index, replica] : workload.service.replicas) {
    if (list.size() < kRanksShownMax && (replica.rank.live() || index < workload.spec.replicas)) {
      list.push_back(rank_view(index, replica.rank, replica.attempt));
    }
  }
  for (const auto& [index, task] : workload.tasks.running) {
    if (list.size() >= kRanksShownMax) break;
    list.push_back(Json::object({{"rank", index},
                                 {"attempt", task.attempt},
                                 {"host", task.host},
                                 {"state", task.stopping != StopWhy::kNone ? "stopping"
                                           : task.started                  ? "running"
                                                                           : "starting"}}));
  }
  return list;
}

std::vector<scheduler::Holder> holders(const State& state, const Workload& except) {
  std::map<std::int64_t, fleet::Capacity> held;
  for (const auto& [name, host] : state.hosts) {
    for (const RankId& id : host.ranks) {
      if (id.job == except.id) continue;
      const Workload& workload = *state.find(id.job);
      const fleet::Capacity each = workload.spec.kind == workload::Kind::kJob ? workload.job.each
                                   : workload.spec.kind == workload::Kind::kService
                                       ? workload.service.replicas.at(id.rank).held
                                       : workload.each();
      held[id.job] = scheduler::operator+(held[id.job], each);
    }
  }
  std::vector<scheduler::Holder> out;
  for (const auto& [id, amount] : held) {
    const Workload& workload = *state.find(id);
    out.push_back({std::string(workload::kind_name(workload.spec.kind)), workload.spec.name, amount});
  }
  return out;
}

struct Wait {
  std::string decision;  // "not_now", "never"
  std::string text;
};

// Why it cannot start now, if it wants to and room is what is missing.
std::optional<Wait> waits_for_room(const State& state, const Workload& workload) {
  const bool gang = workload.spec.kind == workload::Kind::kJob;
  const scheduler::Request request{.ranks = gang ? workload.spec.ranks : 1, .each = workload.each()};
  const auto placed = scheduler::place(state.inventory, request);
  if (placed) return std::nullopt;
  const bool never = placed.error().never();
  return Wait{never ? "never" : "not_now",
              scheduler::explain(placed.error(), state.inventory, request, holders(state, workload))};
}

bool wants_room(const Workload& workload) {
  if (has_ended(workload.state) || workload.cancelling) return false;
  switch (workload.spec.kind) {
    case workload::Kind::kJob:
      return !workload.job.in_attempt;
    case workload::Kind::kService:
      for (std::int64_t index = 0; index < workload.spec.replicas; ++index) {
        const auto at = workload.service.replicas.find(index);
        if (at == workload.service.replicas.end() || !at->second.rank.live()) return true;
      }
      return false;
    case workload::Kind::kTasks:
      return !workload.tasks.pending.empty() || !workload.tasks.waiting.empty();
  }
  return false;
}

struct Progress {
  std::int64_t ready = 0, wanted = 0, attempt = 0, restarts = 0;
};

Progress progress(const Workload& workload) {
  Progress out;
  switch (workload.spec.kind) {
    case workload::Kind::kJob:
      out = {workload.job.running, workload.spec.ranks, workload.job.attempt, workload.job.restarts_used};
      if (workload.state == WorkloadState::kSucceeded) out.ready = workload.spec.ranks;
      break;
    case workload::Kind::kService:
      out.wanted = workload.spec.replicas;
      for (const auto& [index, replica] : workload.service.replicas) {
        out.ready += replica.rank.ready;
        out.attempt = std::max(out.attempt, replica.attempt);
        out.restarts += replica.attempt - 1;
      }
      break;
    case workload::Kind::kTasks:
      out.ready = workload.tasks.succeeded.size() + workload.tasks.failed.size();
      out.wanted = workload.spec.count;
      out.attempt = workload.tasks.running.empty() && out.ready == 0 ? 0 : 1;
      for (const auto& [index, task] : workload.tasks.retried) out.restarts += task.failures;
      break;
  }
  return out;
}

}  // namespace

Json view(const State& state, const Workload& workload, bool details) {
  const Progress now = progress(workload);
  std::string reason = workload.reason;
  if (workload.state == WorkloadState::kPending && !state.draining) {
    if (const auto wait = waits_for_room(state, workload))
      reason = (wait->decision == "never" ? "never: " : "not now: ") + wait->text;
  }
  Json labels = Json::object();
  for (const auto& [key, value] : workload.spec.labels) labels[key] = value;
  Json json = Json::object({{"id", workload.id},
                            {"name", workload.spec.name},
                            {"kind", workload::kind_name(workload.spec.kind)},
                            {"state", state_name(workload.state)},
                            {"reason", reason},
                            {"ready", now.ready},
                            {"wanted", now.wanted},
                            {"attempt", now.attempt},
                            {"restarts_used", now.restarts},
                            {"tenant", workload.spec.tenant},
                            {"priority", workload.spec.priority},
                            {"labels", std::move(labels)},
                            {"created_ms", workload.created_ms},
                            {"ended_ms", workload.ended_ms}});
  if (workload.spec.kind == workload::Kind::kTasks) {
    const Tasks& tasks = workload.tasks;
    json["tasks"] =
        Json::object({{"pending", tasks.pending.size() + static_cast<std::int64_t>(tasks.waiting.size())},
                      {"running", tasks.running.size()},
                      {"succeeded", tasks.succeeded.size()},
                      {"failed", tasks.failed.size()}});
  }
  if (!workload.spec.model_name.empty()) json["model"] = workload.spec.model_name;
  if (details) {
    json["spec"] = workload::to_json(workload.spec);
    json["ranks"] = ranks_view(workload);
  }
  return json;
}

std::vector<Json> view_all(const State& state, const WorkloadFilter& filter) {
  std::vector<Json> out;
  for (const auto& [id, workload] : state.workloads) {
    if (!filter.kind.empty() && workload::kind_name(workload.spec.kind) != filter.kind) continue;
    if (!filter.state.empty() && state_name(workload.state) != filter.state) continue;
    if (!filter.label.empty()) {
      const auto has = [&](const auto& pair) { return pair.first + "=" + pair.second == filter.label; };
      if (std::none_of(workload.spec.labels.begin(), workload.spec.labels.end(), has)) continue;
    }
    out.push_back(view(state, workload, false));
  }
  return out;
}

Json view_hosts(const State& state) {
  Json list = Json::array();
  for (const auto& [name, host] : state.hosts) {
    const auto& entry = state.inventory.hosts().at(name);
    const fleet::Capacity room = entry.room();
    list.push_back(Json::object({{"name", name},
                                 {"health", health_name(host.health)},
                                 {"milli_cpus", host.capacity.milli_cpus},
                                 {"milli_cpus_free", room.milli_cpus},
                                 {"memory_bytes", host.capacity.memory_bytes},
                                 {"memory_bytes_free", room.memory_bytes},
                                 {"gpus", host.capacity.gpus},
                                 {"gpus_free", room.gpus},
                                 {"ranks", host.ranks.size()},
                                 {"build", host.build},
                                 {"capabilities", protocol::to_json(host.capabilities)}}));
  }
  return list;
}

Json explain(const State& state, const Workload& workload) {
  const auto kind = workload::kind_name(workload.spec.kind);
  const Progress now = progress(workload);
  std::string decision(state_name(workload.state));
  std::string text = fmt::format("{} {} is {}", kind, workload.spec.name, state_name(workload.state));
  if (workload.spec.kind == workload::Kind::kTasks) {
    text += fmt::format(" ({} of {} tasks ended)", now.ready, now.wanted);
  } else if (!has_ended(workload.state)) {
    text += fmt::format(" ({} of {} {} {})", now.ready, now.wanted,
                        workload.spec.kind == workload::Kind::kJob ? "ranks" : "replicas",
                        workload.spec.kind == workload::Kind::kJob ? "running" : "ready");
  }
  if (!workload.reason.empty()) text += ": " + workload.reason;
  if (state.draining && !has_ended(workload.state)) {
    decision = "not_now";
    text += "\nCapstan is going down; it resumes at the next `capstan up`";
  } else if (wants_room(workload)) {
    if (const auto wait = waits_for_room(state, workload)) {
      decision = wait->decision;
      text += fmt::format("\n{}: {}", wait->decision == "never" ? "never" : "not now", wait->text);
    } else if (workload.job.backoff_until_ms > 0) {
      decision = "not_now";
      text += fmt::format("\nnot now: starts again after its back-off ({} of {} restarts used)", now.restarts,
                          workload.spec.restarts.budget);
    }
  }
  if (!workload.job.slices.empty() && workload.job.in_attempt) {
    text += fmt::format("\nattempt {} is placed first-fit:", workload.job.attempt);
    for (const auto& slice : workload.job.slices)
      text += fmt::format(" {} ranks on {}", slice.ranks, slice.host);
  }
  return Json::object({{"name", workload.spec.name},
                       {"state", state_name(workload.state)},
                       {"decision", decision},
                       {"text", text}});
}

Served served(const State& state) {
  Served out;
  for (const auto& [id, workload] : state.workloads) {
    if (workload.spec.model_name.empty() || has_ended(workload.state)) continue;
    bool live = false;
    for (const auto& [index, replica] : workload.service.replicas) {
      if (!replica.rank.live()) continue;
      live = true;
      out.replicas.push_back({RankId{id, replica.attempt, index}.text(), workload.spec.model_name,
                              replica.rank.address.empty() ? "127.0.0.1" : replica.rank.address,
                              replica.rank.port, replica.rank.ready});
    }
    if (live) continue;
    const auto wait = waits_for_room(state, workload);
    out.waiting.emplace_back(workload.spec.model_name,
                             wait ? wait->text : std::string(state_name(workload.state)));
  }
  return out;
}

Result<LogPlace> log_place(const State& state, const Workload& workload, std::int64_t rank,
                           std::int64_t attempt) {
  std::string host;
  std::int64_t newest = 0;
  const std::string& name = workload.spec.name;
  if (workload.spec.kind == workload::Kind::kJob) {
    if (rank >= static_cast<std::int64_t>(workload.job.ranks.size()))
      return fail(Code::kNotFound, "{} has no rank {} yet", name, rank);
    host = workload.job.ranks[static_cast<std::size_t>(rank)].host;
    newest = workload.job.attempt;
  } else if (workload.spec.kind == workload::Kind::kService) {
    const auto at = workload.service.replicas.find(rank);
    if (at == workload.service.replicas.end())
      return fail(Code::kNotFound, "{} has no replica {} yet", name, rank);
    host = at->second.rank.host;
    newest = at->second.attempt;
  } else {
    if (rank >= workload.spec.count)
      return fail(Code::kNotFound, "{} has tasks 0 to {}, no task {}", name, workload.spec.count - 1, rank);
    if (workload.tasks.pending.contains(rank))
      return fail(Code::kNotFound, "task {} of {} has not started yet", rank, name);
    const auto running = workload.tasks.running.find(rank);
    const auto retried = workload.tasks.retried.find(rank);
    newest = running != workload.tasks.running.end()   ? running->second.attempt
             : retried != workload.tasks.retried.end() ? retried->second.attempt
                                                       : 1;
    if (running != workload.tasks.running.end()) host = running->second.host;
    if (host.empty() && !state.hosts.empty()) host = state.hosts.begin()->first;
  }
  const auto at = state.hosts.find(host);
  if (at == state.hosts.end()) return fail(Code::kNotFound, "nothing of {} has run yet", name);
  return LogPlace{at->second.logs_url, {workload.id, attempt > 0 ? attempt : newest, rank}};
}

}  // namespace capstan::controller
