// How it works: a gang that finds no room. Others give way to it, inside its tenant's promised cells if it may, else whoever
// ranks lower; or the room that becomes free soonest is kept for it.
#include <algorithm>

#include "controller/commands.h"
#include "controller/planner.h"
#include "scheduler/claim_hosts.h"

namespace capstan::controller {

using scheduler::Hold;
using scheduler::Request;

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

// What it has left, where the order is by that: seconds, or seconds × size.
std::int64_t Planner::rest_of(const State& state, const Workload& workload) const {
  const auto order = state.policy.order;
  const auto* entry = queue_.find(workload.id);
  if (entry == nullptr || (order != scheduler::Order::kSrtf && order != scheduler::Order::kSrsf)) return 0;
  return order == scheduler::Order::kSrsf ? entry->service : entry->remaining_ms / 1'000;
}

// Whom to displace: inside the cells that are promised if it may, else whoever ranks lower.
std::optional<scheduler::Eviction> Planner::choose_eviction(Decision& decision, const Workload& workload,
                                                            const Request& request, const Terms& terms) {
  State& state = decision.state;
  scheduler::Asker asker{.job = workload.id,
                         .tenant = static_cast<std::uint32_t>(workload.tenant),
                         .priority = workload.spec.priority,
                         .guaranteed = terms.guaranteed,
                         .rest = rest_of(state, workload),
                         .rest_by_size = state.policy.order == scheduler::Order::kSrsf,
                         .now_ms = decision.time_ms};
  if (terms.by_cells) {
    asker.in_cell = true;
    const auto counts = [&](const auto& eviction) {
      return eviction && hold_of(state, workload, terms, eviction->placement) == Hold::kCell;
    };
    auto found = scheduler::choose_victims_among(state.inventory, state.running, request, asker,
                                                 own_cells(state, workload), decision.time_ms);
    if (counts(found)) return found;
    if (terms.in_cells_left) {
      const auto hidden = hide_others_cells(state, workload.tenant);
      auto fresh = scheduler::choose_victims(state.inventory, placer_, state.running, terms.in_cells, asker, decision.time_ms);
      for (const HostId host : hidden) state.inventory.set_claimed(host, false);
      if (counts(fresh)) return *std::move(fresh);
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
      !((terms.by_cells || rest_of(state, workload) > 0) && !state.displaceable.empty()))
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
  claim_for(decision, workload, hosts, false, decision.time_ms);
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
  // Where the order displaces, whoever backfills gives way.
  const bool first = std::exchange(first_refused_, false) && rest_of(state, workload) == 0;
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
