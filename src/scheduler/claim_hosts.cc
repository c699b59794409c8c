// How it works: every host that may be claimed gets a rank (late or not, what its work would lose); domains
// offer their hosts in groups, best first, and the cheapest groups of the cheapest cluster are taken.
#include "scheduler/claim_hosts.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "scheduler/preemption.h"

namespace capstan::scheduler {
namespace {

using fleet::BlockId;
using fleet::ClusterId;

std::int64_t end_of(const Running& running, std::int64_t now_ms) {
  return running.stopping ? now_ms + running.grace_ms : running.ends_by_ms;
}

struct Candidate {
  bool late = false;      // its work may still be there at the beginning
  std::int64_t cost = 0;  // of displacing it
  HostId host{};
  std::int64_t free_ms = 0;
  friend bool operator<(const Candidate& a, const Candidate& b) {
    return std::tie(a.late, a.cost, a.host) < std::tie(b.late, b.cost, b.host);
  }
};

// Hosts of one domain that are claimed together.
struct Offer {
  std::int64_t late = 0;
  std::int64_t cost = 0;   // of a host
  std::int64_t order = 0;  // of equals: whole domains, large ones first; groups: domains that are filled best
  std::vector<Candidate> hosts;
};
constexpr std::int64_t kCostMax = INT64_MAX / 1'048'576;

class Chooser {
 public:
  Chooser(const Inventory& inventory, const Claims& claims, const RunningJobs& running, const ClaimNeed& need,
          std::int64_t now_ms)
      : inventory_(inventory),
        claims_(claims),
        running_(running),
        need_(need),
        now_ms_(now_ms),
        shape_{.each = {}, .gpu_model = need.gpu_model, .host_class = need.host_class},
        mask_(inventory.topology(), shape_) {}

  struct Found {
    std::int64_t late = 0, cost = 0;
    std::vector<Candidate> hosts;
  };
  // The hosts in this cluster; fewer than are needed if it has no more.
  Found find(ClusterId cluster, bool ideal) const {
    std::vector<Offer> offers;
    const auto& topology = inventory_.topology();
    for (const BlockId block : topology.cluster(cluster).blocks) {
      for (const auto& extent : topology.block(block).extents) {
        for (std::uint32_t i = 0; i < extent.count; ++i)
          offer(DomainId(index(extent.first) + i), ideal, offers);
      }
    }
    std::sort(offers.begin(), offers.end(), [](const Offer& a, const Offer& b) {
      return std::tuple(a.late, a.cost, a.order, a.hosts.front().host) <
             std::tuple(b.late, b.cost, b.order, b.hosts.front().host);
    });
    Found out;
    std::int64_t rest = need_.hosts;
    const auto take = [&](const Offer& from, std::int64_t count) {
      for (std::int64_t i = 0; i < count; ++i) {
        const Candidate& host = from.hosts[static_cast<std::size_t>(i)];
        out.hosts.push_back(host);
        out.late += host.late;
        out.cost = std::min(kCostMax, out.cost + host.cost);
      }
      rest -= count;
    };
    std::vector<const Offer*> larger;  // than what is left: taken in part, the smallest that suffices first
    for (const Offer& row : offers) {
      const auto size = static_cast<std::int64_t>(row.hosts.size());
      if (size <= rest) {
        take(row, size);
      } else {
        larger.push_back(&row);
      }
    }
    std::stable_sort(larger.begin(), larger.end(), [](const Offer* a, const Offer* b) {
      return std::tuple(a->late, a->cost, a->hosts.size()) < std::tuple(b->late, b->cost, b->hosts.size());
    });
    for (const Offer* row : larger) {
      if (rest == 0) break;
      take(*row, std::min<std::int64_t>(rest, static_cast<std::int64_t>(row->hosts.size())));
    }
    return out;
  }

  bool known_class() const {
    for (std::uint32_t i = 0; i < inventory_.topology().classes(); ++i) {
      if (mask_.allows(fleet::ClassId(i))) return true;
    }
    return false;
  }

