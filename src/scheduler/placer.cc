// How it works: `choose` says how many ranks go to which domains, by the shape's index; `place` then fills the hosts
// of each domain. What could never fit is worked out from capacities once and remembered.
#include "scheduler/placer.h"

#include <algorithm>
#include <bit>

#include "base/assert.h"

namespace capstan::scheduler {
namespace {

using fleet::BlockId;
using fleet::ClusterId;

constexpr std::int64_t kTentative = INT64_MAX;  // holds groups that are placed while others are tried

std::int64_t segments_of(const Group& group) {
  const std::int64_t segment = std::max<std::int64_t>(group.segment, 1);
  return (group.ranks + segment - 1) / segment;
}

struct BlockShare {
  BlockId block{};
  std::int64_t segments = 0;
};

// Blocks of a cluster for `need` segments: the smallest that takes the rest, else the largest, and so on.
std::vector<BlockShare> share_blocks(const std::set<std::pair<std::int64_t, BlockId>>& ordered, std::int64_t need) {
  std::vector<BlockShare> out;
  auto group_end = ordered.end();  // everything from here on is taken
  while (need > 0) {
    const auto fits = ordered.lower_bound({need, BlockId(0)});
    const std::int64_t taken_from = group_end == ordered.end() ? INT64_MAX : group_end->first;
    if (fits != ordered.end() && fits->first < taken_from) {
      out.push_back({fits->second, need});
      return out;
    }
    if (group_end == ordered.begin()) return {};
    const std::int64_t size = std::prev(group_end)->first;
    const auto group = ordered.lower_bound({size, BlockId(0)});
    for (auto at = group; at != group_end && need > 0; ++at) {
      // Once the rest fits somewhere smaller or equal, best fit decides; equal blocks come in order of id anyway.
      const auto smaller = ordered.lower_bound({need, BlockId(0)});
      if (smaller != ordered.end() && smaller->first < size) break;
      const std::int64_t take = std::min(need, at->first);
      out.push_back({at->second, take});
      need -= take;
    }
    group_end = group;
  }
  return out;
}

// Whole segments first go where they leave least; the last one may be shorter.
void take_segments(const ShapeIndex& shape, const Extents& extents, std::int64_t segment, std::int64_t need,
                   std::vector<std::pair<std::uint32_t, std::int64_t>>& out) {
  shape.visit(extents, segment, false, [&](std::uint32_t domain) {
    const std::int64_t take = std::min(need, shape.fit(domain) / segment);
    out.emplace_back(domain, take);
    need -= take;
    return need > 0;
  });
  CAPSTAN_ASSERT(need == 0);
}

// Single ranks over few domains: the emptiest ones, then the one that the rest fits best.
void take_ranks(const ShapeIndex& shape, const Extents& extents, std::int64_t need,
                std::vector<std::pair<std::uint32_t, std::int64_t>>& out) {
  std::set<std::uint32_t> used;
  const auto take = [&](std::uint32_t domain, std::int64_t ranks) {
    out.emplace_back(domain, ranks);
    used.insert(domain);
    need -= ranks;
  };
  const auto take_best = [&] {
    std::uint32_t best = DomainBitmap::kNone;
    shape.visit(extents, need, false, [&](std::uint32_t domain) {
      if (used.contains(domain)) return true;
      best = domain;
      return false;
    });
    if (best == DomainBitmap::kNone) return false;
    take(best, need);
    return true;
  };
  if (take_best()) return;
  shape.visit(extents, 1, true, [&](std::uint32_t domain) {
    take(domain, std::min(need, shape.fit(domain)));
    return need > 0 && !take_best();
  });
  CAPSTAN_ASSERT(need == 0);
}

}  // namespace

std::string_view reason_name(Reason reason) {
  static constexpr std::string_view kNames[] = {
      "no_hosts", "no_such_place",     "rank_too_large", "segment_too_large", "gang_too_large",
      "busy",     "hosts_unavailable", "claimed",        "quota",             "quota_never"};
  return kNames[static_cast<int>(reason)];
}

void Placer::follow(Inventory& inventory) {
  const auto& topology = inventory.topology();
  if (layout_ != inventory.layout()) {
    layout_ = inventory.layout();
    never_.clear();
    cluster_extents_.assign(topology.clusters(), {});
    for (std::uint32_t cluster = 0; cluster < topology.clusters(); ++cluster) {
      Extents all;
      for (const BlockId block : topology.cluster(ClusterId(cluster)).blocks) {
        const auto& extents = topology.block(block).extents;
        all.insert(all.end(), extents.begin(), extents.end());
      }
      std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
      for (const auto& extent : all) {
        Extents& merged = cluster_extents_[cluster];
        if (!merged.empty() && index(merged.back().first) + merged.back().count == index(extent.first)) {
          merged.back().count += extent.count;
        } else {
          merged.push_back(extent);
        }
      }
    }
    marked_.resize(topology.domains());
  }
  const std::uint64_t active = shapes_.size() >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << shapes_.size()) - 1;
  for (const HostId host : inventory.take_changes()) {
    const std::uint32_t domain = index(topology.domain_of(host));
    for (std::uint64_t fresh = active & ~marked_[domain]; fresh != 0; fresh &= fresh - 1)
      shapes_[static_cast<std::size_t>(std::countr_zero(fresh))].index->mark(domain);
    marked_[domain] |= active;
  }
}

