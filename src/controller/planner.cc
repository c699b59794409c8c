// How it works: run() walks the queue (a Pass) or tries what is fresh; each try asks the tenant's quota, then placement, then
// whether other work must give way.
#include "controller/planner.h"

#include <algorithm>
#include <bit>

#include "controller/commands.h"
#include "protocol/messages.h"
#include "scheduler/preemption.h"

namespace capstan::controller {

using scheduler::Hold;
using scheduler::Placed;
using scheduler::Placement;
using scheduler::Request;
using scheduler::Verdict;

scheduler::Request request_of(const Workload& workload) {
  const auto& spec = workload.spec;
  const bool gang = spec.is_gang();
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

std::uint32_t Planner::request_id(const Asked& asked) {
  const auto [at, is_new] = requests_.try_emplace(asked, static_cast<std::uint32_t>(asked_.size()));
  if (is_new) asked_.push_back(asked);
  return at->second;
}

std::uint32_t Planner::shape_of(const Workload& workload) const {
  return asked_[queue_.find(workload.id)->request].shape;
}

namespace {

// Is the tenant, or one above it, guaranteed anything?
bool is_promised(const scheduler::Tenants& tenants, scheduler::TenantId tenant) {
  for (; tenant != scheduler::kRootTenant; tenant = tenants.parent(tenant)) {
    const auto& row = tenants.tenant(tenant);
    if (row.guaranteed != decltype(row.guaranteed){} || !row.cells.empty()) return true;
  }
  return false;
}

}  // namespace

std::int64_t size_of(const fleet::Capacity& ask) {
  return std::max<std::int64_t>(1, ask.gpus > 0 ? ask.gpus : ask.milli_cpus / 1'000);
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
  entry.request = request_id({shape_of(request, spec.placement.reservation), spec.priority, spec.time_limit_ms > 0,
                              is_promised(state.tenants, workload.tenant) ? std::optional(workload.tenant) : std::nullopt});
  if (spec.time_limit_ms > 0) {
    entry.estimate_ms = spec.time_limit_ms;
    entry.remaining_ms = std::max<std::int64_t>(1, spec.time_limit_ms - workload.job.served_ms);
    entry.service = entry.remaining_ms / 1'000 * size_of(ask_of(request));
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

// The usual requests for GPUs, so coarsely that one more or less changes nothing: scores are worked out anew for another mix.
// A function of the state alone, so that who recovers decides the same.
void Planner::follow_demand(const State& state) {
  std::vector<scheduler::WorkloadMix::Entry> entries;
  std::int64_t most = 1;
  for (const auto& [request, ranks] : state.demand) most = std::max(most, ranks);
  for (const auto& [request, ranks] : state.demand) {
    // In steps of two, and only what is asked at least a hundredth as often as the most usual.
    if (ranks * 100 < most) continue;
    entries.push_back({request, static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(ranks)))});
  }
  std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.count > b.count; });
  if (entries.size() > kMixMax) entries.resize(kMixMax);
  placer_.set_mix({std::move(entries)});
}

void Planner::forget_hints() {
  refused_.clear();
  displaced_none_.clear();
}

void Planner::run(Decision& decision) {
  State& state = decision.state;
  if (queue_.size() == 0) {
    fresh_.clear();
    refused_.clear();  // there may be room by the time that somebody waits again
    if (shapes_.size() > kInternedMax) {  // nobody uses their numbers any more
      shapes_.clear();
      requests_.clear();
      asked_.clear();
      displaced_none_.clear();
    }
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
  first_refused_ = true;
  tries_left_ = kTriesAlone;
  try_claimed(decision);
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

// Those whose hosts have become free: on them they are in nobody's way, whatever is refused to others of their shape.
void Planner::try_claimed(Decision& decision) {
  State& state = decision.state;
  std::vector<std::int64_t> ready;  // first those for whom others gave way
  std::vector<std::int64_t> patient;
  for (const auto& [id, claim] : state.claims.all()) {
    if (claim.kind != scheduler::ClaimKind::kGang || !queue_.contains(claim.job)) continue;
    if (is_blocked(state, claim, request_of(*state.find(claim.job)))) continue;
    (claim.patient ? patient : ready).push_back(claim.job);
  }
  ready.insert(ready.end(), patient.begin(), patient.end());
  for (const std::int64_t job : ready) {
    if (queue_.contains(job)) (void)try_start(decision, *state.find(job));
  }
}

Planner::Tried Planner::try_start(Decision& decision, Workload& workload) {
  if (workload.spec.resources.gpu_milli > 0) follow_demand(decision.state);
  switch (workload.spec.kind) {
    case workload::Kind::kJob:
    case workload::Kind::kSandbox:
      return start_job(decision, workload);
    case workload::Kind::kService:
      return start_service(decision, workload);
    case workload::Kind::kTasks:
      return start_tasks(decision, workload);
  }
  return {};
}

Planner::Tried Planner::start_service(Decision& decision, Workload& workload) {
  State& state = decision.state;
  const Request request = request_of(workload);
  Tried tried;
  for (std::int64_t index; (index = next_replica(workload, decision.time_ms)) >= 0;) {
    const auto admission = admission_of(state, workload, request);
    if (!admission.admitted()) return {Outcome::kTenant, admission.by};
    const auto placed = place_ranks(decision, workload, request, admission);
    if (!placed) return placed.error();
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
    auto admission = admission_of(state, workload, request);
    if (!admission.admitted() && request.groups.front().ranks > 1) {
      // As many as the limit leaves room for.
      const std::int64_t room = std::max<std::int64_t>(0, admission.limit - admission.used);
      const std::int64_t each = std::max<std::int64_t>(1, admission.asked / request.groups.front().ranks);
      request.groups.front().ranks = std::max<std::int64_t>(1, room / each);
      admission = admission_of(state, workload, request);
    }
    if (!admission.admitted()) return {Outcome::kTenant, admission.by};
    const auto placed = place_ranks(decision, workload, request, admission);
    if (!placed) return placed.error();
    begin_tasks(decision, workload, placed->slices, admission.hold());
    tried.outcome = Outcome::kPlaced;
  }
  queue_.erase(workload.id);
  return tried;
}

}  // namespace capstan::controller
