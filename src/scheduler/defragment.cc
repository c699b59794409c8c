// How it works: domains that are free already are claimed, so the Placer leaves them alone. Then, domain by
// domain from the cheapest: its work is taken off, the domain is claimed, and each unit is placed again, the
// largest first. If one does not fit, everything in this domain goes back as it was. At the end all goes
// back.
#include "scheduler/defragment.h"

#include <algorithm>
#include <numeric>

#include "base/assert.h"
#include "scheduler/eviction_table.h"

namespace capstan::scheduler {
namespace {

using UnitId = EvictionTable::UnitId;

class Defragmenter {
 public:
  Defragmenter(Inventory& inventory, Placer& placer, const RunningJobs& running, std::int64_t now_ms,
               const DefragmentOptions& options)
      : inventory_(inventory),
        placer_(placer),
        options_(options),
        mask_(inventory.topology(), options.shape),
        all_(clusters_allowed(inventory.topology(), {})),
        table_(inventory, running,
               {.now_ms = now_ms,
                .clusters = all_,
                .in_question =
                    [&](const fleet::HostClass& host_class) { return allows(options.shape, host_class); },
                .role =
                    [](const Running& row) {
                      return row.preemptible && !row.stopping ? Role::kRemovable : Role::kStays;
                    }}) {}

  Defragmentation run() {
    claim_free_domains();
    for (const auto& [cost, domain] : candidates()) {
      if (out_.moves.size() >= options_.moves_max || out_.freed.size() >= options_.domains_max) break;
      free_domain(domain);
    }
    for (std::size_t i = held_.size(); i-- > 0;) move(held_[i], false);
    for (const HostId host : claimed_) inventory_.set_claimed(host, false);
    return std::move(out_);
  }

 private:
  struct Held {
    UnitId unit = 0;
    Placement placement;
  };

  // Free for what is wanted, whether or not it is claimed.
  bool is_free(std::uint32_t domain) const {
    if (options_.segment > 0)
      return domain_fit(inventory_, DomainId(domain), options_.shape, mask_, {.hosts = Hosts::kUsable}) >=
             options_.segment;
    const fleet::Domain& row = inventory_.topology().domain(DomainId(domain));
    for (std::uint32_t i = 0; i < row.hosts; ++i) {
      const HostId host{index(row.first) + i};
      if (!inventory_.idle(host) || !inventory_.usable(host)) return false;
    }
    return true;
  }

  bool in_question(std::uint32_t domain) const {
    const fleet::Domain& row = inventory_.topology().domain(DomainId(domain));
    return row.hosts > 1 && mask_.allows(inventory_.topology().class_of(row.first));
  }

  void claim(std::uint32_t domain) {
    const fleet::Domain& row = inventory_.topology().domain(DomainId(domain));
    for (std::uint32_t i = 0; i < row.hosts; ++i) {
      const HostId host{index(row.first) + i};
      if (inventory_.host(host).claimed) continue;
      inventory_.set_claimed(host, true);
      claimed_.push_back(host);
    }
  }

  void claim_free_domains() {
    for (std::uint32_t domain = 0; domain < inventory_.topology().domains(); ++domain) {
      if (in_question(domain) && is_free(domain)) claim(domain);
    }
  }

  // Domains that could be freed, the cheapest first.
  std::vector<std::pair<std::int64_t, std::uint32_t>> candidates() const {
    std::vector<std::pair<std::int64_t, std::uint32_t>> out;
    for (const std::uint32_t domain : table_.domains()) {
      if (!in_question(domain) || is_free(domain)) continue;
      std::int64_t cost = 0;
      std::size_t units = 0;
      UnitId last = UINT32_MAX;
      for (const std::uint32_t at : table_.in_domain(domain)) {
        const auto& entry = table_.entry(at);
        if (table_.unit(entry.unit).role != Role::kRemovable || entry.unit == last) continue;
        last = entry.unit;
        cost += table_.cost(entry.unit);
        ++units;
      }
      if (units > 0 && (options_.segment > 0 || units <= options_.moves_max)) out.emplace_back(cost, domain);
    }
    const std::size_t count = std::min(out.size(), kDomainsTried);
    std::partial_sort(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(count), out.end());
    out.resize(count);
    return out;
  }