ShapeIndex& Placer::index_of(Inventory& inventory, const Shape& shape) {
  follow(inventory);
  ++calls_;
  std::size_t slot = 0;
  while (slot < shapes_.size() && !(shapes_[slot].index->shape() == shape)) ++slot;
  if (slot == shapes_.size() && shapes_.size() == kShapesMax) {
    const auto least = std::min_element(shapes_.begin(), shapes_.end(), [](const Slot& a, const Slot& b) {
      return a.index->used_last < b.index->used_last;
    });
    slot = static_cast<std::size_t>(least - shapes_.begin());
    shapes_[slot].index = nullptr;
  }
  const std::uint64_t bit = std::uint64_t{1} << slot;
  if (slot == shapes_.size()) shapes_.emplace_back();
  ShapeIndex* found = shapes_[slot].index.get();
  if (found == nullptr) {
    shapes_[slot].index = std::make_unique<ShapeIndex>(inventory, shape);
    found = shapes_[slot].index.get();
  }
  found->used_last = calls_;
  for (const std::uint32_t domain : found->refresh(inventory)) marked_[domain] &= ~bit;
  return *found;
}

std::vector<ClusterId> Placer::clusters_of(const fleet::Topology& topology, const Request& request) const {
  std::vector<ClusterId> out;
  for (std::uint32_t i = 0; i < topology.clusters(); ++i) {
    const auto& cluster = topology.cluster(ClusterId(i));
    if (!request.cluster.empty() && cluster.name != request.cluster) continue;
    if (!request.region.empty() && topology.region(cluster.region).name != request.region) continue;
    out.push_back(ClusterId{i});
  }
  return out;
}

// The domain that all of them fit best, over all clusters.
std::optional<Placer::Parts> Placer::choose_domain(const Inventory& inventory, const ShapeIndex& shape,
                                                   std::int64_t ranks, const std::vector<ClusterId>& clusters) {
  std::optional<Part> best;
  std::pair<int, std::uint32_t> best_order{};
  for (const ClusterId cluster : clusters) {
    const std::uint32_t domain = shape.best(cluster_extents_[index(cluster)], ranks);
    if (domain == DomainBitmap::kNone) continue;
    const std::pair<int, std::uint32_t> order{
        domain_key(inventory, DomainId(domain), shape.shape(), shape.fit(domain)), domain};
    if (best && best_order <= order) continue;
    best = Part{domain, ranks};
    best_order = order;
  }
  if (!best) return std::nullopt;
  return Parts{*best};
}

