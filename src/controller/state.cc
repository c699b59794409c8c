// How it works: names of enumerators, and the computed indices that more than one family of events touches.
#include "controller/state.h"

#include <algorithm>
#include <array>

#include "base/assert.h"
#include "controller/decision.h"
#include "controller/planner.h"

namespace capstan::controller {
namespace {

constexpr std::array<std::string_view, 8> kStates = {"pending",    "starting",  "running", "stopping",
                                                     "restarting", "succeeded", "failed",  "cancelled"};
constexpr std::array<std::string_view, 10> kStops = {
    "", "failure", "cancel", "update", "down", "time_limit", "scale_down", "preempted", "drain", "move"};

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
    case workload::Kind::kJob:
    case workload::Kind::kSandbox: {
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

std::set<fleet::DomainId> domains_of(const scheduler::Inventory& inventory, const Job& job) {
  std::set<fleet::DomainId> domains;
  for (const auto& slice : job.slices) domains.insert(inventory.topology().domain_of(slice.host));
  return domains;
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

State::State() : planner(std::make_unique<Planner>()) {}
State::~State() = default;
State::State(State&&) noexcept = default;
State& State::operator=(State&&) noexcept = default;

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

const fleet::Capacity& Job::each(std::int64_t rank) const {
  std::size_t group = 0;
  while (group + 1 < groups.size() && rank >= groups[group].ranks) rank -= groups[group++].ranks;
  return groups[group].each;
}

const TaskRun* Tasks::find_on(HostId host, std::int64_t index) const {
  const auto at = runs.find(host);
  if (at == runs.end()) return nullptr;
  const auto after = std::upper_bound(at->second.begin(), at->second.end(), index,
                                      [](std::int64_t wanted, const TaskRun& run) { return wanted < run.begin; });
  if (after == at->second.begin() || index >= std::prev(after)->end) return nullptr;
  return &*std::prev(after);
}

Tasks::Found Tasks::find(std::int64_t index) const {
  for (const auto& [host, list] : runs) {
    if (const TaskRun* run = find_on(host, index)) return {host, run};
  }
  return {};
}

void State::hold(HostId host, Workload& workload, std::uint32_t ranks, const fleet::Capacity& each,
                 scheduler::GpuSet gpus, std::int64_t port) {
  inventory.hold(host, workload.id, ranks, each, gpus);
  tenants.charge(workload.tenant, scheduler::times(each, ranks), workload.hold);
  if (port > 0) {
    Ports& at = ports[host];
    at.held.insert(port);
    if (port >= kPortMin && port <= kPortMax) at.next = port == kPortMax ? kPortMin : port + 1;
  }
  live_ranks += ranks;
}

void State::release(HostId host, Workload& workload, std::uint32_t ranks, const fleet::Capacity& each,
                    scheduler::GpuSet gpus, std::int64_t port) {
  inventory.release(host, workload.id, ranks, each, gpus);
  tenants.credit(workload.tenant, scheduler::times(each, ranks), workload.hold);
  if (port > 0) ports[host].held.erase(port);
  live_ranks -= ranks;
  // Ranks of a gang end within moments of each other: one look at the queue when the last has ended, not one a rank. (If one
  // lingers, the look that comes anyway finds the others' room.)
  if (!workload.spec.is_gang() || workload.job.live == 0) room_grew = true;
}

void State::begin_running(const Workload& workload, scheduler::Running row) {
  row.job = workload.id;
  row.tenant = static_cast<std::uint32_t>(workload.tenant);
  row.priority = workload.spec.priority;
  row.preemptible = workload.spec.preemptible;
  row.guaranteed = workload.hold != scheduler::Hold::kBorrowed;
  row.in_cell = workload.hold == scheduler::Hold::kCell;
  row.checkpoint_ms = workload.spec.checkpoint.interval_ms;
  row.grace_ms = workload.spec.grace_ms;
  if (!row.slices.empty()) {
    const auto cluster_of = [&](const auto& slice) { return inventory.topology().cluster_of(slice.host); };
    const auto first = cluster_of(row.slices.front());
    const bool one = std::all_of(row.slices.begin(), row.slices.end(),
                                 [&](const auto& slice) { return cluster_of(slice) == first; });
    if (one) row.cluster = fleet::index(first);
  }
  if (workload.spec.time_limit_ms > 0) row.size = size_of(ask_of(request_of(workload)));
  if (row.preemptible) {
    ++displaceable[row.priority];
    borrowed += !row.guaranteed;
  }
  if (workload.hold == scheduler::Hold::kCell) {
    for (const fleet::DomainId domain : domains_of(inventory, workload.job)) {
      Cell& cell = cells[workload.tenant][domain];
      if (cell.gangs++ > 0) continue;
      const HostId first = inventory.topology().domain(domain).first;
      const auto* promise = cell_promise(workload.tenant, inventory.topology().host_class(first).gpu_model);
      if (promise != nullptr) cell.kind = *promise;
      tenants.bind_cell(workload.tenant, cell.kind);
      cell_owners[domain] = workload.tenant;
    }
  }
  if (row.ends_by_ms < INT64_MAX) ends.insert({row.ends_by_ms, workload.id});
  running[workload.id] = std::move(row);
}

const workload::CellQuota* State::cell_promise(scheduler::TenantId tenant, std::string_view gpu_model) const {
  for (const auto& promise : tenants.tenant(tenant).cells) {
    if (gpu_model.empty() || promise.gpu_model == gpu_model) return &promise;
  }
  return nullptr;
}

void State::mark_stopping(std::int64_t id) {
  if (const auto at = running.find(id); at != running.end()) at->second.stopping = true;
}

void State::count_demand(const Workload& workload, int sign) {
  const auto& spec = workload.spec;
  if (spec.resources.gpus == 0 && spec.resources.gpu_milli == 0) return;
  constexpr std::int64_t kTasksCounted = 1'000;  // more say nothing new about what is usual
  scheduler::HostRequest request{.each = workload.each(), .gpu_models = {}, .host_class = spec.placement.host_class};
  request.each.memory_bytes = 0;
  if (!spec.placement.gpu_model.empty()) request.gpu_models = {spec.placement.gpu_model};
  const std::int64_t ranks = spec.is_gang()                          ? spec.ranks
                             : spec.kind == workload::Kind::kService ? spec.replicas
                                                                     : std::min(spec.chunks(), kTasksCounted);
  if ((demand[request] += sign * ranks) == 0) demand.erase(request);
}

namespace {

bool by_host(const scheduler::Slice& a, const scheduler::Slice& b) {
  return std::pair(a.host, a.gpus) < std::pair(b.host, b.gpus);
}

}  // namespace

void State::begin_leaving(std::int64_t id, const scheduler::Slice& slice) {
  auto& leaving = running.at(id).leaving;
  const auto at = std::lower_bound(leaving.begin(), leaving.end(), slice, by_host);
  if (slice.gpus == 0 && at != leaving.end() && at->host == slice.host && at->gpus == 0) {
    at->ranks += slice.ranks;
  } else {
    leaving.insert(at, slice);
  }
}

void State::end_leaving(std::int64_t id, const scheduler::Slice& slice) {
  auto& leaving = running.at(id).leaving;
  const auto at = std::lower_bound(leaving.begin(), leaving.end(), slice, by_host);
  CAPSTAN_ASSERT(at != leaving.end() && at->host == slice.host && at->gpus == slice.gpus && at->ranks >= slice.ranks);
  at->ranks -= slice.ranks;
  if (at->ranks == 0) leaving.erase(at);
}

void State::rank_left(const Workload& workload, std::int64_t rank) {
  const auto at = running.find(workload.id);
  if (at == running.end()) return;
  scheduler::Running& row = at->second;
  const HostId host = workload.job.ranks[static_cast<std::size_t>(rank)].host;
  std::size_t group = 0;
  for (std::int64_t left = rank; group + 1 < workload.job.groups.size() && left >= workload.job.groups[group].ranks;)
    left -= workload.job.groups[group++].ranks;
  for (std::size_t i = group == 0 ? 0 : row.group_ends[group - 1]; i < row.group_ends[group]; ++i) {
    scheduler::Slice& slice = row.slices[i];
    if (slice.host != host) continue;
    slice.gpus &= ~rank_gpus(workload.job, rank);
    if (--slice.ranks > 0) return;
    row.slices.erase(row.slices.begin() + static_cast<std::ptrdiff_t>(i));
    for (std::size_t later = group; later < row.group_ends.size(); ++later) --row.group_ends[later];
    return;
  }
}

void State::end_running(std::int64_t id) {
  const auto at = running.find(id);
  if (at == running.end()) return;
  if (at->second.preemptible) {
    const auto count = displaceable.find(at->second.priority);
    if (--count->second == 0) displaceable.erase(count);
    borrowed -= !at->second.guaranteed;
  }
  const Workload& workload = *find(id);
  if (workload.hold == scheduler::Hold::kCell) {
    auto& bound = cells[workload.tenant];
    for (const fleet::DomainId domain : domains_of(inventory, workload.job)) {
      const auto cell = bound.find(domain);
      if (--cell->second.gangs > 0) continue;
      tenants.unbind_cell(workload.tenant, cell->second.kind);
      if (const auto owner = cell_owners.find(domain); owner != cell_owners.end() && owner->second == workload.tenant)
        cell_owners.erase(owner);
      bound.erase(cell);
    }
    if (bound.empty()) cells.erase(workload.tenant);
  }
  if (at->second.ends_by_ms < INT64_MAX) ends.erase({at->second.ends_by_ms, id});
  running.erase(at);
}

void State::fleet_changed() {
  tenants.set_fleet(inventory.total());
  room_grew = true;
}

std::int64_t State::free_port(HostId host) const {
  const auto found = ports.find(host);
  if (found == ports.end()) return kPortMin;
  std::int64_t port = found->second.next;
  for (std::int64_t tried = kPortMin; tried <= kPortMax; ++tried) {
    if (!found->second.held.contains(port)) return port;
    port = port == kPortMax ? kPortMin : port + 1;
  }
  return 0;
}

std::vector<RankId> State::ranks_on(HostId host) const {
  std::vector<RankId> out;
  if (index(host) >= inventory.hosts()) return out;
  for (const auto& holder : inventory.host(host).holders) {
    const Workload& workload = *find(holder.job);
    if (workload.spec.is_gang()) {
      std::size_t rank = 0;
      for (const auto& slice : workload.job.slices) {
        for (std::int64_t i = 0; i < slice.ranks; ++i, ++rank) {
          if (slice.host == host && workload.job.ranks[rank].live())
            out.push_back({workload.id, workload.job.attempt, static_cast<std::int64_t>(rank)});
        }
      }
    }
    for (const auto& [index, replica] : workload.service.replicas) {
      if (replica.rank.live() && replica.rank.host == host) out.push_back({workload.id, replica.attempt, index});
    }
    const auto runs = workload.tasks.runs.find(host);
    if (runs == workload.tasks.runs.end()) continue;
    for (const TaskRun& run : runs->second) {
      for (std::int64_t index = run.begin; index < run.end; ++index)
        out.push_back({workload.id, run.attempt, index});
    }
  }
  std::sort(out.begin(), out.end());
  return out;
}

void State::update_deadline(Workload& workload) {
  const std::int64_t deadline_ms = deadline_of(workload);
  if (deadline_ms == workload.deadline_ms) return;
  if (workload.deadline_ms != kNever) timers.erase({workload.deadline_ms, workload.id});
  workload.deadline_ms = deadline_ms;
  if (deadline_ms != kNever) timers.insert({deadline_ms, workload.id});
}

}  // namespace capstan::controller
