// How it works: a GoalRoom gives what every domain takes; sums over blocks and clusters give the best of each
// level. Only domains with hosts that are claimed or may take no work are looked at again, as if those
// counted. Then the work that is nearest to making room is listed, and ends and suggestions are tried one by
// one (diagnose_try.cc).
#include "scheduler/diagnose.h"

#include <algorithm>
#include <map>

#include "base/assert.h"
#include "scheduler/diagnose_try.h"
#include "scheduler/goal_room.h"

namespace capstan::scheduler {
namespace {

using fleet::BlockId;
using fleet::ClusterId;

std::optional<Away> away_of(const Inventory& inventory, HostId id) {
  const Inventory::Host& host = inventory.host(id);
  if (host.health == fleet::Health::kAbsent) return Away::kNeverSeen;
  if (host.health == fleet::Health::kSuspect) return Away::kSuspect;
  if (host.health == fleet::Health::kLost) return Away::kLost;
  if (host.condition == fleet::Condition::kDraining) return Away::kDraining;
  if (host.condition == fleet::Condition::kFailed) return Away::kFailed;
  if (host.condition == fleet::Condition::kInRepair) return Away::kInRepair;
  if (host.condition == fleet::Condition::kQuarantined) return Away::kQuarantined;
  if (!inventory.usable(id) && !host.cordoned) return Away::kUltraServerOut;
  if (host.cordoned) return Away::kCordoned;
  if (host.claimed) return Away::kClaimed;
  return std::nullopt;
}

// Visits the domains of a block, of a cluster.
template <class Visit>
void visit_domains(const fleet::Topology& topology, BlockId block, Visit visit) {
  for (const auto& extent : topology.block(block).extents) {
    for (std::uint32_t i = 0; i < extent.count; ++i) visit(index(extent.first) + i);
  }
}

class Diagnoser {
 public:
  Diagnoser(Inventory& inventory, Placer& placer, const RunningJobs& running, const Request& request,
            Diagnosis& out)
      : inventory_(inventory),
        placer_(placer),
        running_(running),
        request_(request),
        goal_(goal_of(request, out.refusal.group)),
        clusters_(clusters_of(inventory.topology(), request)),
        room_(inventory, placer, goal_, clusters_),
        out_(out) {
    out.segment = goal_.segment;
    out.need = goal_.need;
  }

  void look() {
    const bool never = out_.refusal.never();
    find_best(never);
    if (out_.domain) {
      const fleet::Domain& best = inventory_.topology().domain(DomainId(out_.domain->id));
      for (std::uint32_t i = 0; i < best.hosts; ++i)
        out_.ranks_per_host = std::max(out_.ranks_per_host, room_.most(HostId(index(best.first) + i)));
    }
    if (never || !out_.domain) return;
    refine();
    const std::vector<std::uint32_t> area = binding_domains();
    look_at_hosts(area);
    near_ = nearest(area);
    list_holders();
  }

  const std::vector<std::uint32_t>& near() const { return near_; }
  const std::vector<ClusterId>& clusters() const { return clusters_; }
  const Goal& goal() const { return goal_; }

 private:
  // Ranks that the domain takes; were everything idle, if the request could never fit.
  std::int64_t fit(std::uint32_t domain, const ClassMask& mask, bool never) const {
    if (!never) return room_.fit(domain);
    return domain_fit(inventory_, DomainId(domain), goal_.shape, mask, {.hosts = Hosts::kAll});
  }

  void find_best(bool never) {
    const auto& topology = inventory_.topology();
    const ClassMask mask(topology, goal_.shape);
    const auto better = [](std::optional<Candidate>& best, const Candidate& now) {
      if (!best || now.fits > best->fits) best = now;
    };
    for (const ClusterId cluster : clusters_) {
      std::int64_t in_cluster = 0;
      for (const BlockId block : topology.cluster(cluster).blocks) {
        std::int64_t in_block = 0;
        visit_domains(topology, block, [&](std::uint32_t domain) {
          const std::int64_t ranks = fit(domain, mask, never);
          in_block += ranks / goal_.segment;
          if (out_.domain && ranks <= out_.domain->fits) return;
          if (ranks == 0 && room_.most(topology.domain(DomainId(domain)).first) == 0) return;
          better(out_.domain, {Level::kDomain, domain, ranks, goal_.segment});
        });
        better(out_.block, {Level::kBlock, index(block), in_block, goal_.need});
        in_cluster += in_block;
      }
      better(out_.cluster, {Level::kCluster, index(cluster), in_cluster, goal_.need});
    }
  }

  // Would it fit if hosts that are away or claimed counted?
  void refine() {
    std::vector<std::uint32_t> troubled;
    const auto& topology = inventory_.topology();
    for (std::uint32_t i = 0; i < inventory_.hosts(); ++i) {
      const HostId id{i};
      if (room_.most(id) == 0) continue;
      const Inventory::Host& host = inventory_.host(id);
      const std::uint32_t domain = index(topology.domain_of(id));
      if ((inventory_.usable(id) && !host.claimed) || (!troubled.empty() && troubled.back() == domain))
        continue;
      troubled.push_back(domain);
      if (host.cordoned && cordoned_.size() < kUncordonTried) cordoned_.push_back(id);
    }
    GoalRoom more = room_;
    for (const Hosts hosts : {Hosts::kUsable, Hosts::kInUse}) {
      more.set_hosts(hosts);
      for (const std::uint32_t domain : troubled) more.update(domain);
      if (!more.met()) continue;
      out_.refusal.reason = hosts == Hosts::kUsable ? Reason::kClaimed : Reason::kHostsUnavailable;
      return;
    }
  }

