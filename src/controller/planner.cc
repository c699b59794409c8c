// How it works: run() walks the queue (a Pass) or tries what is fresh; each try asks the tenant's quota, then placement, then
// whether other work must give way.
#include "controller/planner.h"

#include <algorithm>

#include "base/assert.h"
#include "protocol/messages.h"

namespace capstan::controller {

using scheduler::Hold;
using scheduler::Placed;
using scheduler::Placement;
using scheduler::Request;
using scheduler::Verdict;

scheduler::Request request_of(const Workload& workload) {
  const auto& spec = workload.spec;
  const bool gang = spec.kind == workload::Kind::kJob;
  Request request;
  scheduler::Group group;
  group.ranks = gang ? spec.ranks : 1;
  group.shape = {workload.each(), spec.placement.gpu_model, spec.placement.host_class};
  group.segment = spec.placement.segment;
  group.ranks_min = spec.ranks_min;
  request.groups.push_back(std::move(group));
  if (spec.helpers && spec.helpers->ranks > 0) {
    scheduler::Group helpers;
    helpers.ranks = spec.helpers->ranks;
    helpers.shape.each = Workload::capacity_of(spec.helpers->resources);
    request.groups.push_back(std::move(helpers));
  }
  request.required = gang ? spec.placement.required : fleet::Level::kNone;
  request.preferred = spec.placement.preferred;
  request.cluster = spec.placement.cluster;
  request.region = spec.placement.region;
  return request;
}

fleet::Capacity ask_of(const Request& request) {
  fleet::Capacity total;
  for (const auto& group : request.groups)
    total = scheduler::operator+(total, scheduler::times(group.shape.each, group.ranks));
  return total;
}

std::uint32_t Planner::shape_of(const Request& request, const std::string& reservation) {
  std::string key = fmt::format("{}/{}/{}/{}/{}/", static_cast<int>(request.required),
                                static_cast<int>(request.preferred), request.cluster, request.region, reservation);
  for (const auto& group : request.groups) {
    const auto& each = group.shape.each;
    key += fmt::format("{},{},{},{},{},{},{},{},{};", group.ranks, group.ranks_min, group.segment, each.milli_cpus,
                       each.memory_bytes, each.gpus, each.gpu_milli, group.shape.gpu_model, group.shape.host_class);
  }
  const auto next = static_cast<std::uint32_t>(shapes_.size());
  return shapes_.try_emplace(std::move(key), next).first->second;
}

void Planner::want(const State& state, const Workload& workload, bool wants) {
  if (queue_.order() != state.policy.order) queue_.set_order(state.policy.order);
  if (!wants) {
    queue_.erase(workload.id);
    return;
  }
  const auto& spec = workload.spec;
  const Request request = request_of(workload);
  scheduler::Queue::Entry entry;
  entry.job = workload.id;
  entry.tenant = workload.tenant;
  entry.priority = spec.priority;
  entry.submitted_ms = workload.created_ms;
  entry.request = shape_of(request, spec.placement.reservation);
  if (spec.time_limit_ms > 0) {
    entry.estimate_ms = spec.time_limit_ms;
    entry.remaining_ms = std::max<std::int64_t>(1, spec.time_limit_ms - workload.job.served_ms);
    const fleet::Capacity ask = ask_of(request);
    entry.service = entry.remaining_ms / 1000 * std::max<std::int64_t>(1, ask.gpus > 0 ? ask.gpus : ask.milli_cpus / 1000);
  }
  if (const auto* known = queue_.find(workload.id)) {
    if (*known == entry) {
      fresh_.push_back(workload.id);
      return;
    }
    queue_.erase(workload.id);
  }
  queue_.insert(entry);
  fresh_.push_back(workload.id);
}

void Planner::forget_hints() {
  refused_.clear();
  displaced_none_.clear();
}

void Planner::run(Decision& decision) {
  State& state = decision.state;
  if (queue_.size() == 0) {
    fresh_.clear();
    if (shapes_.size() > 1'000) shapes_.clear();  // nobody uses their numbers any more
    state.room_grew = false;
    return;
  }
  if (state.draining) return;
  const bool look = state.room_grew || decision.time_ms >= next_look_ms_;
  if (!look && fresh_.empty()) return;
  if (look) {
    refused_.clear();
    next_look_ms_ = decision.time_ms + kLookEveryMs;
  }
  if (!look && fresh_.size() == 1) {
    const std::int64_t job = fresh_.front();
    fresh_.clear();
    if (Workload* workload = state.find(job); workload != nullptr && queue_.contains(job))
      (void)try_start(decision, *workload);
    return;
  }
  fresh_.clear();
  state.room_grew = false;
  scheduler::Queue::Pass pass(queue_, state.tenants);
  while (const auto job = pass.next()) {
    const Tried tried = try_start(decision, *state.find(*job));
    switch (tried.outcome) {
      case Outcome::kPlaced:
        pass.placed();
        break;
      case Outcome::kSkipped:
        pass.skipped();
        break;
      case Outcome::kShape:
        pass.refused_request();
        break;
      case Outcome::kTenant:
        pass.refused_tenant(tried.by);
        break;
      case Outcome::kTenantAll:
        pass.refused_tenant_all(tried.by);
        break;
    }
  }
}

Planner::Tried Planner::try_start(Decision& decision, Workload& workload) {
  switch (workload.spec.kind) {
    case workload::Kind::kJob:
      return start_job(decision, workload);
    case workload::Kind::kService:
      return start_service(decision, workload);
    case workload::Kind::kTasks:
      return start_tasks(decision, workload);
  }
  return {};
}

// The same hosts as in the last attempt, where a host that cannot take its ranks any more is replaced by another of its
// NVLink domain, a spare one if need be. nullopt: a domain has none.
std::optional<Placement> Planner::again(const State& state, const Workload& workload, const Request& request) const {
  const Job& job = workload.job;
  if (job.slices.empty() || job.groups.size() != request.groups.size()) return std::nullopt;
  for (std::size_t i = 0; i < job.groups.size(); ++i) {
    if (job.groups[i].ranks != request.groups[i].ranks || job.groups[i].each != request.groups[i].shape.each)
      return std::nullopt;
  }
  const auto& inventory = state.inventory;
  std::set<HostId> used;
  for (const auto& slice : job.slices) used.insert(slice.host);
  if (used.size() != job.slices.size()) return std::nullopt;
  Placement out;
  std::int64_t rank = 0;
  for (const auto& slice : job.slices) {
    const fleet::Capacity& each = job.each(rank);
    rank += slice.ranks;
    const auto takes = [&](HostId host) {
      return inventory.usable(host) && !inventory.host(host).claimed && inventory.fit(host, each) >= slice.ranks;
    };
    HostId host = slice.host;
    if (!takes(host)) {
      const fleet::Domain& domain = inventory.topology().domain(inventory.topology().domain_of(host));
      std::optional<HostId> spare;
      for (std::uint32_t i = 0; i < domain.hosts && !spare; ++i) {
        const HostId other{fleet::index(domain.first) + i};
        if (!used.contains(other) && takes(other)) spare = other;
      }
      if (!spare) return std::nullopt;
      host = *spare;
      used.insert(host);
    }
    out.slices.push_back({host, slice.ranks, inventory.choose_gpus(host, each, slice.ranks)});
  }
  for (const auto& group : request.groups) out.group_ranks.push_back(group.ranks);
  return out;
}

Placed Planner::place(Decision& decision, Workload&, const Request& request, bool some) {
  auto& inventory = decision.state.inventory;
  return some ? placer_.place_some(inventory, request) : placer_.place(inventory, request);
}

Planner::Tried Planner::start_job(Decision& decision, Workload& workload) {
  State& state = decision.state;
  const auto* entry = queue_.find(workload.id);
  CAPSTAN_ASSERT(entry != nullptr);
  const std::uint32_t shape = entry->request;
  const Request request = request_of(workload);
  const auto admission = state.tenants.admission(workload.tenant, ask_of(request));
  if (!admission.admitted()) return {Outcome::kTenant, admission.by};
  const bool guaranteed = admission.hold() == Hold::kGuaranteed;
  std::optional<Placement> placement;
  if (workload.job.attempt > 0) placement = again(state, workload, request);
  if (!placement && !refused_.contains(shape)) {
    Placed placed = place(decision, workload, request, false);
    if (placed) placement = *std::move(placed);
    if (!placed && placed.error().never()) {
      refused_.insert(shape);
      return {Outcome::kShape, {}};
    }
  }
  if (!placement) {
    refused_.insert(shape);
    const bool waits_for_victims = displace(decision, workload, request, guaranteed);
    return {waits_for_victims ? Outcome::kSkipped : Outcome::kShape, {}};
  }
  const std::int64_t port = state.free_port(placement->slices.front().host);
  if (port == 0) return {Outcome::kSkipped, {}};
  begin_attempt(decision, workload, *placement, admission.hold(), port);
  queue_.erase(workload.id);
  return {Outcome::kPlaced, {}};
}

Planner::Tried Planner::start_service(Decision& decision, Workload& workload) {
  State& state = decision.state;
  const Request request = request_of(workload);
  Tried tried;
  for (std::int64_t index; (index = next_replica(workload, decision.time_ms)) >= 0;) {
    const auto admission = state.tenants.admission(workload.tenant, ask_of(request));
    if (!admission.admitted()) return {Outcome::kTenant, admission.by};
    const Placed placed = place(decision, workload, request, false);
    if (!placed) {
      const bool waits = !placed.error().never() &&
                         displace(decision, workload, request, admission.hold() == Hold::kGuaranteed);
      return {waits ? Outcome::kSkipped : Outcome::kShape, {}};
    }
    const auto& slice = placed->slices.front();
    const std::int64_t port = workload.spec.port > 0 ? workload.spec.port : state.free_port(slice.host);
    if (port == 0) return {Outcome::kSkipped, {}};
    begin_replica(decision, workload, index, slice, port, admission.hold());
    tried.outcome = Outcome::kPlaced;
  }
  queue_.erase(workload.id);
  return tried;
}

Planner::Tried Planner::start_tasks(Decision& decision, Workload& workload) {
  State& state = decision.state;
  Tried tried;
  for (std::int64_t count; (count = startable_tasks(workload, decision.time_ms)) > 0;) {
    Request request = request_of(workload);
    request.groups.front().ranks =
        workload.spec.resources.gpu_milli > 0 ? 1 : std::min<std::int64_t>(count, protocol::kRanksPerHostMax);
    auto admission = state.tenants.admission(workload.tenant, ask_of(request));
    if (!admission.admitted() && request.groups.front().ranks > 1) {
      // As many as the limit leaves room for.
      const std::int64_t room = std::max<std::int64_t>(0, admission.limit - admission.used);
      const std::int64_t each = std::max<std::int64_t>(1, admission.asked / request.groups.front().ranks);
      request.groups.front().ranks = std::max<std::int64_t>(1, room / each);
      admission = state.tenants.admission(workload.tenant, ask_of(request));
    }
    if (!admission.admitted()) return {Outcome::kTenant, admission.by};
    const Placed placed = place(decision, workload, request, true);
    if (!placed) {
      const bool waits = !placed.error().never() &&
                         displace(decision, workload, request, admission.hold() == Hold::kGuaranteed);
      return {waits ? Outcome::kSkipped : Outcome::kShape, {}};
    }
    begin_tasks(decision, workload, placed->slices, admission.hold());
    tried.outcome = Outcome::kPlaced;
  }
  queue_.erase(workload.id);
  return tried;
}

std::optional<Planner::Why> Planner::why_waits(const State& state, const Workload& workload) {
  const Request request = request_of(workload);
  const auto admission = state.tenants.admission(workload.tenant, ask_of(request));
  if (!admission.admitted()) return Why{admission.verdict == Verdict::kNever, state.tenants.words(admission)};
  // Placement tries things out in the inventory and leaves it as it was.
  auto& inventory = const_cast<scheduler::Inventory&>(state.inventory);
  const Placed placed = placer_.place(inventory, request);
  if (placed) return std::nullopt;
  return Why{placed.error().never(), std::string(scheduler::reason_name(placed.error().reason))};
}

bool Planner::displace(Decision&, Workload&, const Request&, bool) { return false; }

}  // namespace capstan::controller