 private:
  // What a domain has to offer; `ideal`: were it in service and not claimed.
  void offer(DomainId domain, bool ideal, std::vector<Offer>& out) const {
    const fleet::Domain& row = inventory_.topology().domain(domain);
    std::vector<Candidate> hosts;
    for (std::uint32_t i = 0; i < row.hosts; ++i) {
      const HostId host{index(row.first) + i};
      if (!mask_.allows(inventory_.topology().class_of(host))) continue;
      if (!ideal && (!inventory_.usable(host) || taken(host))) continue;
      hosts.push_back(candidate(host));
    }
    std::sort(hosts.begin(), hosts.end());
    const auto on_time =
        std::count_if(hosts.begin(), hosts.end(), [](const Candidate& host) { return !host.late; });
    const auto group = static_cast<std::size_t>(std::max<std::int64_t>(need_.per_domain, 0));
    const std::size_t size = group > 0 ? group : hosts.size();
    for (std::size_t at = 0; size > 0 && at + size <= hosts.size(); at += size) {
      Offer offer;
      offer.hosts.assign(hosts.begin() + static_cast<std::ptrdiff_t>(at),
                         hosts.begin() + static_cast<std::ptrdiff_t>(at + size));
      for (const Candidate& host : offer.hosts) {
        offer.late += host.late;
        offer.cost = std::min(kCostMax, offer.cost + host.cost);
      }
      offer.cost /= static_cast<std::int64_t>(size);
      offer.order = group > 0 ? on_time % need_.per_domain : -static_cast<std::int64_t>(size);
      out.push_back(std::move(offer));
    }
  }

  bool taken(HostId host) const {
    for (const std::int64_t id : claims_.on(host)) {
      const Claim* claim = claims_.find(id);
      if (claim->from_ms < need_.until_ms && need_.from_ms < claim->until_ms) return true;
    }
    return false;
  }

  Candidate candidate(HostId host) const {
    Candidate out;
    out.host = host;
    for (const auto& holder : inventory_.host(host).holders) {
      const auto at = running_.find(holder.job);
      if (at == running_.end()) continue;
      out.free_ms = std::max(out.free_ms, end_of(at->second, now_ms_));
      if (end_of(at->second, now_ms_) <= need_.from_ms) continue;
      const auto lost =
          static_cast<__int128>(stop_cost(at->second, now_ms_)) * (at->second.gang ? 1 : holder.ranks);
      out.cost += static_cast<std::int64_t>(std::min<__int128>(lost, kCostMax));
      out.cost = at->second.preemptible ? std::min(out.cost, kCostMax) : kCostMax;
    }
    out.late = out.free_ms > need_.from_ms;
    return out;
  }

