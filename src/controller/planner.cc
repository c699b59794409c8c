// How it works: run() walks the queue (a Pass) or tries what is fresh; each try asks the tenant's quota, then placement, then
// whether other work must give way.
#include "controller/planner.h"

#include <algorithm>

#include "base/assert.h"
#include "controller/commands.h"
#include "protocol/messages.h"
#include "scheduler/claim_hosts.h"
#include "scheduler/diagnose.h"
#include "scheduler/place_among.h"
#include "scheduler/preemption.h"

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
    refused_.clear();  // there may be room by the time that somebody waits again
    if (shapes_.size() > kInternedMax) {  // nobody uses their numbers any more
      shapes_.clear();
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

namespace {

// With these hosts in use as well, is no domain used beyond what its spares allow?
bool leaves_spares(const scheduler::Inventory& inventory, const std::set<HostId>& hosts) {
  const auto& topology = inventory.topology();
  std::set<fleet::DomainId> domains;
  for (const HostId host : hosts) domains.insert(topology.domain_of(host));
  return std::all_of(domains.begin(), domains.end(), [&](fleet::DomainId id) {
    const fleet::Domain& domain = topology.domain(id);
    std::int64_t used = 0;
    for (std::uint32_t i = 0; i < domain.hosts; ++i) {
      const HostId host{fleet::index(domain.first) + i};
      used += hosts.contains(host) || !inventory.idle(host);
    }
    return used <= domain.hosts - domain.spares;
  });
}

}  // namespace

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
  if (!leaves_spares(inventory, hosts_of(out.slices))) return std::nullopt;
  for (const auto& group : request.groups) out.group_ranks.push_back(group.ranks);
  return out;
}

Placed Planner::place(Decision& decision, Workload&, const Request& request, bool some) {
  auto& inventory = decision.state.inventory;
  return some ? placer_.place_some(inventory, request) : placer_.place(inventory, request);
}

Planner::Terms Planner::terms_of(const State& state, const Workload& workload, const Request& request,
                                 const scheduler::Admission& admission) const {
  Terms terms{admission.hold(), admission.hold() == Hold::kGuaranteed};
  const auto& group = request.groups.front();
  if (group.shape.each.gpus == 0) return terms;
  const auto* promise = state.cell_promise(workload.tenant, group.shape.gpu_model);
  if (promise == nullptr) return terms;
  const auto bound = state.cells.find(workload.tenant);
  terms.cells = promise;
  terms.cells_left = promise->count - state.tenants.bound(workload.tenant, *promise);
  // How many cells it needs at least, if each gives `trays` trays.
  const auto& topology = state.inventory.topology();
  std::int64_t per_tray = 1;
  for (std::uint32_t i = 0; i < topology.classes(); ++i) {
    const auto& one = topology.host_class(fleet::ClassId{i});
    if (one.gpu_model == promise->gpu_model) per_tray = std::max(per_tray, one.capacity.gpus / group.shape.each.gpus);
  }
  const std::int64_t segment = std::max<std::int64_t>(group.segment, 1);
  const std::int64_t segments_per_cell = std::max<std::int64_t>(1, promise->trays * per_tray / segment);
  const std::int64_t segments = (group.ranks + segment - 1) / segment;
  const std::int64_t cells = (segments + segments_per_cell - 1) / segments_per_cell;
  const std::int64_t own = bound == state.cells.end() ? 0 : static_cast<std::int64_t>(bound->second.size());
  if (cells <= terms.cells_left || (cells == 1 && own > 0)) terms.guaranteed = true;
  return terms;
}

// What the placement counts as: inside the tenant's cells if no more are bound than it is promised.
Hold Planner::hold_of(const State& state, const Workload& workload, const Terms& terms,
                      const Placement& placement) const {
  if (terms.cells == nullptr) return terms.hold;
  const auto bound = state.cells.find(workload.tenant);
  std::set<fleet::DomainId> fresh;
  for (const auto& slice : placement.slices) {
    const auto domain = state.inventory.topology().domain_of(slice.host);
    if (bound == state.cells.end() || !bound->second.contains(domain)) fresh.insert(domain);
  }
  return static_cast<std::int64_t>(fresh.size()) <= terms.cells_left ? Hold::kCell : terms.hold;
}

