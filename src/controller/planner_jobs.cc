// How it works: gangs. Where one may go (its reservation, the hosts kept for it, where it ran before, anywhere, its tenant's
// cells, claimed hosts until their claim begins), and what is done when there is no room.
#include <algorithm>

#include "base/assert.h"
#include "controller/commands.h"
#include "controller/planner.h"
#include "scheduler/place_among.h"

namespace capstan::controller {

using scheduler::Hold;
using scheduler::Placed;
using scheduler::Placement;
using scheduler::Request;

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
      used += hosts.contains(host) || !inventory.idle(host) || inventory.host(host).awaited;
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

// Gangs of its tenant for whom others leave: what they will take of the promise is theirs already. Else whom they displaced would
// take it while starting again elsewhere, and the next one would have the right to displace them.
template <class Each>
void Planner::for_pledges(const State& state, const Workload& workload, const Each& each) {
  for (const auto& [id, claim] : state.claims.all()) {
    if (claim.kind != scheduler::ClaimKind::kGang || claim.patient || claim.job == workload.id) continue;
    const Workload& other = *state.find(claim.job);
    if (other.tenant == workload.tenant) each(claim, other);
  }
}

scheduler::Admission Planner::admission_of(const State& state, const Workload& workload, const Request& request) {
  std::optional<scheduler::Tenants> tenants;
  for_pledges(state, workload, [&](const scheduler::Claim&, const Workload& other) {
    if (!tenants) tenants = state.tenants;
    const fleet::Capacity ask = ask_of(request_of(other));
    tenants->charge(other.tenant, ask, tenants->admission(other.tenant, ask).hold());
  });
  return (tenants ? *tenants : state.tenants).admission(workload.tenant, ask_of(request));
}

Planner::Terms Planner::terms_of(const State& state, const Workload& workload, const Request& request,
                                 const scheduler::Admission& admission) const {
  Terms terms = Terms::of(admission);
  const auto& group = request.groups.front();
  if (group.shape.each.gpus == 0) return terms;
  const auto* promise = state.cell_promise(workload.tenant, group.shape.gpu_model);
  if (promise == nullptr) return terms;
  const auto bound = state.cells.find(workload.tenant);
  terms.cells = promise;
  std::set<fleet::DomainId> pledged;
  for_pledges(state, workload, [&](const scheduler::Claim& claim, const Workload& other) {
    if (state.cell_promise(other.tenant, other.spec.placement.gpu_model) != promise) return;
    for (const HostId host : claim.hosts) {
      const auto domain = state.inventory.topology().domain_of(host);
      if (bound == state.cells.end() || !bound->second.contains(domain)) pledged.insert(domain);
    }
  });
  terms.cells_left = std::max<std::int64_t>(0, promise->count - state.tenants.bound(workload.tenant, *promise) -
                                                   static_cast<std::int64_t>(pledged.size()));
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
  terms.in_cells = request;
  terms.in_cells.groups.front().segment = std::min(group.ranks, segments_per_cell * segment);
  terms.in_cells_left = cells <= terms.cells_left;
  terms.by_cells = terms.in_cells_left || (cells == 1 && own > 0);
  terms.guaranteed = terms.guaranteed || terms.by_cells;
  return terms;
}

// Hosts of other tenants' cells, as if they were claimed; the caller gives them back.
std::vector<HostId> Planner::hide_others_cells(State& state, scheduler::TenantId tenant) {
  std::vector<HostId> out;
  for (const auto& [domain, owner] : state.cell_owners) {
    if (owner == tenant) continue;
    const fleet::Domain& row = state.inventory.topology().domain(domain);
    for (std::uint32_t i = 0; i < row.hosts; ++i) {
      const HostId host{fleet::index(row.first) + i};
      if (state.inventory.host(host).claimed) continue;
      state.inventory.set_claimed(host, true);
      out.push_back(host);
    }
  }
  return out;
}

// Hosts of the tenant's cells that nobody claims.
std::set<HostId> Planner::own_cells(const State& state, const Workload& workload) {
  std::set<HostId> out;
  const auto bound = state.cells.find(workload.tenant);
  if (bound == state.cells.end()) return out;
  for (const auto& [domain, cell] : bound->second) {
    const fleet::Domain& row = state.inventory.topology().domain(domain);
    for (std::uint32_t i = 0; i < row.hosts; ++i) {
      const HostId host{fleet::index(row.first) + i};
      if (!state.inventory.host(host).claimed) out.insert(host);
    }
  }
  return out;
}

// What the placement counts as: inside the tenant's cells if no more are bound than it is promised.
Hold Planner::hold_of(const State& state, const Workload& workload, const Terms& terms,
                      const Placement& placement) const {
  if (terms.cells == nullptr) return terms.hold;
  const auto bound = state.cells.find(workload.tenant);
  std::set<fleet::DomainId> fresh;
  for (const auto& slice : placement.slices) {
    const auto domain = state.inventory.topology().domain_of(slice.host);
    if (bound != state.cells.end() && bound->second.contains(domain)) continue;
    if (state.cell_owners.contains(domain)) return terms.hold;  // somebody else's cell
    fresh.insert(domain);
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
  // A tenant with cells uses those that it has, then new ones that are nobody else's, before it spreads beyond them.
  if (terms.by_cells) placement = among(own_cells(state, workload));
  if (!placement && terms.in_cells_left) {
    const auto hidden = hide_others_cells(state, workload.tenant);
    if (Placed placed = placer_.place(inventory, terms.in_cells)) placement = *std::move(placed);
    for (const HostId host : hidden) inventory.set_claimed(host, false);
  }
  if (!placement && where.anywhere) {
    if (Placed placed = placer_.place(inventory, request)) placement = *std::move(placed);
  }
  // Backfill: what ends before a claim begins delays nothing on its hosts.
  if (!placement && workload.spec.time_limit_ms > 0)
    placement = among(state.claims.open_until(decision.time_ms + workload.spec.time_limit_ms + workload.spec.grace_ms));
  return placement;
}

namespace {

// Are the job's ranks on the host asked to end?
bool is_leaving(const State& state, std::int64_t job, HostId host) {
  const auto at = state.running.find(job);
  if (at == state.running.end() || at->second.stopping) return true;
  const auto& leaving = at->second.leaving;
  return std::any_of(leaving.begin(), leaving.end(), [&](const auto& slice) { return slice.host == host; });
}

// With the hosts of the claim, more of the domain would be in use than its spares allow.
bool is_overfull(const State& state, const scheduler::Claim& claim, fleet::DomainId id) {
  const auto& inventory = state.inventory;
  const fleet::Domain& domain = inventory.topology().domain(id);
  if (domain.spares == 0) return false;
  std::int64_t used = 0;
  for (std::uint32_t i = 0; i < domain.hosts; ++i) {
    const HostId host{fleet::index(domain.first) + i};
    used += !inventory.idle(host) || inventory.host(host).awaited || claim.hosts.contains(host);
  }
  return used > domain.hosts - domain.spares;
}

// The first host for which `matches` holds: of the claim's, then of others in use that take what spares allow.
template <class Matches>
std::optional<HostId> find_in_the_way(const State& state, const scheduler::Claim& claim, const Matches& matches) {
  for (const HostId host : claim.hosts) {
    if (matches(host)) return host;
  }
  const auto& topology = state.inventory.topology();
  std::optional<fleet::DomainId> last;
  for (const HostId member : claim.hosts) {
    const fleet::DomainId id = topology.domain_of(member);
    if (std::exchange(last, id) == id || !is_overfull(state, claim, id)) continue;
    const fleet::Domain& domain = topology.domain(id);
    for (std::uint32_t i = 0; i < domain.hosts; ++i) {
      const HostId host{fleet::index(domain.first) + i};
      if (!state.inventory.idle(host) && !claim.hosts.contains(host) && matches(host)) return host;
    }
  }
  return std::nullopt;
}

bool somebody_leaves(const State& state, const scheduler::Claim& claim) {
  const auto leaves = [&](HostId host) {
    const auto& holders = state.inventory.host(host).holders;
    return std::any_of(holders.begin(), holders.end(), [&](const auto& holder) { return is_leaving(state, holder.job, host); });
  };
  return find_in_the_way(state, claim, leaves).has_value();
}

bool somebody_stays(const State& state, const scheduler::Claim& claim) {
  const auto in_use = [&](HostId host) { return !state.inventory.idle(host); };
  return find_in_the_way(state, claim, in_use).has_value();
}

}  // namespace

// Not all of its hosts are free: one that was seen in use still is. A claim of thousands of hosts is then not looked through
// at every end of anything.
bool Planner::is_blocked(const State& state, const scheduler::Claim& claim, const Request& request) {
  const auto in_use = [&](HostId host) {
    const auto takes = [&](const auto& group) { return state.inventory.fit(host, group.shape.each) > 0; };
    const bool own = claim.hosts.contains(host);
    if (own && (!state.inventory.usable(host) || std::any_of(request.groups.begin(), request.groups.end(), takes)))
      return false;
    const auto& holders = state.inventory.host(host).holders;
    if (holders.empty()) return false;  // out of order
    return claim.patient || std::all_of(holders.begin(), holders.end(),
                                        [&](const auto& holder) { return is_leaving(state, holder.job, host); });
  };
  const auto still = [&](HostId host) {
    if (claim.hosts.contains(host)) return in_use(host);
    const fleet::DomainId domain = state.inventory.topology().domain_of(host);
    return !state.inventory.idle(host) && is_overfull(state, claim, domain) && in_use(host);
  };
  const auto known = blockers_.find(claim.id);
  if (known != blockers_.end() && still(known->second)) return true;
  if (blockers_.size() > scheduler::kClaimsMax) blockers_.clear();
  const auto found = find_in_the_way(state, claim, in_use);
  if (!found) return false;
  blockers_[claim.id] = *found;
  return true;
}

// Room for a replica, or for some of the tasks: on hosts that others have left for it, else anywhere; else others are asked to
// leave.
std::expected<Placement, Planner::Tried> Planner::place_ranks(Decision& decision, Workload& workload, const Request& request,
                                                              const scheduler::Admission& admission) {
  State& state = decision.state;
  const bool some = workload.spec.kind == workload::Kind::kTasks;
  const Terms terms = Terms::of(admission);
  if (const auto* claim = state.claims.of_job(workload.id)) {
    if (somebody_leaves(state, *claim)) return std::unexpected(Tried{});
    const std::set<HostId> hosts = hosts_left(state, *claim, decision.time_ms);
    const scheduler::HostFilter filter{.hosts = scheduler::Hosts::kUsable, .only = &hosts};
    Placed placed = some ? scheduler::place_some_among(state.inventory, request, filter)
                         : scheduler::place_among(state.inventory, request, filter);
    give_up_claim(decision, workload, placed ? "it is used" : "its hosts did not become free");
    if (placed) return *std::move(placed);
    displaced_none_[{shape_of(workload), workload.spec.priority, terms.right()}] = decision.time_ms;
  }
  Placed placed = some ? placer_.place_some(state.inventory, request) : placer_.place(state.inventory, request);
  if (placed) return *std::move(placed);
  const bool waits = !placed.error().never() && displace(decision, workload, request, terms);
  return std::unexpected(Tried{waits ? Outcome::kSkipped : Outcome::kShape, {}});
}

Planner::Tried Planner::start_job(Decision& decision, Workload& workload) {
  State& state = decision.state;
  const std::uint32_t shape = shape_of(workload);
  const Request request = request_of(workload);
  const auto admission = admission_of(state, workload, request);
  const Terms terms = terms_of(state, workload, request, admission);
  // Cells are promised beside quotas; a limit binds all the same.
  const bool cells_only = !admission.admitted() && admission.by_guarantee && terms.guaranteed;
  if (!admission.admitted() && !cells_only) {
    give_up_claim(decision, workload, "its tenant may not use more");
    return {Outcome::kTenant, admission.by};
  }
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
    if (claim->patient) (void)displace(decision, workload, request, terms);
    return {Outcome::kSkipped, {}};
  }
  if (claim != nullptr) {
    if (claim->patient && somebody_stays(state, *claim) && all_there()) return {Outcome::kSkipped, {}};
    give_up_claim(decision, workload, "its hosts did not become free");
    // Not at once again: whatever came in between would come again.
    displaced_none_[{shape, workload.spec.priority, terms.right()}] = decision.time_ms;
  }
  refused_.insert(shape);
  if (placer_.never(state.inventory, request)) return {Outcome::kShape, {}};
  const bool displaces = displace(decision, workload, request, terms);
  // Where only patience was in its way, it starts now.
  if (displaces && !somebody_stays(state, *state.claims.of_job(workload.id))) return start_job(decision, workload);
  const bool waits = displaces || starve(decision, workload, request);
  if (waits || (alone && tries_left_ > 0)) return {Outcome::kSkipped, {}};
  return terms.cells != nullptr ? Tried{Outcome::kTenant, workload.tenant} : Tried{Outcome::kShape, {}};
}

}  // namespace capstan::controller