  std::vector<UnitId> units_in(std::uint32_t domain) const {
    std::vector<UnitId> out;
    for (const std::uint32_t at : table_.in_domain(domain)) {
      const UnitId unit = table_.entry(at).unit;
      if (table_.unit(unit).role != Role::kRemovable || table_.unit(unit).evicted) continue;
      if (out.empty() || out.back() != unit) out.push_back(unit);
    }
    return out;
  }

  // Takes off what must go for the domain to be free, cheapest first, and no more; empty: it cannot be.
  std::vector<UnitId> empty_out(std::uint32_t domain) {
    std::vector<UnitId> units = units_in(domain);
    std::sort(units.begin(), units.end(), [&](UnitId a, UnitId b) {
      return std::pair(table_.cost(a), a) < std::pair(table_.cost(b), b);
    });
    std::vector<UnitId> gone;
    for (const UnitId unit : units) {
      if (is_free(domain)) break;
      table_.evict(unit);
      gone.push_back(unit);
    }
    const bool freed = is_free(domain);
    std::vector<UnitId> out;
    for (std::size_t i = gone.size(); i-- > 0;) {
      table_.restore(gone[i]);
      if (!freed || is_free(domain)) continue;
      table_.evict(gone[i]);
      out.push_back(gone[i]);
    }
    return out;
  }

  void free_domain(std::uint32_t domain) {
    if (is_free(domain)) return;  // by a move out of another one
    std::vector<UnitId> units = empty_out(domain);
    const std::size_t claims_before = claimed_.size(), held_before = held_.size();
    bool possible = !units.empty() && out_.moves.size() + units.size() <= options_.moves_max;
    if (possible) claim(domain);
    // The largest first: it has the fewest places to go to.
    std::sort(units.begin(), units.end(), [&](UnitId a, UnitId b) {
      const std::int64_t left = ranks_of(a), right = ranks_of(b);
      return left != right ? left > right : a < b;
    });
    for (std::size_t i = 0; i < units.size() && possible; ++i) possible = place_again(units[i]);
    if (possible) {
      for (std::size_t i = held_before; i < held_.size(); ++i) name(held_[i]);
      out_.freed.push_back(DomainId(domain));
      take_others(units);
      return;
    }
    while (held_.size() > held_before) {
      move(held_.back(), false);
      held_.pop_back();
    }
    for (const UnitId unit : units) table_.restore(unit);
    while (claimed_.size() > claims_before) {
      inventory_.set_claimed(claimed_.back(), false);
      claimed_.pop_back();
    }
  }

  // Gangs leave other domains too; those that are free by it stay so.
  void take_others(const std::vector<UnitId>& units) {
    for (const UnitId unit : units) {
      for (const auto& entry : table_.entries(unit)) {
        const DomainId domain = inventory_.topology().domain_of(entry.host);
        if (std::find(out_.freed.begin(), out_.freed.end(), domain) != out_.freed.end()) continue;
        if (!in_question(index(domain)) || !is_free(index(domain))) continue;
        claim(index(domain));
        out_.freed.push_back(domain);
      }
    }
  }

  std::int64_t ranks_of(UnitId unit) const {
    std::int64_t out = 0;
    for (const auto& entry : table_.entries(unit)) out += entry.ranks;
    return out;
  }

  bool place_again(UnitId id) {
    const auto& unit = table_.unit(id);
    Placed placed = std::unexpected(Refusal{});
    if (unit.running->gang) {
      placed = placer_.place(inventory_, request_like(inventory_.topology(), *unit.running));
    } else {
      const auto& entry = table_.entries(id).front();
      Running one = *unit.running;
      one.slices = {{entry.host, entry.ranks, entry.gpus}};
      one.group_ends = {1};
      Request request = request_like(inventory_.topology(), one);
      request.groups.front().segment = 0;
      placed = placer_.place_some(inventory_, request);
      if (placed && placed->group_ranks.front() < entry.ranks) return false;
    }
    if (!placed) return false;
    held_.push_back({id, std::move(*placed)});
    move(held_.back(), true);
    return true;
  }

