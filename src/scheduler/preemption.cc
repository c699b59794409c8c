// How it works: what is stopping is taken off the inventory first; if the request then fits, it only waits.
// Else a VictimSearch meets the goal of each group in turn, and the Placer has the last word. Everything is
// put back.
#include "scheduler/preemption.h"

#include <algorithm>
#include <optional>

#include "base/assert.h"
#include "scheduler/place_among.h"
#include "scheduler/victim_search.h"

namespace capstan::scheduler {
namespace {

using fleet::ClusterId;
using UnitId = EvictionTable::UnitId;

constexpr std::int64_t kTentative = INT64_MAX;       // holds groups while others are looked at
constexpr std::size_t kScatteredDomainsMax = 1'024;  // with services or tasks, where any one domain will do

struct Chosen {
  std::vector<std::pair<UnitId, std::uint32_t>> units;  // and how many ranks of each stay
  std::int64_t cost = 0;
};

// Puts the units back; what they were going to keep is remembered here alone.
Chosen take_back(EvictionTable& table, const std::vector<UnitId>& units) {
  Chosen out;
  for (const UnitId unit : units) {
    out.units.emplace_back(unit, table.unit(unit).ranks_kept);
    out.cost += table.cost(unit);
    table.restore(unit);
    if (!table.unit(unit).running->gang) table.keep_ranks(unit, 0);
  }
  return out;
}

class Attempt {
 public:
  Attempt(Inventory& inventory, Placer& placer, EvictionTable& table, const Request& request)
      : inventory_(inventory), placer_(placer), table_(table), request_(request) {}

  // The cheapest set that was found; nullopt: none makes room.
  std::optional<Chosen> run(const std::vector<ClusterId>& clusters) {
    if (request_.groups.size() == 1) return one_group(clusters);
    std::optional<Chosen> best;
    for (const ClusterId cluster : clusters) {
      auto chosen = in_cluster(cluster);
      if (chosen && (!best || chosen->cost < best->cost)) best = std::move(chosen);
    }
    return best;
  }

 private:
  std::optional<Chosen> one_group(const std::vector<ClusterId>& clusters) {
    Goal goal = goal_of(request_, 0);
    auto out = meet(goal, clusters);
    if (!out && goal.short_last > 0) {  // where the Placer wants the room of a whole segment for the last one
      goal.short_last = 0;
      out = meet(goal, clusters);
    }
    return out;
  }

  std::optional<Chosen> meet(const Goal& goal, const std::vector<ClusterId>& clusters) {
    GoalRoom room(inventory_, placer_, goal, clusters);
    VictimSearch search(table_, room);
    if (!search.run()) return std::nullopt;
    const bool placed = placer_.place(inventory_, request_).has_value();
    Chosen out = take_back(table_, search.evicted());
    if (!placed) return std::nullopt;
    return out;
  }

  // All groups inside one cluster, one after another.
  std::optional<Chosen> in_cluster(ClusterId cluster) {
    const auto& topology = inventory_.topology();
    Request here = request_;
    here.cluster = topology.cluster(cluster).name;
    here.region = topology.region(topology.cluster(cluster).region).name;
    std::vector<UnitId> units;
    std::vector<std::pair<Slice, Capacity>> held;
    bool possible = true;
    for (std::size_t i = 0; i < here.groups.size() && possible; ++i) {
      GoalRoom room(inventory_, placer_, goal_of(here, i), {cluster});
      VictimSearch search(table_, room);
      possible = search.run();
      if (!possible) break;
      units.insert(units.end(), search.evicted().begin(), search.evicted().end());
      Request group = here;
      group.groups = {here.groups[i]};
      if (i > 0) group.required = Level::kCluster;
      const Placed placed = placer_.place(inventory_, group);
      possible = placed.has_value();
      if (!possible || i + 1 == here.groups.size()) break;
      for (const Slice& slice : placed->slices) {
        held.emplace_back(slice, here.groups[i].shape.each);
        inventory_.hold(slice.host, kTentative, static_cast<std::uint32_t>(slice.ranks), held.back().second,
                        slice.gpus);
      }
    }
    for (const auto& [slice, each] : held)
      inventory_.release(slice.host, kTentative, static_cast<std::uint32_t>(slice.ranks), each, slice.gpus);
    possible = possible && placer_.place(inventory_, here).has_value();
    if (possible) drop_needless(here, units);
    Chosen out = take_back(table_, units);
    if (!possible) return std::nullopt;
    return out;
  }