std::optional<Placer::Parts> Placer::choose_segments(const Inventory& inventory, ShapeIndex& shape,
                                                     const Group& group, Level required,
                                                     const std::vector<ClusterId>& clusters) {
  const std::int64_t segment = std::max<std::int64_t>(group.segment, 1), need = segments_of(group);
  const ShapeIndex::Sums& sums = shape.sums(inventory, segment);
  const auto room = [&](ClusterId id) { return index(id) < sums.clusters.size() ? sums.clusters[index(id)] : 0; };
  // Best: fewest blocks, then least room left, then lowest id.
  std::vector<BlockShare> best;
  std::int64_t best_left = 0;
  for (const ClusterId cluster : clusters) {
    if (room(cluster) < need) continue;
    auto blocks = share_blocks(sums.ordered[index(cluster)], need);
    if (required == Level::kBlock && blocks.size() > 1) continue;
    const std::int64_t left = room(cluster) - need;
    if (!best.empty() && std::pair(best.size(), best_left) <= std::pair(blocks.size(), left)) continue;
    best = std::move(blocks);
    best_left = left;
  }
  if (best.empty() && (required == Level::kRegion || required == Level::kNone)) {
    // Over several clusters (of one region, if so required): those with most room first.
    const auto& topology = inventory.topology();
    for (std::uint32_t region = 0; region < topology.regions() && best.empty(); ++region) {
      std::vector<std::pair<std::int64_t, ClusterId>> order;
      std::int64_t total = 0;
      for (const ClusterId cluster : clusters) {
        const bool here = index(topology.cluster(cluster).region) == region;
        if ((required == Level::kRegion && !here) || room(cluster) == 0) continue;
        order.emplace_back(-room(cluster), cluster);
        total += room(cluster);
      }
      if (total < need) continue;
      std::sort(order.begin(), order.end());
      std::int64_t rest = need;
      for (const auto& [minus_room, cluster] : order) {
        const std::int64_t take = std::min(rest, -minus_room);
        if (take == 0) break;
        for (const BlockShare& share : share_blocks(sums.ordered[index(cluster)], take)) best.push_back(share);
        rest -= take;
      }
    }
  }
  if (best.empty()) return std::nullopt;
  std::vector<std::pair<std::uint32_t, std::int64_t>> taken;  // domain, segments
  for (const BlockShare& share : best) {
    const Extents& extents = inventory.topology().block(share.block).extents;
    if (segment > 1) {
      take_segments(shape, extents, segment, share.segments, taken);
    } else {
      take_ranks(shape, extents, share.segments, taken);
    }
  }
  std::sort(taken.begin(), taken.end());
  Parts parts;
  std::int64_t rest = group.ranks;
  for (const auto& [domain, segments] : taken) {
    parts.push_back({domain, std::min(rest, segments * segment)});
    rest -= parts.back().ranks;
  }
  return parts;
}

std::optional<Placer::Parts> Placer::choose(Inventory& inventory, const Group& group, Level required,
                                            const std::vector<ClusterId>& clusters) {
  ShapeIndex& shape = index_of(inventory, group.shape);
  const bool one_domain = required == Level::kDomain || segments_of(group) == 1;
  if (one_domain || group.segment == 0) {
    if (auto parts = choose_domain(inventory, shape, group.ranks, clusters)) return parts;
    if (one_domain) return std::nullopt;
  }
  return choose_segments(inventory, shape, group, required, clusters);
}

namespace {

// All ranks on one host: they are one rank of their sum.
Group on_one_host(const Group& group) {
  Group out = group;
  out.shape.each = times(group.shape.each, group.ranks);
  out.ranks = 1;
  out.segment = 0;
  return out;
}

}  // namespace

