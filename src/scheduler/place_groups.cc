// How it works: `Attempt` places the groups in a given order inside given clusters and remembers what it
// holds, so that its destructor hands everything back. place_groups makes attempts until one places every
// group.
#include "scheduler/place_groups.h"

#include <algorithm>
#include <numeric>

#include "base/assert.h"

namespace capstan::scheduler {
namespace {

using fleet::ClusterId;

constexpr std::int64_t kTentative = INT64_MAX;  // holds groups that are placed while others are tried

struct Done {
  std::vector<Slice> slices;
  std::int64_t ranks = 0;
};

bool tighter(Level level, Level than) {
  return level != Level::kNone && (than == Level::kNone || level < than);
}

// One group now, without holding it.
class GroupPlacer {
 public:
  GroupPlacer(DomainChooser& chooser, const std::vector<ClusterId>& clusters)
      : chooser_(chooser), clusters_(clusters) {}

  std::optional<Done> place(const Group& group, Level required, Level preferred) {
    std::vector<Group> kinds = {group};
    if (avoids_gpus(group.shape)) {
      kinds.insert(kinds.begin(), group);
      kinds.front().shape.without_gpus = true;
    }
    for (const Group& kind : kinds) {
      if (tighter(preferred, required)) {
        if (auto done = at_level(kind, preferred)) return done;
      }
      if (auto done = at_level(kind, required)) return done;
    }
    if (group.ranks_min <= 0 || required == Level::kHost) return std::nullopt;
    for (Group& kind : kinds) {
      kind.ranks = std::min(group.ranks, chooser_.available(kind, required, clusters_));
      if (kind.ranks < group.ranks_min || kind.ranks == 0) continue;
      if (auto done = at_level(kind, required)) return done;
    }
    return std::nullopt;
  }

 private:
  std::optional<Done> at_level(const Group& group, Level level) {
    const bool one_host = level == Level::kHost;
    const Group asked = one_host ? on_one_host(group) : group;
    const auto parts = chooser_.choose(asked, one_host ? Level::kNone : level, clusters_);
    if (!parts) return std::nullopt;
    Done done;
    done.ranks = group.ranks;
    for (const Part& part : *parts) chooser_.fill(asked.shape, part, done.slices);
    if (one_host) done.slices.back().ranks = group.ranks;
    return done;
  }

  DomainChooser& chooser_;
  const std::vector<ClusterId>& clusters_;
};

// All groups of a request, in some order; what is placed is held as long as this lives.
class Attempt {
 public:
  Attempt(Inventory& inventory, const Request& request, DomainChooser& chooser)
      : inventory_(inventory), request_(request), chooser_(chooser), done_(request.groups.size()) {}
  ~Attempt() {
    for (const std::size_t group : held_) each_slice(group, &Inventory::release);
  }
  Attempt(const Attempt&) = delete;
  Attempt& operator=(const Attempt&) = delete;

  bool place(std::size_t which, const std::vector<ClusterId>& clusters, Level further = Level::kCluster) {
    GroupPlacer placer(chooser_, clusters);
    const Group& group = request_.groups[which];
    done_[which] = which == 0 ? placer.place(group, request_.required, request_.preferred)
                              : placer.place(group, further, Level::kNone);
    if (!done_[which]) {
      failed_ = which;
      return false;
    }
    if (request_.groups.size() > 1) {
      held_.push_back(which);
      each_slice(which, &Inventory::hold);
    }
    return true;
  }
  const std::vector<Slice>& slices(std::size_t which) const { return done_[which]->slices; }
  std::size_t failed() const { return failed_; }
  Placement result() const {
    Placement out;
    for (const auto& done : done_) {
      out.slices.insert(out.slices.end(), done->slices.begin(), done->slices.end());
      out.group_ranks.push_back(done->ranks);
    }
    return out;
  }

 private:
  void each_slice(std::size_t group,
                  void (Inventory::*change)(HostId, std::int64_t, std::uint32_t, const Capacity&, GpuSet)) {
    for (const Slice& slice : done_[group]->slices) {
      (inventory_.*change)(slice.host, kTentative, static_cast<std::uint32_t>(slice.ranks),
                           request_.groups[group].shape.each, slice.gpus);
    }
  }

