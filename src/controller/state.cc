// How it works: names of enumerators, and the computed indices that more than one family of events touches.
#include "controller/state.h"

#include <algorithm>
#include <array>

#include "base/assert.h"

namespace capstan::controller {
namespace {

constexpr std::array<std::string_view, 8> kStates = {"pending",    "starting",  "running", "stopping",
                                                     "restarting", "succeeded", "failed",  "cancelled"};
constexpr std::array<std::string_view, 7> kStops = {"",     "failure",    "cancel",    "update",
                                                    "down", "time_limit", "scale_down"};

template <class Enum, std::size_t n>
std::optional<Enum> parse(const std::array<std::string_view, n>& names, std::string_view name) {
  const auto at = std::find(names.begin(), names.end(), name);
  if (at == names.end()) return std::nullopt;
  return static_cast<Enum>(at - names.begin());
}

// When time alone gives this workload something to do.
std::int64_t deadline_of(const Workload& workload) {
  if (has_ended(workload.state)) return kNever;
  std::int64_t deadline_ms = kNever;
  switch (workload.spec.kind) {
    case workload::Kind::kJob: {
      const Job& job = workload.job;
      if (!job.in_attempt && job.backoff_until_ms > 0) deadline_ms = job.backoff_until_ms;
      if (job.in_attempt && job.stopping == StopWhy::kNone && workload.spec.time_limit_ms > 0) {
        deadline_ms = job.began_ms + workload.spec.time_limit_ms;
      }
      break;
    }
    case workload::Kind::kService:
      for (const auto& [index, replica] : workload.service.replicas) {
        if (!replica.rank.live() && replica.backoff_until_ms > 0)
          deadline_ms = std::min(deadline_ms, replica.backoff_until_ms);
      }
      break;
    case workload::Kind::kTasks:
      if (!workload.tasks.waiting.empty()) deadline_ms = workload.tasks.waiting.begin()->first;
      break;
  }
  return deadline_ms;
}

}  // namespace

std::string_view state_name(WorkloadState state) { return kStates[static_cast<std::size_t>(state)]; }
std::optional<WorkloadState> parse_state(std::string_view name) {
  return parse<WorkloadState>(kStates, name);
}
std::string_view stop_name(StopWhy why) { return kStops[static_cast<std::size_t>(why)]; }
std::optional<StopWhy> parse_stop(std::string_view name) { return parse<StopWhy>(kStops, name); }
std::string_view phase_name(Phase phase) {
  return phase == Phase::kStarting ? "starting" : phase == Phase::kRunning ? "running" : "ended";
}

Workload* State::find(std::string_view name) {
  const auto at = by_name.find(std::string(name));
  return at == by_name.end() ? nullptr : find(at->second);
}
const Workload* State::find(std::string_view name) const { return const_cast<State*>(this)->find(name); }
Workload* State::find(std::int64_t id) {
  const auto at = workloads.find(id);
  return at == workloads.end() ? nullptr : &at->second;
}
const Workload* State::find(std::int64_t id) const { return const_cast<State*>(this)->find(id); }

void State::hold(const std::string& host, const RankId& id, const fleet::Capacity& amount,
                 std::int64_t port) {
  Host& at = hosts[host];
  const bool is_new = at.ranks.insert(id).second;
  CAPSTAN_ASSERT(is_new);
  inventory.take(host, amount);
  if (port > 0) {
    at.ports.insert(port);
    if (port >= kPortMin && port <= kPortMax) at.port_next = port == kPortMax ? kPortMin : port + 1;
  }
  ++live_ranks;
}

void State::release(const std::string& host, const RankId& id, const fleet::Capacity& amount,
                    std::int64_t port) {
  Host& at = hosts[host];
  const bool was_there = at.ranks.erase(id) == 1;
  CAPSTAN_ASSERT(was_there);
  inventory.give(host, amount);
  at.ports.erase(port);
  --live_ranks;
  room_grew = true;
}

std::int64_t State::free_port(const std::string& host) const {
  const auto found = hosts.find(host);
  if (found == hosts.end()) return 0;
  std::int64_t port = found->second.port_next;
  for (std::int64_t tried = kPortMin; tried <= kPortMax; ++tried) {
    if (!found->second.ports.contains(port)) return port;
    port = port == kPortMax ? kPortMin : port + 1;
  }
  return 0;
}

void State::update_deadline(Workload& workload) {
  const std::int64_t deadline_ms = deadline_of(workload);
  if (deadline_ms == workload.deadline_ms) return;
  if (workload.deadline_ms != kNever) timers.erase({workload.deadline_ms, workload.id});
  workload.deadline_ms = deadline_ms;
  if (deadline_ms != kNever) timers.insert({deadline_ms, workload.id});
}

}  // namespace capstan::controller