Placed Placer::place(Inventory& inventory, const Request& request) {
  CAPSTAN_ASSERT(!request.groups.empty());
  follow(inventory);
  Placement out;
  std::vector<ClusterId> clusters = clusters_of(inventory.topology(), request);
  std::vector<std::size_t> ends;  // of each group, in slices
  std::optional<Refusal> refusal;
  for (std::size_t i = 0; i < request.groups.size() && !refusal; ++i) {
    Group group = request.groups[i];
    const Level required = i == 0 ? request.required : Level::kCluster;
    std::optional<Parts> parts;
    bool one_host = false;
    if (i == 0 && (request.preferred == Level::kHost || required == Level::kHost)) {
      parts = choose(inventory, on_one_host(group), Level::kNone, clusters);
      one_host = parts.has_value();
    }
    if (!parts && i == 0 && request.preferred == Level::kDomain && required != Level::kHost)
      parts = choose(inventory, group, Level::kDomain, clusters);
    if (!parts && required != Level::kHost) parts = choose(inventory, group, required, clusters);
    if (!parts && group.ranks_min > 0 && required != Level::kHost) {
      group.ranks = std::min(group.ranks, available(inventory, request, i));
      if (group.ranks >= std::max<std::int64_t>(group.ranks_min, 1)) parts = choose(inventory, group, required, clusters);
    }
    if (!parts) {
      refusal = Refusal{inventory.total() == Capacity{} ? Reason::kNoHosts : Reason::kBusy, i};
      break;
    }
    const ShapeIndex& shape = index_of(inventory, one_host ? on_one_host(group).shape : group.shape);
    for (const Part& part : *parts)
      fill_domain(inventory, DomainId(part.domain), shape.shape(), shape.mask(), {}, part.ranks, out.slices);
    if (one_host) out.slices.back().ranks = group.ranks;
    out.group_ranks.push_back(group.ranks);
    if (i == 0 && request.groups.size() > 1)
      clusters = {inventory.topology().cluster_of(out.slices.front().host)};
    const std::size_t begin = ends.empty() ? 0 : ends.back();
    ends.push_back(out.slices.size());
    if (i + 1 == request.groups.size()) break;
    for (std::size_t at = begin; at < out.slices.size(); ++at) {
      const Slice& slice = out.slices[at];
      inventory.hold(slice.host, kTentative, static_cast<std::uint32_t>(slice.ranks), group.shape.each, slice.gpus);
    }
  }
  const std::size_t held = request.groups.size() == 1 ? 0 : std::min(ends.size(), request.groups.size() - 1);
  for (std::size_t i = 0, at = 0; i < held; ++i) {
    for (; at < ends[i]; ++at) {
      const Slice& slice = out.slices[at];
      inventory.release(slice.host, kTentative, static_cast<std::uint32_t>(slice.ranks),
                        request.groups[i].shape.each, slice.gpus);
    }
  }
  if (!refusal) return out;
  if (const auto never_fits = never(inventory, request)) return std::unexpected(*never_fits);
  return std::unexpected(*refusal);
}

Placed Placer::place_some(Inventory& inventory, const Request& request) {
  CAPSTAN_ASSERT(request.groups.size() == 1);
  const Group& group = request.groups.front();
  const ShapeIndex& shape = index_of(inventory, group.shape);
  Placement out;
  std::int64_t rest = group.ranks;
  Parts parts;
  for (const ClusterId cluster : clusters_of(inventory.topology(), request)) {
    if (rest == 0) break;
    shape.visit(cluster_extents_[index(cluster)], 1, false, [&](std::uint32_t domain) {
      parts.push_back({domain, std::min(rest, shape.fit(domain))});
      rest -= parts.back().ranks;
      return rest > 0;
    });
  }
  for (const Part& part : parts)
    fill_domain(inventory, DomainId(part.domain), shape.shape(), shape.mask(), {}, part.ranks, out.slices);
  if (!parts.empty()) {
    out.group_ranks = {group.ranks - rest};
    return out;
  }
  Request one = request;
  one.groups.front().ranks = 1;
  one.groups.front().segment = 0;
  if (const auto never_fits = never(inventory, one)) return std::unexpected(*never_fits);
  return std::unexpected(Refusal{inventory.total() == Capacity{} ? Reason::kNoHosts : Reason::kBusy, 0});
}