  // Of a gang the placement's groups come one after another, as many ranks each as before.
  void move(const Held& held, bool hold) {
    const Running& running = *table_.unit(held.unit).running;
    std::size_t group = 0;
    std::int64_t rest = held.placement.group_ranks.front();
    for (const Slice& slice : held.placement.slices) {
      while (rest == 0) rest = held.placement.group_ranks[++group];
      if (hold) {
        inventory_.hold(slice.host, running.job, static_cast<std::uint32_t>(slice.ranks), running.each[group],
                        slice.gpus);
      } else {
        inventory_.release(slice.host, running.job, static_cast<std::uint32_t>(slice.ranks),
                           running.each[group], slice.gpus);
      }
      rest -= slice.ranks;
    }
  }

  void name(const Held& held) {
    const auto& unit = table_.unit(held.unit);
    Move row{.job = unit.running->job,
             .whole = unit.running->gang,
             .ranks = ranks_of(held.unit),
             .to = held.placement.slices,
             .cost = table_.cost(held.unit)};
    if (!row.whole) row.host = table_.entries(held.unit).front().host;
    for (const auto& entry : table_.entries(held.unit))
      row.from.push_back(inventory_.topology().domain_of(entry.host));
    std::sort(row.from.begin(), row.from.end());
    row.from.erase(std::unique(row.from.begin(), row.from.end()), row.from.end());
    out_.cost += row.cost;
    out_.moves.push_back(std::move(row));
  }

  Inventory& inventory_;
  Placer& placer_;
  const DefragmentOptions& options_;
  ClassMask mask_;
  std::vector<fleet::ClusterId> all_;
  EvictionTable table_;
  std::vector<Held> held_;
  std::vector<HostId> claimed_;
  Defragmentation out_;
};

// Consecutive ranks in one domain are a part; segments of the greatest length that divides all parts (the
// last may be shorter) keep together what is together now.
std::int64_t segment_of(const fleet::Topology& topology, const Running& gang, std::size_t begin,
                        std::size_t end) {
  std::vector<std::int64_t> parts;
  DomainId last{};
  for (std::size_t i = begin; i < end; ++i) {
    const DomainId domain = topology.domain_of(gang.slices[i].host);
    if (parts.empty() || domain != last) parts.push_back(0);
    parts.back() += gang.slices[i].ranks;
    last = domain;
  }
  if (parts.size() == 1) return parts.front();
  std::int64_t out = 0;
  for (std::size_t i = 0; i + 1 < parts.size(); ++i) out = std::gcd(out, parts[i]);
  return out;
}

}  // namespace

Request request_like(const fleet::Topology& topology, const Running& gang) {
  CAPSTAN_ASSERT(!gang.slices.empty());
  Request out;
  std::size_t begin = 0;
  for (std::size_t group = 0; group < gang.group_ends.size(); ++group) {
    const std::size_t end = gang.group_ends[group];
    Group row{.ranks = 0, .shape = {.each = gang.each[group]}};
    for (std::size_t i = begin; i < end; ++i) row.ranks += gang.slices[i].ranks;
    if (begin < end) {
      row.shape.host_class = topology.host_class(gang.slices[begin].host).name;
      if (group == 0) row.segment = segment_of(topology, gang, begin, end);
    }
    if (row.ranks > 0) out.groups.push_back(std::move(row));
    begin = end;
  }
  bool one_block = true;
  for (const Slice& slice : gang.slices)
    one_block = one_block && topology.block_of(slice.host) == topology.block_of(gang.slices.front().host);
  out.required = one_block ? Level::kBlock : Level::kCluster;
  const auto& cluster = topology.cluster(topology.cluster_of(gang.slices.front().host));
  out.cluster = cluster.name;
  out.region = topology.region(cluster.region).name;
  return out;
}

Defragmentation propose(Inventory& inventory, Placer& placer, const RunningJobs& running, std::int64_t now_ms,
                        const DefragmentOptions& options) {
  return Defragmenter(inventory, placer, running, now_ms, options).run();
}

}  // namespace capstan::scheduler