  Inventory& inventory_;
  const Request& request_;
  DomainChooser& chooser_;
  std::vector<std::optional<Done>> done_;
  std::vector<std::size_t> held_;
  std::size_t failed_ = 0;
};

bool in_one_cluster(const fleet::Topology& topology, const std::vector<Slice>& slices) {
  return std::all_of(slices.begin(), slices.end(), [&](const Slice& slice) {
    return topology.cluster_of(slice.host) == topology.cluster_of(slices.front().host);
  });
}

// Every cluster for a gang that may spread; those of the first group's region if it must stay inside one.
std::vector<ClusterId> spread_clusters(const fleet::Topology& topology, const Request& request,
                                       const std::vector<ClusterId>& clusters, HostId first) {
  if (request.required == Level::kNone) return clusters;
  std::vector<ClusterId> out;
  for (const ClusterId cluster : clusters) {
    if (topology.cluster(cluster).region == topology.cluster(topology.cluster_of(first)).region)
      out.push_back(cluster);
  }
  return out;
}

}  // namespace

std::int64_t segments_of(const Group& group) {
  const std::int64_t segment = std::max<std::int64_t>(group.segment, 1);
  return (group.ranks + segment - 1) / segment;
}

Group on_one_host(const Group& group) {
  Group out = group;
  out.shape.each = times(group.shape.each, group.ranks);
  out.ranks = 1;
  out.segment = 0;
  out.ranks_min = 0;
  return out;
}

std::int64_t ranks_least(const Group& group) {
  if (group.ranks_min <= 0) return group.ranks;
  const std::int64_t segment = std::max<std::int64_t>(group.segment, 1);
  return std::min(group.ranks, (group.ranks_min + segment - 1) / segment * segment);
}

bool avoids_gpus(const Shape& shape) {
  return shape.each.gpus == 0 && shape.each.gpu_milli == 0 && shape.gpu_model.empty() &&
         shape.host_class.empty() && !shape.without_gpus;
}

std::vector<ClusterId> clusters_allowed(const fleet::Topology& topology, const Request& request) {
  std::vector<ClusterId> out;
  for (std::uint32_t i = 0; i < topology.clusters(); ++i) {
    const auto& cluster = topology.cluster(ClusterId(i));
    if (!request.cluster.empty() && cluster.name != request.cluster) continue;
    if (!request.region.empty() && topology.region(cluster.region).name != request.region) continue;
    out.push_back(ClusterId{i});
  }
  return out;
}

Placed place_groups(Inventory& inventory, const Request& request, const std::vector<ClusterId>& clusters,
                    DomainChooser& chooser) {
  CAPSTAN_ASSERT(!request.groups.empty());
  const auto& topology = inventory.topology();
  const std::size_t groups = request.groups.size();
  const bool may_spread = request.required == Level::kNone || request.required == Level::kRegion;
  std::optional<std::size_t> failed;
  const auto place_all = [&](const std::vector<ClusterId>& inside) -> std::optional<Placement> {
    Attempt attempt(inventory, request, chooser);
    for (std::size_t i = 0; i < groups; ++i) {
      if (attempt.place(i, inside)) continue;
      if (!failed) failed = attempt.failed();
      return std::nullopt;
    }
    return attempt.result();
  };
  const auto refuse = [&] {
    const Reason reason = inventory.total() == Capacity{} ? Reason::kNoHosts : Reason::kBusy;
    return std::unexpected(Refusal{reason, failed.value_or(0)});
  };
  if (groups == 1) {
    if (auto placed = place_all(clusters)) return *placed;
    return refuse();
  }
  // Cluster by cluster, in the order in which the first group would choose them.
  for (std::vector<ClusterId> left = clusters; !left.empty();) {
    std::optional<ClusterId> cluster;
    {
      Attempt first(inventory, request, chooser);
      if (first.place(0, left) && in_one_cluster(topology, first.slices(0)))
        cluster = topology.cluster_of(first.slices(0).front().host);
    }
    if (!cluster) break;
    if (auto placed = place_all({*cluster})) return *placed;
    left.erase(std::find(left.begin(), left.end(), *cluster));
  }
  if (may_spread) {
    Attempt attempt(inventory, request, chooser);
    bool all = attempt.place(0, clusters);
    for (std::size_t i = 1; i < groups && all; ++i)
      all = attempt.place(i, spread_clusters(topology, request, clusters, attempt.slices(0).front().host),
                          Level::kNone);
    if (all) return attempt.result();
    if (!failed) failed = attempt.failed();
  }
  for (const ClusterId cluster : clusters) {
    Attempt attempt(inventory, request, chooser);
    bool all = true;
    for (std::size_t i = groups; i-- > 0 && all;) all = attempt.place(i, {cluster});
    if (all) return attempt.result();
  }
  Request least = request;
  for (std::size_t i = request.required == Level::kHost ? 1 : 0; i < groups; ++i) {
    least.groups[i].ranks = ranks_least(request.groups[i]);
    least.groups[i].ranks_min = 0;
  }
  if (std::equal(least.groups.begin(), least.groups.end(), request.groups.begin(),
                 [](const Group& a, const Group& b) { return a.ranks == b.ranks; }))
    return refuse();
  if (auto placed = place_groups(inventory, least, clusters, chooser)) return placed;
  return refuse();
}

}  // namespace capstan::scheduler