std::int64_t Placer::available(Inventory& inventory, const Request& request, std::size_t which) {
  const Group& group = request.groups[which];
  const Level required = which == 0 ? request.required : Level::kCluster;
  ShapeIndex& shape = index_of(inventory, group.shape);
  const std::int64_t segment = std::max<std::int64_t>(group.segment, 1);
  std::int64_t best = 0, sum = 0;
  const auto& sums = shape.sums(inventory, segment);
  for (const ClusterId cluster : clusters_of(inventory.topology(), request)) {
    if (index(cluster) >= sums.clusters.size()) continue;
    std::int64_t here = sums.clusters[index(cluster)];
    if (required == Level::kBlock) here = sums.ordered[index(cluster)].empty() ? 0 : sums.ordered[index(cluster)].rbegin()->first;
    if (required == Level::kDomain || required == Level::kHost) {
      here = 0;
      shape.visit(cluster_extents_[index(cluster)], segment, true, [&](std::uint32_t domain) {
        here = std::max(here, shape.fit(domain) / segment);
        return false;
      });
    }
    best = std::max(best, here);
    sum += here;
  }
  return (required == Level::kNone ? sum : best) * segment;
}

std::optional<Refusal> Placer::never(const Inventory& inventory, const Request& request) {
  if (layout_ != inventory.layout()) never_.clear();
  for (std::size_t i = 0; i < request.groups.size(); ++i) {
    Group group = request.groups[i];
    Level required = i == 0 ? request.required : Level::kCluster;
    if (required == Level::kHost) {
      group = on_one_host(group);
      required = Level::kNone;
    } else if (group.ranks_min > 0) {
      group.ranks = group.ranks_min;
    }
    const NeverKey key{group.shape, group.ranks, group.segment, static_cast<int>(required), request.cluster,
                       request.region};
    auto at = never_.find(key);
    if (at == never_.end()) {
      if (never_.size() >= kNeverMax) never_.clear();
      at = never_.emplace(key, never_group(inventory, request, group, required)).first;
    }
    if (at->second) return Refusal{*at->second, i};
  }
  return std::nullopt;
}

std::optional<Reason> Placer::never_group(const Inventory& inventory, const Request& request, const Group& group,
                                          Level required) {
  const auto& topology = inventory.topology();
  if (topology.hosts() == 0) return std::nullopt;  // nobody has joined: anything may still come
  const ClassMask mask(topology, group.shape);
  const auto clusters = clusters_of(topology, request);
  const bool named = !group.shape.gpu_model.empty() || !group.shape.host_class.empty();
  bool known = !named;
  for (std::uint32_t i = 0; i < topology.classes() && !known; ++i) {
    Shape any = group.shape;
    any.each = {};
    known = allows(any, topology.host_class(fleet::ClassId(i)));
  }
  if (clusters.empty() || !known) return Reason::kNoSuchPlace;
  const std::int64_t segment = required == Level::kDomain ? group.ranks : std::max<std::int64_t>(group.segment, 1);
  const std::int64_t need = (group.ranks + segment - 1) / segment;
  std::int64_t largest_domain = 0, largest = 0, all = 0;  // ranks, segments at the required level, segments
  for (const ClusterId cluster : clusters) {
    std::int64_t in_cluster = 0;
    for (const BlockId block : topology.cluster(cluster).blocks) {
      std::int64_t in_block = 0;
      for (const auto& extent : topology.block(block).extents) {
        for (std::uint32_t i = 0; i < extent.count; ++i) {
          const std::int64_t fit = domain_fit(inventory, DomainId(index(extent.first) + i), group.shape, mask,
                                              {.hosts = Hosts::kAll});
          largest_domain = std::max(largest_domain, fit);
          in_block += fit / segment;
        }
      }
      if (required == Level::kBlock) largest = std::max(largest, in_block);
      in_cluster += in_block;
    }
    if (required != Level::kBlock) largest = std::max(largest, in_cluster);
    all += in_cluster;
  }
  if (required == Level::kNone || required == Level::kRegion) largest = all;
  if (largest_domain == 0) return Reason::kRankTooLarge;
  if (largest_domain < segment && segment > 1) return Reason::kSegmentTooLarge;
  if (largest < need) return Reason::kGangTooLarge;
  return std::nullopt;
}

}  // namespace capstan::scheduler