  const Inventory& inventory_;
  const Claims& claims_;
  const RunningJobs& running_;
  const ClaimNeed& need_;
  std::int64_t now_ms_;
  Shape shape_;
  ClassMask mask_;
};

std::vector<ClusterId> clusters_named(const fleet::Topology& topology, const std::string& name) {
  std::vector<ClusterId> out;
  for (std::uint32_t i = 0; i < topology.clusters(); ++i) {
    if (name.empty() || topology.cluster(ClusterId(i)).name == name) out.push_back(ClusterId(i));
  }
  return out;
}

// The least late, then the cheapest cluster that has them all; else the most that one has.
Chooser::Found best_of(const Chooser& chooser, const std::vector<ClusterId>& clusters, std::int64_t hosts,
                       bool ideal) {
  Chooser::Found best;
  const auto order = [&](const Chooser::Found& found) {
    const auto count = static_cast<std::int64_t>(found.hosts.size());
    return std::tuple(count < hosts, -count, found.late, found.cost);
  };
  for (const ClusterId cluster : clusters) {
    auto found = chooser.find(cluster, ideal);
    if (best.hosts.empty() || order(found) < order(best)) best = std::move(found);
  }
  return best;
}

}  // namespace

std::expected<ClaimHosts, ClaimRefusal> choose_claim_hosts(const Inventory& inventory, const Claims& claims,
                                                           const RunningJobs& running, const ClaimNeed& need,
                                                           std::int64_t now_ms) {
  using Why = ClaimRefusal::Why;
  const auto clusters = clusters_named(inventory.topology(), need.cluster);
  const Chooser chooser(inventory, claims, running, need, now_ms);
  if (claims.all().size() >= kClaimsMax) return std::unexpected(ClaimRefusal{Why::kTooManyClaims});
  const bool window = need.from_ms < need.until_ms && need.hosts > 0;
  if (clusters.empty() || !window || !chooser.known_class())
    return std::unexpected(ClaimRefusal{Why::kNoSuchPlace});
  // With groups only whole ones count.
  ClaimNeed asked = need;
  if (need.per_domain > 0)
    asked.hosts = (need.hosts + need.per_domain - 1) / need.per_domain * need.per_domain;
  const auto count = [](const Chooser::Found& found) {
    return static_cast<std::int64_t>(found.hosts.size());
  };
  const auto find = [&](const ClaimNeed& when, bool ideal) {
    return best_of(Chooser(inventory, claims, running, when, now_ms), clusters, when.hosts, ideal);
  };
  const auto found = find(asked, false);
  if (count(found) >= asked.hosts) {
    ClaimHosts out{.hosts = {}, .ready_ms = need.from_ms, .in_the_way = {}};
    for (const Candidate& host : found.hosts) {
      out.hosts.insert(host.host);
      out.ready_ms = std::max(out.ready_ms, host.free_ms);
      for (const auto& holder : inventory.host(host.host).holders) {
        const auto at = running.find(holder.job);
        if (at != running.end() && end_of(at->second, now_ms) > need.from_ms)
          out.in_the_way.insert(holder.job);
      }
    }
    return out;
  }
  ClaimRefusal refusal{Why::kTaken, count(found), INT64_MAX};
  if (count(find(asked, true)) < asked.hosts) {
    refusal.why = Why::kTooLarge;
    return std::unexpected(refusal);
  }
  // Later, when claims have ended?
  const std::int64_t length = need.until_ms == INT64_MAX ? INT64_MAX : need.until_ms - need.from_ms;
  std::set<std::int64_t> ends;
  for (const auto& [id, claim] : claims.all()) {
    if (claim.until_ms > need.from_ms && claim.until_ms < INT64_MAX) ends.insert(claim.until_ms);
  }
  int tried = 0;
  for (const std::int64_t end : ends) {
    if (++tried > kLaterStartsTried) break;
    ClaimNeed later = asked;
    later.from_ms = end;
    later.until_ms = length > INT64_MAX - end ? INT64_MAX : end + length;
    if (count(find(later, false)) < asked.hosts) continue;
    refusal.possible_from_ms = end;
    break;
  }
  return std::unexpected(refusal);
}

std::optional<GangRoom> room_for_gang(Inventory& inventory, Placer& placer, const RunningJobs& running,
                                      const Request& request, std::int64_t now_ms) {
  std::vector<std::tuple<std::int64_t, std::int64_t, const Running*>> order;  // end, cost
  for (const auto& entry : running.entries()) {
    if (entry.row == nullptr || !entry.row->gang) continue;
    order.emplace_back(end_of(*entry.row, now_ms), stop_cost(*entry.row, now_ms), entry.row);
  }
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::tie(std::get<0>(a), std::get<1>(a)) < std::tie(std::get<0>(b), std::get<1>(b));
  });
  std::size_t gone = 0;
  const auto move_to = [&](std::size_t wanted) {  // so many of them are gone
    while (gone != wanted) {
      const Running& row = *std::get<2>(order[gone < wanted ? gone : gone - 1]);
      std::size_t group = 0;
      for (std::size_t i = 0; i < row.slices.size(); ++i) {
        while (i >= row.group_ends[group]) ++group;
        const Slice& slice = row.slices[i];
        const auto ranks = static_cast<std::uint32_t>(slice.ranks);
        if (gone < wanted) {
          inventory.release(slice.host, row.job, ranks, row.each[group], slice.gpus);
        } else {
          inventory.hold(slice.host, row.job, ranks, row.each[group], slice.gpus);
        }
      }
      gone < wanted ? ++gone : --gone;
    }
  };
  // The fewest that have to end: more never hurt one group, so halving finds it.
  std::optional<Placement> best;
  std::size_t low = 0, high = order.size(), needed = 0;
  const auto fits = [&](std::size_t count) {
    move_to(count);
    auto placed = placer.place(inventory, request);
    if (!placed) return false;
    best = std::move(*placed);
    needed = count;
    return true;
  };
  if (!fits(0) && fits(high)) {
    while (high - low > 1) {
      const std::size_t middle = low + (high - low) / 2;
      (fits(middle) ? high : low) = middle;
    }
  }
  move_to(0);
  if (!best) return std::nullopt;
  GangRoom out;
  for (const Slice& slice : best->slices) out.hosts.insert(slice.host);
  out.start_ms = needed == 0 ? now_ms : std::max(now_ms, std::get<0>(order[needed - 1]));
  return out;
}

}  // namespace capstan::scheduler