namespace {

// What of a gang's claim it may still use: hosts that work, and that nothing else has a claim to by now.
std::set<HostId> hosts_left(const State& state, const scheduler::Claim& claim, std::int64_t now_ms) {
  std::set<HostId> out;
  for (const HostId host : claim.hosts) {
    bool usable = state.inventory.usable(host);
    for (const std::int64_t id : state.claims.on(host))
      usable = usable && (id == claim.id || state.claims.find(id)->from_ms - scheduler::kClaimLeadMs > now_ms);
    if (usable) out.insert(out.end(), host);
  }
  return out;
}

// It has hosts kept for it: who is still there.
Planner::Why claimed_why(const State& state, const scheduler::Claim& claim) {
  constexpr std::size_t kNamed = 8;
  std::set<std::string> names;
  std::int64_t busy = 0;
  for (const HostId host : claim.hosts) {
    const auto& holders = state.inventory.host(host).holders;
    busy += !holders.empty();
    for (const auto& holder : holders) {
      const Workload& other = *state.find(holder.job);
      names.insert(fmt::format("{} {}", workload::kind_name(other.spec.kind), other.spec.name));
    }
  }
  const auto all = static_cast<std::int64_t>(claim.hosts.size());
  std::string text = all == 1 ? "1 host is kept for it" : fmt::format("{} hosts are kept for it", all);
  text += busy < all ? fmt::format(", {} not free yet", busy) : all == 1 ? ", not free yet" : ", none free yet";
  std::string list;
  std::size_t named = 0;
  for (const std::string& name : names) {
    if (named++ == kNamed) break;
    list += (list.empty() ? ": " : ", ") + name;
  }
  if (names.size() > kNamed) list += fmt::format(" and {} more", names.size() - kNamed);
  text += list + (claim.patient ? (names.size() == 1 ? " ends by itself" : " end by themselves")
                                : (names.size() == 1 ? " gives way" : " give way"));
  if (claim.patient && claim.from_ms > state.time_ms)
    text += fmt::format("; it starts at {} at the latest", scheduler::time_text(claim.from_ms, state.time_ms));
  return {false, text};
}

}  // namespace

std::optional<Placement> Planner::place_gang(Decision& decision, const Workload& workload, const Request& request,
                                             const Terms& terms, Where where) {
  State& state = decision.state;
  auto& inventory = state.inventory;
  const auto among = [&](const std::set<HostId>& hosts) -> std::optional<Placement> {
    if (hosts.empty()) return std::nullopt;
    Placed placed = scheduler::place_among(inventory, request, {.hosts = scheduler::Hosts::kUsable, .only = &hosts});
    if (!placed) return std::nullopt;
    return *std::move(placed);
  };
  if (!workload.spec.placement.reservation.empty()) {
    const auto* claim = state.claims.find_named(workload.spec.placement.reservation);
    if (claim == nullptr || claim->tenant != workload.spec.tenant || !claim->active(decision.time_ms)) return {};
    return among(claim->hosts);
  }
  if (const auto* claim = state.claims.of_job(workload.id); claim != nullptr && where.in_claim) {
    if (auto placement = among(hosts_left(state, *claim, decision.time_ms))) return placement;
  }
  if (workload.job.attempt > 0) {
    if (auto placement = again(state, workload, request)) return placement;
  }
  std::optional<Placement> placement;
  if (where.anywhere) {
    if (Placed placed = placer_.place(inventory, request)) placement = *std::move(placed);
  }
  // A tenant with cells uses those that it has before it spreads beyond them.
  if (terms.cells != nullptr && (!placement || hold_of(state, workload, terms, *placement) != Hold::kCell)) {
    if (const auto bound = state.cells.find(workload.tenant); bound != state.cells.end()) {
      std::set<HostId> own;
      for (const auto& [domain, cell] : bound->second) {
        const fleet::Domain& row = inventory.topology().domain(domain);
        for (std::uint32_t i = 0; i < row.hosts; ++i) {
          const HostId host{fleet::index(row.first) + i};
          if (!inventory.host(host).claimed) own.insert(host);
        }
      }
      if (auto inside = among(own)) placement = std::move(inside);
    }
  }
  // Backfill: what ends before a claim begins delays nothing on its hosts.
  if (!placement && workload.spec.time_limit_ms > 0)
    placement = among(state.claims.open_until(decision.time_ms + workload.spec.time_limit_ms + workload.spec.grace_ms));
  return placement;
}

