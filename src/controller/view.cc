// How it works: reads the state and words it. Why a workload waits is asked anew from the scheduler each
// time, so that the answer is true now.
#include "controller/view.h"

#include <algorithm>
#include <bit>

#include "controller/decision.h"
#include "controller/input.h"
#include "controller/planner.h"

namespace capstan::controller {
namespace {

Json rank_view(std::int64_t index, const Rank& rank, std::int64_t attempt, const std::string& host,
               const protocol::RankExited* exit) {
  std::string shown(phase_name(rank.phase));
  if (rank.live() && rank.stopping != StopWhy::kNone) shown = "stopping";
  if (rank.live() && rank.ready) shown = "ready";
  Json json = Json::object({{"rank", index}, {"attempt", attempt}, {"state", shown}, {"host", host}});
  if (rank.pid > 0) json["pid"] = rank.pid;
  if (rank.port > 0) json["port"] = rank.port;
  if (!rank.live()) {
    static const protocol::RankExited kClean{.exit_code = 0, .signal = {}, .message = {}};
    const protocol::RankExited& end = exit == nullptr ? kClean : *exit;
    const Json how = exit_to_json(end);
    for (const auto& [key, value] : how.members()) json[key] = value;
    json["message"] = is_clean(end) ? "" : exit_text(end);
  }
  return json;
}

Json ranks_view(const State& state, const Workload& workload) {
  Json list = Json::array();
  const Job& job = workload.job;
  for (std::size_t i = 0; i < std::min(job.ranks.size(), kRanksShownMax); ++i) {
    const auto exit = job.exits.find(static_cast<std::int64_t>(i));
    list.push_back(rank_view(static_cast<std::int64_t>(i), job.ranks[i], job.attempt, state.name(job.ranks[i].host),
                             exit == job.exits.end() ? nullptr : &exit->second));
  }
  for (const auto& [index, replica] : workload.service.replicas) {
    if (list.size() < kRanksShownMax && (replica.rank.live() || index < workload.spec.replicas)) {
      list.push_back(rank_view(index, replica.rank, replica.attempt, state.name(replica.rank.host), &replica.exit));
    }
  }
  for (const auto& [host, runs] : workload.tasks.runs) {
    for (const TaskRun& run : runs) {
      for (std::int64_t index = run.begin; index < run.end && list.size() < kRanksShownMax; ++index) {
        list.push_back(Json::object({{"rank", index},
                                     {"attempt", run.attempt},
                                     {"host", state.name(host)},
                                     {"state", run.stopping != StopWhy::kNone ? "stopping"
                                               : run.started                  ? "running"
                                                                              : "starting"}}));
      }
    }
    if (list.size() >= kRanksShownMax) break;
  }
  return list;
}

Json tasks_view(const Workload& workload) {
  const TaskCounts counts = count_tasks(workload);
  Json json = Json::object({{"pending", counts.pending},
                            {"running", counts.running},
                            {"succeeded", counts.succeeded},
                            {"failed", counts.failed}});
  if (!workload.spec.sandbox) return json;
  const protocol::TaskTally& tally = workload.tasks.tally;
  Json failures = Json::object();
  for (std::size_t i = 1; i < protocol::kTaskEnds; ++i) {
    if (tally.ended[i] > 0) failures[protocol::task_end_name(static_cast<protocol::TaskEnd>(i))] = tally.ended[i];
  }
  // Of chunks that could not be run to their end.
  if (const std::int64_t lost = counts.failed - tally.failed(); lost > 0) failures["lost"] = lost;
  json["failures"] = std::move(failures);
  json["retries"] = tally.retries;
  json["usage"] = Json::object({{"cpu_us", tally.cpu_us},
                                {"wall_us", tally.wall_us},
                                {"memory_mib_ms", tally.memory_mib_ms},
                                {"memory_peak_bytes", tally.memory_peak_bytes},
                                {"bytes", tally.bytes}});
  return json;
}

// "; failed: 3 memory, 1 timeout; 12.3 CPU-seconds, at most 45 MiB in one"
std::string tally_text(const Workload& workload) {
  if (!workload.spec.sandbox) return "";
  const protocol::TaskTally& tally = workload.tasks.tally;
  std::string text;
  const Json shown = tasks_view(workload);
  for (const auto& [reason, count] : shown.find("failures")->members())
    text += fmt::format("{}{} {}", text.empty() ? "; failed: " : ", ", count.as_int(), reason);
  if (tally.retries > 0) text += fmt::format("; {} retries", tally.retries);
  if (tally.tasks() > 0) {
    text += fmt::format("; {}.{:01} CPU-seconds, at most {} MiB in one", tally.cpu_us / 1'000'000,
                        tally.cpu_us % 1'000'000 / 100'000, (tally.memory_peak_bytes + (1 << 20) - 1) >> 20);
  }
  return text;
}

struct Wait {
  std::string decision;  // "not_now", "never"
  std::string text;
};

// Why it cannot start now, if it wants to and room is what is missing.
std::optional<Wait> waits_for_room(const State& state, const Workload& workload, bool whole) {
  const auto why = state.planner->why_waits(state, workload, whole);
  if (!why) return std::nullopt;
  return Wait{why->never ? "never" : "not_now", why->text};
}

bool wants_room(const Workload& workload) {
  if (has_ended(workload.state) || workload.cancelling) return false;
  switch (workload.spec.kind) {
    case workload::Kind::kJob:
    case workload::Kind::kSandbox:
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
    case workload::Kind::kSandbox:
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
      out.ready = count_tasks(workload).succeeded + count_tasks(workload).failed;
      out.wanted = workload.spec.count;
      out.attempt = workload.tasks.running == 0 && out.ready == 0 ? 0 : 1;
      for (const auto& [index, task] : workload.tasks.retried) out.restarts += task.failures;
      break;
  }
  return out;
}

}  // namespace

namespace {

Json view(const State& state, const Workload& workload, bool details, bool whole) {
  const Progress now = progress(workload);
  std::string reason = workload.reason;
  if (workload.state == WorkloadState::kPending && !state.draining) {
    if (const auto wait = waits_for_room(state, workload, whole))
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
    json["tasks"] = tasks_view(workload);
  }
  if (workload.spec.kind == workload::Kind::kSandbox) {
    json["session"] = workload.job.session;
    json["template"] = workload.spec.session.template_name;
  }
  if (!workload.spec.model_name.empty()) json["model"] = workload.spec.model_name;
  if (details) {
    json["spec"] = workload::to_json(workload.spec, workload::Defaults::kWritten);
    json["ranks"] = ranks_view(state, workload);
  }
  return json;
}

}  // namespace

Json view(const State& state, const Workload& workload, bool details) { return view(state, workload, details, true); }

std::vector<Json> view_all(const State& state, const WorkloadFilter& filter) {
  std::vector<Json> out;
  std::size_t explained = 0;
  for (const auto& [id, workload] : state.workloads) {
    if (!filter.kind.empty() && workload::kind_name(workload.spec.kind) != filter.kind) continue;
    if (!filter.state.empty() && state_name(workload.state) != filter.state) continue;
    if (!filter.label.empty()) {
      const auto has = [&](const auto& pair) { return pair.first + "=" + pair.second == filter.label; };
      if (std::none_of(workload.spec.labels.begin(), workload.spec.labels.end(), has)) continue;
    }
    const bool waits = workload.state == WorkloadState::kPending;
    out.push_back(view(state, workload, false, !waits || explained++ < kExplainedMax));
  }
  return out;
}

Json view_host(const State& state, HostId id) {
  const auto& inventory = state.inventory;
  const auto& host = inventory.host(id);
  const auto& topology = inventory.topology();
  const fleet::Capacity& capacity = inventory.capacity(id);
  const fleet::Capacity room = inventory.room(id);
  std::int64_t ranks = 0;
  for (const auto& holder : host.holders) ranks += holder.ranks;
  const fleet::Domain& domain = topology.domain(topology.domain_of(id));
  const fleet::Block& block = topology.block(domain.block);
  Json json = Json::object({{"name", state.name(id)},
                            {"health", health_name(host.health)},
                            {"condition", fleet::condition_name(host.condition)},
                            {"cordoned", host.cordoned},
                            {"class", topology.host_class(id).name},
                            {"ultraserver", domain.hosts > 1 ? Json(domain.name) : Json()},
                            {"block", block.name},
                            {"cluster", topology.cluster(block.cluster).name},
                            {"milli_cpus", capacity.milli_cpus},
                            {"milli_cpus_free", room.milli_cpus},
                            {"memory_bytes", capacity.memory_bytes},
                            {"memory_bytes_free", room.memory_bytes},
                            {"gpus", capacity.gpus},
                            {"gpus_free", room.gpus},
                            {"gpus_failed", std::popcount(host.gpus_failed)},
                            {"ranks", ranks}});
  const auto at = state.contacts.find(id);
  json["build"] = at == state.contacts.end() ? "" : at->second.build;
  json["capabilities"] = at == state.contacts.end() ? Json::array() : protocol::to_json(at->second.capabilities);
  return json;
}

Json view_hosts(const State& state) {
  // Those whose workers have called first, by name; then those of fleet files, up to the bound.
  std::map<std::string, HostId> shown;
  for (const auto& [id, contact] : state.contacts) {
    if (shown.size() < kHostsShownMax) shown.emplace(state.name(id), id);
  }
  for (std::size_t i = 0; i < state.inventory.hosts() && shown.size() < kHostsShownMax; ++i) {
    const HostId id{static_cast<std::uint32_t>(i)};
    shown.emplace(state.name(id), id);
  }
  Json list = Json::array();
  for (const auto& [name, id] : shown) list.push_back(view_host(state, id));
  return list;
}

namespace {

// Single hosts for small gangs, else a line for each spine block.
std::string placement_text(const State& state, const Job& job) {
  constexpr std::size_t kSlicesShownMax = 8;
  std::string text;
  if (job.slices.size() <= kSlicesShownMax) {
    for (const auto& slice : job.slices) text += fmt::format(" {} ranks on {}", slice.ranks, state.name(slice.host));
    return text;
  }
  const auto& topology = state.inventory.topology();
  std::map<fleet::BlockId, std::pair<std::int64_t, std::set<fleet::DomainId>>> blocks;
  for (const auto& slice : job.slices) {
    auto& [ranks, domains] = blocks[topology.block_of(slice.host)];
    ranks += slice.ranks;
    domains.insert(topology.domain_of(slice.host));
  }
  for (const auto& [id, entry] : blocks) {
    const fleet::Block& block = topology.block(id);
    text += fmt::format(" {} ranks in {} UltraServers or hosts of {}/{};", entry.first, entry.second.size(),
                        topology.cluster(block.cluster).name, block.name);
  }
  text.pop_back();
  return text;
}

}  // namespace

Json explain(const State& state, const Workload& workload) {
  const auto kind = workload::kind_name(workload.spec.kind);
  const Progress now = progress(workload);
  std::string decision(state_name(workload.state));
  std::string text = fmt::format("{} {} is {}", kind, workload.spec.name, state_name(workload.state));
  if (workload.spec.kind == workload::Kind::kTasks) {
    text += fmt::format(" ({} of {} tasks ended)", now.ready, now.wanted) + tally_text(workload);
  } else if (!has_ended(workload.state)) {
    if (workload.spec.kind != workload::Kind::kSandbox)
      text += fmt::format(" ({} of {} {} {})", now.ready, now.wanted, workload.spec.is_gang() ? "ranks" : "replicas",
                          workload.spec.is_gang() ? "running" : "ready");
  }
  if (!workload.reason.empty()) text += ": " + workload.reason;
  if (state.draining && !has_ended(workload.state)) {
    decision = "not_now";
    text += "\nCapstan is going down; it resumes at the next `capstan up`";
  } else if (wants_room(workload)) {
    if (const auto wait = waits_for_room(state, workload, true)) {
      decision = wait->decision;
      text += fmt::format("\n{}: {}", wait->decision == "never" ? "never" : "not now", wait->text);
    } else if (workload.job.backoff_until_ms > 0) {
      decision = "not_now";
      text += fmt::format("\nnot now: starts again after its back-off ({} of {} restarts used)", now.restarts,
                          workload.spec.restarts.budget);
    }
  }
  if (!workload.job.slices.empty() && workload.job.in_attempt) {
    text += fmt::format("\nattempt {} is placed", workload.job.attempt);
    if (workload.hold != scheduler::Hold::kBorrowed)
      text += fmt::format(" inside what tenant {} is promised", workload.spec.tenant);
    text += ":" + placement_text(state, workload.job);
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
    const workload::Spec& spec = workload.spec;
    ServedService service{.name = spec.name,
                          .model = spec.model_name,
                          .weight = spec.weight,
                          .wanted = spec.replicas,
                          .autoscale = spec.autoscale};
    bool live = false;
    for (const auto& [index, replica] : workload.service.replicas) {
      if (!replica.rank.live()) continue;
      live = true;
      service.ready += replica.rank.ready;
      out.replicas.push_back({RankId{id, replica.attempt, index}.text(), spec.model_name, spec.name,
                              replica.address.empty() ? "127.0.0.1" : replica.address,
                              replica.rank.port, replica.rank.ready, spec.hedge_after_ms, spec.speaks_http2()});
    }
    if (!live) {
      const auto wait = waits_for_room(state, workload, true);
      service.why_not = wait                 ? wait->text
                        : spec.replicas == 0 ? "it has no replicas"
                                             : std::string(state_name(workload.state));
    }
    out.services.push_back(std::move(service));
  }
  return out;
}

Result<LogPlace> log_place(const State& state, const Workload& workload, std::int64_t rank,
                           std::int64_t attempt) {
  std::optional<HostId> host;
  std::int64_t newest = 0;
  const std::string& name = workload.spec.name;
  if (workload.spec.kind == workload::Kind::kSandbox)
    return fail(Code::kConflict, "a sandbox has no log; look inside: capstan session exec {} -- COMMAND", name);
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
    if (workload.spec.sandbox)
      return fail(Code::kConflict, "tasks in sandboxes have results instead of logs: capstan results {}", name);
    if (workload.tasks.pending.contains(rank))
      return fail(Code::kNotFound, "task {} of {} has not started yet", rank, name);
    const Tasks::Found running = workload.tasks.find(rank);
    const auto retried = workload.tasks.retried.find(rank);
    newest = running.run != nullptr                    ? running.run->attempt
             : retried != workload.tasks.retried.end() ? retried->second.attempt
                                                       : 1;
    if (running.run != nullptr) host = running.host;
    if (!host && !state.contacts.empty()) host = state.contacts.begin()->first;
  }
  const auto at = host ? state.contacts.find(*host) : state.contacts.end();
  if (at == state.contacts.end()) return fail(Code::kNotFound, "nothing of {} has run yet", name);
  return LogPlace{at->second.logs_url, {workload.id, attempt > 0 ? attempt : newest, rank}};
}

Result<std::vector<std::string>> results_places(const State& state, const Workload& workload) {
  if (!workload.spec.sandbox)
    return fail(Code::kConflict, "{} has logs: capstan logs {}; only tasks with a 'sandbox' have results", workload.spec.name,
                workload.spec.name);
  std::vector<std::string> places;
  for (const auto& [host, contact] : state.contacts) {
    if (!contact.logs_url.empty()) places.push_back(contact.logs_url);
  }
  return places;
}

}  // namespace capstan::controller