  // What may stay, by trying halves and halves of halves: groups compete for room, so sums do not say.
  void drop_needless(const Request& here, std::vector<UnitId>& units) {
    std::sort(units.begin(), units.end(), [&](UnitId a, UnitId b) {
      return std::pair(-table_.cost(a), a) < std::pair(-table_.cost(b), b);
    });
    drop(here, units, 0, units.size());
    std::erase_if(units, [&](UnitId unit) { return !table_.unit(unit).evicted; });
    std::sort(units.begin(), units.end());
  }

  void drop(const Request& here, const std::vector<UnitId>& units, std::size_t begin, std::size_t end) {
    if (begin == end) return;
    for (std::size_t i = begin; i < end; ++i) table_.restore(units[i]);
    if (placer_.place(inventory_, here)) return;
    for (std::size_t i = begin; i < end; ++i) table_.evict(units[i]);
    if (end - begin == 1) return;
    const std::size_t middle = begin + (end - begin) / 2;
    drop(here, units, begin, middle);
    drop(here, units, middle, end);
  }

  Inventory& inventory_;
  Placer& placer_;
  EvictionTable& table_;
  const Request& request_;
};

Victim victim_of(const EvictionTable& table, UnitId id) {
  const auto& unit = table.unit(id);
  Victim out{.job = unit.running->job, .whole = unit.running->gang, .cost = table.cost(id)};
  if (out.whole) {
    for (const auto& entry : table.entries(id)) out.ranks += entry.ranks;
    return out;
  }
  out.host = table.entries(id).front().host;
  out.ranks = table.ranks_going(id);
  if (unit.running->each.front().gpu_milli > 0) out.gpus = table.gpus_going(id);
  return out;
}

// Ranks of one job on one host are named together.
void name_victims(const EvictionTable& table, const Chosen& chosen, Eviction& out) {
  for (const auto& [unit, kept] : chosen.units) out.victims.push_back(victim_of(table, unit));
  std::stable_sort(out.victims.begin(), out.victims.end(), [](const Victim& a, const Victim& b) {
    return std::pair(a.job, a.host) < std::pair(b.job, b.host);
  });
  std::size_t kept = 0;
  for (std::size_t i = 0; i < out.victims.size(); ++i) {
    const Victim& victim = out.victims[i];
    out.cost += victim.cost;
    // Shares stay apart if they are on one GPU: how many ranks go from each must be clear.
    if (kept > 0 && !victim.whole && out.victims[kept - 1].job == victim.job &&
        out.victims[kept - 1].host == victim.host && victim.gpus == 0) {
      out.victims[kept - 1].ranks += victim.ranks;
      out.victims[kept - 1].cost += victim.cost;
    } else {
      out.victims[kept++] = victim;
    }
  }
  out.victims.resize(kept);
}

std::optional<Eviction> look(Inventory& inventory, Placer& placer, const RunningJobs& running,
                             const Request& request, const Asker& asker, std::int64_t now_ms,
                             std::size_t domains_enough, std::optional<ClusterId> only, bool& everywhere) {
  const auto& topology = inventory.topology();
  Request here = request;
  if (only) {
    here.cluster = topology.cluster(*only).name;
    here.region = topology.region(topology.cluster(*only).region).name;
  }
  const auto clusters = clusters_of(topology, here);
  const auto elsewhere = [&](const Running& row) {
    return only && row.gang && row.cluster != kAnyCluster && row.cluster != index(*only);
  };
  EvictionTable table(inventory, running,
                      {.now_ms = now_ms,
                       .clusters = clusters,
                       .in_question =
                           [&](const fleet::HostClass& host_class) {
                             return std::any_of(
                                 request.groups.begin(), request.groups.end(),
                                 [&](const Group& group) { return allows(group.shape, host_class); });
                           },
                       .domains_enough = domains_enough,
                       .role =
                           [&](const Running& row) {
                             if (row.stopping) return Role::kLeaving;
                             return !elsewhere(row) && may_displace(asker, row) ? Role::kRemovable : Role::kStays;
                           }});
  everywhere = table.looked_everywhere();
  bool leaving = false;
  for (UnitId unit = 0; unit < table.units(); ++unit) {
    if (table.unit(unit).role != Role::kLeaving) continue;
    table.evict(unit);
    leaving = true;
  }
  Eviction out;
  if (leaving) {
    if (auto placed = placer.place(inventory, request)) {
      out.wait_only = true;
      out.placement = std::move(*placed);
      return out;
    }
  }
  const auto chosen = Attempt(inventory, placer, table, here).run(clusters);
  if (!chosen) return std::nullopt;
  for (const auto& [unit, kept] : chosen->units) {
    if (kept > 0) table.keep_ranks(unit, kept);
    table.evict(unit);
  }
  auto placed = placer.place(inventory, here);
  if (!placed) return std::nullopt;
  out.placement = std::move(*placed);
  name_victims(table, *chosen, out);
  return out;
}

// For a large gang: the cluster with the most room for it now, where the least has to go. nullopt: look at all of them.
std::optional<ClusterId> nearest_cluster(Inventory& inventory, Placer& placer, const Request& request) {
  const auto& topology = inventory.topology();
  const auto clusters = clusters_of(topology, request);
  const bool inside_one = request.required == Level::kCluster || request.required == Level::kBlock;
  if (request.groups.size() != 1 || clusters.size() < 2 || !inside_one) return std::nullopt;
  if (goal_of(request, 0).need < kSegmentsOfLarge) return std::nullopt;
  std::optional<ClusterId> best;
  std::int64_t most = 0;
  for (const ClusterId cluster : clusters) {
    Request here = request;
    here.cluster = topology.cluster(cluster).name;
    here.region = topology.region(topology.cluster(cluster).region).name;
    const std::int64_t room = placer.available(inventory, here, 0);
    if (room <= most) continue;
    best = cluster;
    most = room;
  }
  return best;
}

}  // namespace

std::expected<Eviction, Refusal> choose_victims(Inventory& inventory, Placer& placer,
                                                const RunningJobs& running, const Request& request,
                                                const Asker& asker, std::int64_t now_ms) {
  Placed fits = placer.place(inventory, request);
  if (fits) return Eviction{.victims = {}, .placement = std::move(*fits)};
  if (fits.error().never()) return std::unexpected(fits.error());
  // Where one domain is all that is needed a look at a part of the fleet nearly always finds it.
  const bool one = request.groups.size() == 1 && goal_of(request, 0).need == 1;
  bool everywhere = true;
  std::optional<Eviction> found;
  if (const auto cluster = nearest_cluster(inventory, placer, request)) {
    found = look(inventory, placer, running, request, asker, now_ms, SIZE_MAX, cluster, everywhere);
    everywhere = false;
  } else {
    found = look(inventory, placer, running, request, asker, now_ms, one ? kScatteredDomainsMax : SIZE_MAX,
                 std::nullopt, everywhere);
  }
  if (!found && !everywhere)
    found = look(inventory, placer, running, request, asker, now_ms, SIZE_MAX, std::nullopt, everywhere);
  if (!found) return std::unexpected(fits.error());
  return std::move(*found);
}

std::optional<Eviction> choose_victims_among(Inventory& inventory, const RunningJobs& running, const Request& request,
                                             const Asker& asker, const std::set<HostId>& hosts, std::int64_t now_ms) {
  if (hosts.empty()) return std::nullopt;
  std::vector<std::uint32_t> domains;
  for (const HostId host : hosts) domains.push_back(index(inventory.topology().domain_of(host)));
  domains.erase(std::unique(domains.begin(), domains.end()), domains.end());
  const auto role = [&](const Running& row) {
    if (row.stopping) return Role::kLeaving;
    return may_displace(asker, row) ? Role::kRemovable : Role::kStays;
  };
  EvictionTable table(inventory, running, {.now_ms = now_ms, .domains = domains, .role = role});
  std::vector<UnitId> removable;
  for (UnitId unit = 0; unit < table.units(); ++unit) {
    if (table.unit(unit).role == Role::kLeaving) {
      table.evict(unit);
      continue;
    }
    const auto entries = table.entries(unit);
    if (std::any_of(entries.begin(), entries.end(), [&](const auto& entry) { return hosts.contains(entry.host); }))
      removable.push_back(unit);
  }
  std::stable_sort(removable.begin(), removable.end(),
                   [&](UnitId a, UnitId b) { return table.cost(a) < table.cost(b); });
  const HostFilter here{.hosts = Hosts::kUsable, .only = &hosts};
  Placed placed = place_among(inventory, request, here);
  std::size_t gone = 0;
  for (; !placed && gone < removable.size(); ++gone) {
    table.evict(removable[gone]);
    placed = place_among(inventory, request, here);
  }
  if (!placed) return std::nullopt;
  Chosen chosen;
  for (std::size_t i = gone; i-- > 0;) {
    table.restore(removable[i]);
    if (Placed without = place_among(inventory, request, here)) {
      placed = std::move(without);
      continue;
    }
    table.evict(removable[i]);
    chosen.units.emplace_back(removable[i], 0);
  }
  Eviction out;
  out.wait_only = chosen.units.empty();
  out.placement = *std::move(placed);
  name_victims(table, chosen, out);
  return out;
}

}  // namespace capstan::scheduler