Planner::Tried Planner::start_job(Decision& decision, Workload& workload) {
  State& state = decision.state;
  const std::uint32_t shape = queue_.find(workload.id)->request;
  const Request request = request_of(workload);
  const auto admission = state.tenants.admission(workload.tenant, ask_of(request));
  const Terms terms = terms_of(state, workload, request, admission);
  // Cells are promised beside quotas; a limit binds all the same.
  const bool cells_only = !admission.admitted() && admission.by_guarantee && terms.guaranteed;
  if (!admission.admitted() && !cells_only) return {Outcome::kTenant, admission.by};
  const auto* claim = state.claims.of_job(workload.id);
  const bool blocked = claim != nullptr && is_blocked(state, *claim, request);
  if (blocked && refused_.contains(shape)) return {Outcome::kSkipped, {}};
  const auto all_there = [&] { return hosts_left(state, *claim, decision.time_ms).size() == claim->hosts.size(); };
  // Those that give way may still be on their way out; if nobody is, the room will not come any more.
  if (claim != nullptr && !blocked && somebody_leaves(state, *claim) && all_there()) return {Outcome::kSkipped, {}};
  // What others of its shape cannot do: start again where it was, or on claimed hosts until its time limit.
  const bool alone = workload.job.attempt > 0 || (workload.spec.time_limit_ms > 0 && !state.claims.all().empty());
  const bool own_way = claim != nullptr || (alone && tries_left_ > 0);
  if (own_way && claim == nullptr && refused_.contains(shape)) --tries_left_;
  std::optional<Placement> placement;
  const bool anywhere = !refused_.contains(shape);
  if (own_way || terms.cells != nullptr || anywhere)
    placement = place_gang(decision, workload, request, terms, {.anywhere = anywhere, .in_claim = !blocked});
  if (placement) {
    const Hold hold = hold_of(state, workload, terms, *placement);
    const std::int64_t port = state.free_port(placement->slices.front().host);
    if (port == 0 || (cells_only && hold != Hold::kCell)) return {Outcome::kSkipped, {}};
    begin_attempt(decision, workload, *placement, hold, port);
    queue_.erase(workload.id);
    return {Outcome::kPlaced, {}};
  }
  if (!workload.spec.placement.reservation.empty()) return {Outcome::kShape, {}};
  if (blocked) {
    refused_.insert(shape);
    return {Outcome::kSkipped, {}};
  }
  if (claim != nullptr) {
    if (claim->patient && all_there()) return {Outcome::kSkipped, {}};
    give_up_claim(decision, workload, "its hosts did not become free");
    // Not at once again: whatever came in between would come again.
    displaced_none_[{shape, workload.spec.priority, terms.guaranteed}] = decision.time_ms;
  }
  refused_.insert(shape);
  if (placer_.never(state.inventory, request)) return {Outcome::kShape, {}};
  const bool waits = displace(decision, workload, request, terms.guaranteed) || starve(decision, workload, request);
  if (waits || (alone && tries_left_ > 0)) return {Outcome::kSkipped, {}};
  return terms.cells != nullptr ? Tried{Outcome::kTenant, workload.tenant} : Tried{Outcome::kShape, {}};
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

std::optional<Planner::Why> Planner::why_waits(const State& state, const Workload& workload, bool whole) {
  const Request request = request_of(workload);
  const std::string& reservation = workload.spec.placement.reservation;
  // Placement tries things out in the inventory and leaves it as it was.
  auto& inventory = const_cast<scheduler::Inventory&>(state.inventory);
  if (!reservation.empty()) {
    const auto* claim = state.claims.find_named(reservation);
    if (claim == nullptr) return Why{false, fmt::format("there is no reservation {} (any more)", reservation)};
    if (claim->tenant != workload.spec.tenant)
      return Why{true, fmt::format("reservation {} is tenant {}'s", reservation, claim->tenant)};
    if (!claim->active(state.time_ms)) {
      return Why{false, fmt::format("reservation {} begins at {}", reservation,
                                    scheduler::time_text(claim->from_ms, state.time_ms))};
    }
    const std::set<HostId> hosts = claim->hosts;
    if (scheduler::place_among(inventory, request, {.hosts = scheduler::Hosts::kUsable, .only = &hosts})) return {};
    return Why{false, fmt::format("it does not fit into what is free of the {} hosts of reservation {}", hosts.size(),
                                  reservation)};
  }
  const auto admission = state.tenants.admission(workload.tenant, ask_of(request));
  const bool guaranteed = terms_of(state, workload, request, admission).guaranteed;
  if (!admission.admitted() && !(admission.by_guarantee && guaranteed))
    return Why{admission.verdict == Verdict::kNever, state.tenants.words(admission)};
  const auto* claim = state.claims.of_job(workload.id);
  if (claim != nullptr && !whole) return claimed_why(state, *claim);
  if (!whole) {
    const Placed placed = placer_.place(inventory, request);
    if (placed) return std::nullopt;
    return Why{placed.error().never(), std::string(scheduler::reason_name(placed.error().reason))};
  }
  // What is kept for it is not in its way.
  std::vector<HostId> own;
  for (const HostId host : claim == nullptr ? std::set<HostId>{} : claim->hosts) {
    if (state.claims.on(host).size() == 1) own.push_back(host);
  }
  for (const HostId host : own) inventory.set_claimed(host, false);
  const auto diagnosis = scheduler::diagnose(inventory, placer_, state.running, request, state.time_ms);
  for (const HostId host : own) inventory.set_claimed(host, true);
  if (diagnosis.fits && claim == nullptr) return std::nullopt;
  const auto name = [&](std::int64_t job) {
    const Workload* other = state.find(job);
    return other == nullptr ? std::to_string(job)
                            : fmt::format("{} {}", workload::kind_name(other->spec.kind), other->spec.name);
  };
  std::string text = diagnosis.fits ? std::string() : scheduler::text(diagnosis, inventory, request, name);
  if (claim != nullptr) text = claimed_why(state, *claim).text + (text.empty() ? "" : "; ") + text;
  return Why{!diagnosis.fits && diagnosis.refusal.never(), std::move(text)};
}

// Not all of its hosts are free: one that was seen in use still is. A claim of thousands of hosts is then not looked through
// at every end of anything.
bool Planner::is_blocked(const State& state, const scheduler::Claim& claim, const Request& request) {
  const auto in_use = [&](HostId host) {
    const auto takes = [&](const auto& group) { return state.inventory.fit(host, group.shape.each) > 0; };
    if (!state.inventory.usable(host) || std::any_of(request.groups.begin(), request.groups.end(), takes)) return false;
    const auto& holders = state.inventory.host(host).holders;
    return claim.patient || std::all_of(holders.begin(), holders.end(),
                                        [&](const auto& holder) { return is_leaving(state, holder.job); });
  };
  const auto known = blockers_.find(claim.id);
  if (known != blockers_.end() && claim.hosts.contains(known->second) && in_use(known->second)) return true;
  if (blockers_.size() > scheduler::kClaimsMax) blockers_.clear();
  const auto found = std::find_if(claim.hosts.begin(), claim.hosts.end(), in_use);
  if (found == claim.hosts.end()) return false;
  blockers_[claim.id] = *found;
  return true;
}

bool Planner::is_leaving(const State& state, std::int64_t job) {
  const auto at = state.running.find(job);
  if (at == state.running.end() || at->second.stopping) return true;
  if (at->second.gang) return false;
  const Workload& workload = *state.find(job);
  for (const auto& [index, replica] : workload.service.replicas) {
    if (replica.rank.live() && replica.rank.stopping != StopWhy::kNone) return true;
  }
  for (const auto& [host, runs] : workload.tasks.runs) {
    for (const TaskRun& run : runs) {
      if (run.stopping != StopWhy::kNone) return true;
    }
  }
  return false;
}

bool Planner::somebody_leaves(const State& state, const scheduler::Claim& claim) {
  return std::any_of(claim.hosts.begin(), claim.hosts.end(), [&](HostId host) {
    const auto& holders = state.inventory.host(host).holders;
    return std::any_of(holders.begin(), holders.end(), [&](const auto& holder) { return is_leaving(state, holder.job); });
  });
}

bool Planner::displace(Decision& decision, Workload& workload, const Request& request, bool guaranteed) {
  State& state = decision.state;
  // Nobody to displace: nobody ranks lower, and nothing is borrowed that a promise could reclaim.
  const bool lower = !state.displaceable.empty() && state.displaceable.begin()->first < workload.spec.priority;
  if (!lower && !(guaranteed && state.borrowed > 0)) return false;
  const auto* entry = queue_.find(workload.id);
  const auto key = std::tuple(entry == nullptr ? 0 : entry->request, workload.spec.priority, guaranteed);
  const auto tried = displaced_none_.find(key);
  if (tried != displaced_none_.end() && decision.time_ms < tried->second + kDisplaceAgainMs) return false;
  const scheduler::Asker asker{workload.id, static_cast<std::uint32_t>(workload.tenant), workload.spec.priority,
                               guaranteed};
  const auto eviction = scheduler::choose_victims(state.inventory, placer_, state.running, request, asker,
                                                  decision.time_ms);
  if (!eviction) {
    if (displaced_none_.size() > 10'000) displaced_none_.clear();
    displaced_none_[key] = decision.time_ms;
    return false;
  }
  if (workload.spec.kind == workload::Kind::kJob) {
    std::set<std::int64_t> victims;
    for (const auto& victim : eviction->victims) victims.insert(victim.job);
    std::set<HostId> hosts = hosts_of(eviction->placement.slices);
    close_full_domains(state, victims, hosts);
    claim_for(decision, workload, std::move(hosts), false, decision.time_ms);
  }
  for (const auto& victim : eviction->victims) {
    Workload& other = *state.find(victim.job);
    const std::string reason = fmt::format("makes room for {} {}", workload::kind_name(workload.spec.kind),
                                           workload.spec.name);
    if (victim.whole) {
      stop_workload(decision, other, StopWhy::kPreempted, reason);
    } else {
      stop_on_host(decision, other, victim.host, victim.ranks, StopWhy::kPreempted, reason);
    }
  }
  return true;
}

// Where a gang will use all that a domain's spares allow, nobody else may begin to use another host of it meanwhile: what is
// idle there, and what its victims leave, is kept as well.
void Planner::close_full_domains(const State& state, const std::set<std::int64_t>& victims, std::set<HostId>& hosts) {
  const auto& inventory = state.inventory;
  const auto& topology = inventory.topology();
  std::set<fleet::DomainId> domains;
  for (const HostId host : hosts) domains.insert(topology.domain_of(host));
  for (const fleet::DomainId id : domains) {
    const fleet::Domain& domain = topology.domain(id);
    if (domain.spares == 0) continue;
    std::int64_t kept = 0, used = 0;
    std::vector<HostId> leaving, all;
    for (std::uint32_t i = 0; i < domain.hosts; ++i) {
      const HostId host{fleet::index(domain.first) + i};
      const auto& holders = inventory.host(host).holders;
      const bool stays = std::any_of(holders.begin(), holders.end(), [&](const auto& holder) {
        return !victims.contains(holder.job) && !is_leaving(state, holder.job);
      });
      kept += hosts.contains(host);
      used += stays || hosts.contains(host);
      if (hosts.contains(host) || !inventory.usable(host) || inventory.host(host).claimed) continue;
      all.push_back(host);
      if (!stays) leaving.push_back(host);
    }
    const std::int64_t allowed = domain.hosts - domain.spares;
    if (kept >= allowed) {  // whatever is there must go first
      hosts.insert(all.begin(), all.end());
    } else if (used >= allowed) {
      hosts.insert(leaving.begin(), leaving.end());
    }
  }
}

namespace {

std::int64_t waits_since_ms(const Workload& workload) {
  std::int64_t since_ms = workload.created_ms;
  for (const Rank& rank : workload.job.ranks) since_ms = std::max(since_ms, rank.ended_ms);
  return since_ms;
}

}  // namespace

// A gang that has waited long gets the hosts that will be free soonest kept for it, so that no smaller work takes them away; the
// first in the queue gets them at once if it is known when they will be free (EASY backfill).
bool Planner::starve(Decision& decision, Workload& workload, const Request& request) {
  State& state = decision.state;
  const std::int64_t limit_ms = state.policy.starvation_ms;
  const bool starves = limit_ms > 0 && decision.time_ms - waits_since_ms(workload) >= limit_ms;
  const bool first = std::exchange(first_refused_, false);
  if (!starves && !(first && state.ends.size() > 0)) return false;
  const auto patient = std::count_if(state.claims.all().begin(), state.claims.all().end(),
                                     [](const auto& entry) { return entry.second.patient; });
  if (patient >= kPatientClaimsMax) return false;
  const auto key = std::tuple(queue_.find(workload.id)->request, INT64_MAX, starves);
  const auto tried = displaced_none_.find(key);
  if (tried != displaced_none_.end() && decision.time_ms < tried->second + kStarveAgainMs) return false;
  displaced_none_[key] = decision.time_ms;
  const auto room = scheduler::room_for_gang(state.inventory, placer_, state.running, request, decision.time_ms);
  if (!room) return false;
  const bool known = room->start_ms < INT64_MAX;
  if (!starves && !known) return false;
  std::set<HostId> hosts = room->hosts;
  close_full_domains(state, {}, hosts);
  claim_for(decision, workload, std::move(hosts), true, known ? room->start_ms : decision.time_ms);
  return true;
}

}  // namespace capstan::controller
