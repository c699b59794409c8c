// How it works: gangs. Where one may go (its reservation, the hosts kept for it, where it ran before, anywhere, its tenant's
// cells, claimed hosts until their claim begins), and what is done when there is no room.
#include <algorithm>

#include "base/assert.h"
#include "controller/commands.h"
#include "controller/planner.h"
#include "scheduler/claim_hosts.h"
#include "scheduler/place_among.h"
#include "scheduler/preemption.h"

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

Planner::Terms Planner::terms_of(const State& state, const Workload& workload, const Request& request,
                                 const scheduler::Admission& admission) const {
  Terms terms = Terms::of(admission);
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
  terms.in_cells = request;
  terms.in_cells.groups.front().segment = std::min(group.ranks, segments_per_cell * segment);
  terms.in_cells_left = cells <= terms.cells_left;
  terms.by_cells = terms.in_cells_left || (cells == 1 && own > 0);
  terms.guaranteed = terms.guaranteed || terms.by_cells;
  return terms;
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
  // A tenant with cells uses those that it has, then new ones, before it spreads beyond them.
  const auto beyond = [&] { return terms.cells != nullptr && (!placement || hold_of(state, workload, terms, *placement) != Hold::kCell); };
  if (beyond()) {
    if (auto inside = among(own_cells(state, workload))) placement = std::move(inside);
  }
  if (beyond() && terms.in_cells_left) {
    if (Placed placed = placer_.place(inventory, terms.in_cells)) placement = *std::move(placed);
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

Planner::Tried Planner::start_job(Decision& decision, Workload& workload) {
  State& state = decision.state;
  const std::uint32_t shape = shape_of(workload);
  const Request request = request_of(workload);
  const auto admission = state.tenants.admission(workload.tenant, ask_of(request));
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


// Without the victims of its own tenant, would it be inside the promise itself?
bool Planner::takes_over(const State& state, const Workload& workload, const Request& request, const Terms& terms,
                         const scheduler::Eviction& eviction) const {
  const auto bound = state.cells.find(workload.tenant);
  std::map<fleet::DomainId, std::int64_t> gangs_gone;  // of the tenant's cells
  std::optional<scheduler::Tenants> without;
  for (const auto& victim : eviction.victims) {
    const auto& row = state.running.at(victim.job);
    const Workload& other = *state.find(victim.job);
    if (!row.guaranteed || other.tenant != workload.tenant) continue;
    if (!without) without = state.tenants;
    const auto& slices = row.slices;
    for (std::size_t i = 0, group = 0; i < slices.size(); ++i) {
      while (i >= row.group_ends[group]) ++group;
      without->credit(other.tenant, scheduler::times(row.each[group], slices[i].ranks), other.hold);
    }
    if (!victim.whole) without->credit(other.tenant, scheduler::times(row.each.front(), victim.ranks), other.hold);
    if (other.hold != Hold::kCell) continue;
    std::set<fleet::DomainId> domains;
    for (const auto& slice : slices) domains.insert(state.inventory.topology().domain_of(slice.host));
    for (const auto domain : domains) ++gangs_gone[domain];
  }
  if (!without || without->admission(workload.tenant, ask_of(request)).hold() == Hold::kGuaranteed) return true;
  if (terms.cells == nullptr || bound == state.cells.end()) return false;
  std::set<fleet::DomainId> freed, fresh;
  for (const auto& [domain, gone] : gangs_gone) {
    const auto cell = bound->second.find(domain);
    if (cell != bound->second.end() && cell->second.gangs == gone) freed.insert(domain);
  }
  for (const auto& slice : eviction.placement.slices) {
    const auto domain = state.inventory.topology().domain_of(slice.host);
    if (!bound->second.contains(domain) || freed.contains(domain)) fresh.insert(domain);
  }
  return fresh.size() <= static_cast<std::size_t>(terms.cells_left) + freed.size();
}

// Whom to displace: inside the cells that are promised if it may, else whoever ranks lower.
std::optional<scheduler::Eviction> Planner::choose_eviction(Decision& decision, const Workload& workload,
                                                            const Request& request, const Terms& terms) {
  State& state = decision.state;
  scheduler::Asker asker{.job = workload.id,
                         .tenant = static_cast<std::uint32_t>(workload.tenant),
                         .priority = workload.spec.priority,
                         .guaranteed = terms.guaranteed};
  if (terms.by_cells) {
    asker.in_cell = true;
    const auto counts = [&](const auto& eviction) {
      return eviction && hold_of(state, workload, terms, eviction->placement) == Hold::kCell;
    };
    auto found = scheduler::choose_victims_among(state.inventory, state.running, request, asker,
                                                 own_cells(state, workload), decision.time_ms);
    if (counts(found)) return found;
    if (terms.in_cells_left) {
      if (auto fresh = scheduler::choose_victims(state.inventory, placer_, state.running, terms.in_cells, asker,
                                                 decision.time_ms);
          counts(fresh))
        return *std::move(fresh);
    }
    // Elsewhere it would be borrowed.
    asker.in_cell = false;
    asker.guaranteed = terms.hold == Hold::kGuaranteed;
  }
  auto found = scheduler::choose_victims(state.inventory, placer_, state.running, request, asker, decision.time_ms);
  if (found && !asker.guaranteed && !takes_over(state, workload, request, terms, *found)) {
    asker.takes_over = false;
    found = scheduler::choose_victims(state.inventory, placer_, state.running, request, asker, decision.time_ms);
  }
  if (!found) return std::nullopt;
  return *std::move(found);
}

// Its own claim if it waits patiently, and those of gangs that do and rank below it: they keep nothing from it.
std::vector<std::int64_t> Planner::weaker_claims(const State& state, const Workload& workload, const Terms& terms) const {
  const scheduler::Asker asker{.job = workload.id,
                               .tenant = static_cast<std::uint32_t>(workload.tenant),
                               .priority = workload.spec.priority,
                               .guaranteed = terms.guaranteed,
                               .in_cell = terms.by_cells};
  std::vector<std::int64_t> out;
  for (const auto& [id, claim] : state.claims.all()) {
    if (!claim.patient) continue;
    const Workload& other = *state.find(claim.job);
    const Request request = request_of(other);
    const auto admission = state.tenants.admission(other.tenant, ask_of(request));
    scheduler::Running row;
    row.job = other.id;
    row.tenant = static_cast<std::uint32_t>(other.tenant);
    row.priority = other.spec.priority;
    const Terms theirs = terms_of(state, other, request, admission);
    row.guaranteed = theirs.guaranteed;
    row.in_cell = theirs.by_cells;
    if (claim.job == workload.id || scheduler::may_displace(asker, row)) out.push_back(id);
  }
  return out;
}

bool Planner::displace(Decision& decision, Workload& workload, const Request& request, const Terms& terms) {
  State& state = decision.state;
  // Nobody to displace: nobody ranks lower, and nothing is borrowed that a promise could reclaim.
  const bool lower = !state.displaceable.empty() && state.displaceable.begin()->first < workload.spec.priority;
  const auto weaker = weaker_claims(state, workload, terms);
  const auto own = [&](std::int64_t id) { return state.claims.find(id)->job == workload.id; };
  if (!lower && std::all_of(weaker.begin(), weaker.end(), own) && !(terms.guaranteed && state.borrowed > 0) &&
      !(terms.by_cells && !state.displaceable.empty()))
    return false;
  const auto key = std::tuple(shape_of(workload), workload.spec.priority, terms.right());
  const auto tried = displaced_none_.find(key);
  if (tried != displaced_none_.end() && decision.time_ms < tried->second + kDisplaceAgainMs) return false;
  const auto set_claimed = [&](bool claimed) {
    for (const std::int64_t id : weaker) {
      for (const HostId host : state.claims.find(id)->hosts) {
        if (state.claims.on(host).size() == 1) state.inventory.set_claimed(host, claimed, true);
      }
    }
  };
  set_claimed(false);
  const auto eviction = choose_eviction(decision, workload, request, terms);
  set_claimed(true);
  if (!eviction) {
    if (displaced_none_.size() > 10'000) displaced_none_.clear();
    displaced_none_[key] = decision.time_ms;
    return false;
  }
  const std::string reason = fmt::format("makes room for {} {}", workload::kind_name(workload.spec.kind),
                                         workload.spec.name);
  const std::set<HostId> hosts = hosts_of(eviction->placement.slices);
  const auto& topology = state.inventory.topology();
  std::set<fleet::DomainId> domains;
  for (const HostId host : hosts) domains.insert(topology.domain_of(host));
  for (const std::int64_t id : weaker) {
    const scheduler::Claim& claim = *state.claims.find(id);
    const auto touches = [&](HostId host) { return domains.contains(topology.domain_of(host)); };
    if (own(id)) {
      give_up_claim(decision, workload, "others give way at once");
    } else if (std::any_of(claim.hosts.begin(), claim.hosts.end(), touches)) {
      give_up_claim(decision, *state.find(claim.job), reason);
    }
  }
  if (workload.spec.kind == workload::Kind::kJob) claim_for(decision, workload, hosts, false, decision.time_ms);
  for (const auto& victim : eviction->victims) {
    Workload& other = *state.find(victim.job);
    if (victim.whole) {
      stop_workload(decision, other, StopWhy::kPreempted, reason);
    } else {
      stop_on_host(decision, other, victim.host, victim.ranks, StopWhy::kPreempted, reason);
    }
  }
  return true;
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
  const auto key = std::tuple(shape_of(workload), INT64_MAX, starves ? 1 : 0);
  const auto tried = displaced_none_.find(key);
  if (tried != displaced_none_.end() && decision.time_ms < tried->second + kStarveAgainMs) return false;
  displaced_none_[key] = decision.time_ms;
  const auto room = scheduler::room_for_gang(state.inventory, placer_, state.running, request, decision.time_ms);
  if (!room) return false;
  const bool known = room->start_ms < INT64_MAX;
  if (!starves && !known) return false;
  claim_for(decision, workload, room->hosts, true, known ? room->start_ms : decision.time_ms);
  return true;
}

}  // namespace capstan::controller