  // Where the decision falls: one UltraServer, if one segment is all; else the best block or cluster.
  std::vector<std::uint32_t> binding_domains() const {
    const auto& topology = inventory_.topology();
    const fleet::Domain& best = topology.domain(DomainId(out_.domain->id));
    if (goal_.need == 1 && best.hosts > 1) return {out_.domain->id};
    std::vector<std::uint32_t> out;
    const auto take = [&](std::uint32_t domain) {
      if (room_.most(topology.domain(DomainId(domain)).first) > 0) out.push_back(domain);
    };
    const BlockId best_block = goal_.need == 1 ? best.block : BlockId(out_.block->id);
    if (goal_.area == Level::kBlock) {
      visit_domains(topology, best_block, take);
      return out;
    }
    const ClusterId cluster =
        goal_.need == 1 ? topology.block(best.block).cluster : ClusterId(out_.cluster->id);
    for (const BlockId block : topology.cluster(cluster).blocks) visit_domains(topology, block, take);
    return out;
  }

  void look_at_hosts(const std::vector<std::uint32_t>& area) {
    std::map<Away, AwayHosts> away;
    for (const std::uint32_t domain : area) {
      const fleet::Domain& row = inventory_.topology().domain(DomainId(domain));
      for (std::uint32_t i = 0; i < row.hosts; ++i) {
        const HostId id{index(row.first) + i};
        if (room_.most(id) == 0) continue;
        const auto why = away_of(inventory_, id);
        if (!why) {
          out_.free = out_.free + inventory_.room(id);
          continue;
        }
        AwayHosts& entry = away.try_emplace(*why, AwayHosts{*why, 0, id}).first->second;
        ++entry.hosts;
      }
    }
    for (const auto& [why, entry] : away) out_.away.push_back(entry);
    std::stable_sort(out_.away.begin(), out_.away.end(),
                     [](const AwayHosts& a, const AwayHosts& b) { return a.hosts > b.hosts; });
  }

  // The domains that lack least for a segment more.
  std::vector<std::uint32_t> nearest(std::vector<std::uint32_t> area) const {
    const auto lacks = [&](std::uint32_t domain) {
      const std::int64_t rest = room_.fit(domain) % goal_.segment;
      return std::pair(goal_.segment - rest, domain);
    };
    const std::size_t count = std::min(area.size(), kNearDomains);
    std::partial_sort(area.begin(), area.begin() + static_cast<std::ptrdiff_t>(count), area.end(),
                      [&](std::uint32_t a, std::uint32_t b) { return lacks(a) < lacks(b); });
    area.resize(count);
    std::sort(area.begin(), area.end());
    return area;
  }

  void list_holders() {
    std::map<std::int64_t, HolderHere> found;
    for (const std::uint32_t domain : near_) {
      const fleet::Domain& row = inventory_.topology().domain(DomainId(domain));
      for (std::uint32_t i = 0; i < row.hosts; ++i) {
        const HostId id{index(row.first) + i};
        for (const Inventory::Holder& holder : inventory_.host(id).holders) {
          HolderHere& entry = found[holder.job];
          entry.job = holder.job;
          entry.hosts += 1;
          entry.ranks += holder.ranks;
          if (const auto job = running_.find(holder.job); job != running_.end())
            entry.held = entry.held + held_on(job->second, id, holder);
        }
      }
    }
    for (const auto& [job, entry] : found) out_.holders.push_back(entry);
    std::stable_sort(out_.holders.begin(), out_.holders.end(), [](const HolderHere& a, const HolderHere& b) {
      return a.held.gpus != b.held.gpus ? a.held.gpus > b.held.gpus : a.ranks > b.ranks;
    });
    if (out_.holders.size() <= kHoldersNamed) return;
    out_.holders_more = out_.holders.size() - kHoldersNamed;
    out_.holders.resize(kHoldersNamed);
  }

  static Capacity held_on(const Running& row, HostId host, const Inventory::Holder& holder) {
    if (row.each.empty()) return {};
    if (row.each.size() == 1) return times(row.each.front(), holder.ranks);
    Capacity out;
    std::size_t at = 0;
    for (std::size_t group = 0; group < row.group_ends.size(); ++group) {
      for (; at < row.group_ends[group]; ++at) {
        if (row.slices[at].host == host) out = out + times(row.each[group], row.slices[at].ranks);
      }
    }
    return out;
  }

 public:
  const std::vector<HostId>& cordoned() const { return cordoned_; }

 private:
  Inventory& inventory_;
  Placer& placer_;
  const RunningJobs& running_;
  const Request& request_;
  Goal goal_;
  std::vector<ClusterId> clusters_;
  GoalRoom room_;
  Diagnosis& out_;
  std::vector<std::uint32_t> near_;
  std::vector<HostId> cordoned_;
};

}  // namespace

Diagnosis diagnose(Inventory& inventory, Placer& placer, const RunningJobs& running, const Request& request,
                   std::int64_t now_ms) {
  Diagnosis out;
  out.now_ms = now_ms;
  const Placed placed = placer.place(inventory, request);
  if (placed) {
    out.fits = true;
    return out;
  }
  out.refusal = placed.error();
  if (out.refusal.reason == Reason::kNoHosts || out.refusal.reason == Reason::kNoSuchPlace) {
    suggest(inventory, placer, request, out);
    return out;
  }
  Diagnoser diagnoser(inventory, placer, running, request, out);
  diagnoser.look();
  suggest(inventory, placer, request, out);
  if (!out.refusal.never()) {
    suggest_uncordon(inventory, placer, request, diagnoser.cordoned(), out);
    try_ends_and_stops(inventory, placer, running, request, diagnoser.near(), now_ms, out);
  }
  return out;
}

}  // namespace capstan::scheduler
