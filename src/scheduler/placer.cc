// How it works: `choose` says how many ranks of a group go to which domains, by the shape's index;
// place_groups.h says which groups, levels and clusters are tried, and `fill` puts the ranks on hosts. What
// could never fit: never.cc.
#include "scheduler/placer.h"

#include <algorithm>
#include <bit>
#include <map>

#include "base/assert.h"

namespace capstan::scheduler {
namespace {

using fleet::BlockId;
using fleet::ClusterId;

struct BlockShare {
  BlockId block{};
  std::int64_t segments = 0;
};

// Blocks of a cluster for `need` segments: the smallest that takes the rest, else the largest, and so on.
std::vector<BlockShare> share_blocks(const std::set<std::pair<std::int64_t, BlockId>>& ordered,
                                     std::int64_t need) {
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
      // Once the rest fits somewhere smaller or equal, best fit decides; equal blocks come in order of id
      // anyway.
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
      "no_hosts",          "no_such_place", "rank_too_large", "segment_too_large", "gang_too_large", "busy",
      "hosts_unavailable", "claimed",       "quota",          "quota_never"};
  return kNames[static_cast<int>(reason)];
}

void Placer::follow(Inventory& inventory) {
  const auto& topology = inventory.topology();
  if (layout_ != inventory.layout()) {
    layout_ = inventory.layout();
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
  const std::uint64_t active =
      shapes_.size() >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << shapes_.size()) - 1;
  for (const HostId host : inventory.take_changes()) {
    if (shares_) shares_->changed(host);
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
  index_last_ = found;
  for (const std::uint32_t domain : found->refresh(inventory)) marked_[domain] &= ~bit;
  return *found;
}

// The domain that all of them fit best, over all clusters.
std::optional<Parts> Placer::choose_domain(const ShapeIndex& shape, std::int64_t ranks,
                                           const std::vector<ClusterId>& clusters) {
  std::optional<Part> best;
  std::pair<int, std::uint32_t> best_order{};
  for (const ClusterId cluster : clusters) {
    const std::uint32_t domain = shape.best(cluster_extents_[index(cluster)], ranks);
    if (domain == DomainBitmap::kNone) continue;
    const std::pair<int, std::uint32_t> order{
        domain_key(*inventory_, DomainId(domain), shape.shape(), shape.fit(domain)), domain};
    if (best && best_order <= order) continue;
    best = Part{domain, ranks};
    best_order = order;
  }
  if (!best) return std::nullopt;
  return Parts{*best};
}

std::optional<Parts> Placer::choose_segments(ShapeIndex& shape, const Group& group, Level required,
                                             const std::vector<ClusterId>& clusters) {
  const std::int64_t segment = std::max<std::int64_t>(group.segment, 1), need = segments_of(group);
  const ShapeIndex::Sums& sums = shape.sums(*inventory_, segment);
  const auto room = [&](ClusterId id) {
    return index(id) < sums.clusters.size() ? sums.clusters[index(id)] : 0;
  };
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
    const auto& topology = inventory_->topology();
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
        for (const BlockShare& share : share_blocks(sums.ordered[index(cluster)], take))
          best.push_back(share);
        rest -= take;
      }
    }
  }
  if (best.empty()) return std::nullopt;
  std::vector<std::pair<std::uint32_t, std::int64_t>> taken;  // domain, segments
  for (const BlockShare& share : best) {
    const Extents& extents = inventory_->topology().block(share.block).extents;
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

std::optional<Parts> Placer::choose(const Group& group, Level required,
                                    const std::vector<ClusterId>& clusters) {
  ShapeIndex& shape = index_of(*inventory_, group.shape);
  const bool one_domain = required == Level::kDomain || segments_of(group) == 1;
  if (one_domain || group.segment == 0) {
    if (auto parts = choose_domain(shape, group.ranks, clusters)) return parts;
    if (one_domain) return std::nullopt;
  }
  if (auto parts = choose_segments(shape, group, required, clusters)) return parts;
  if (group.segment <= 1 || group.ranks % group.segment == 0) return std::nullopt;
  return choose_tail(shape, group, required, clusters);
}

// The shorter last segment where whole ones, which take all else that there is, leave just enough.
std::optional<Parts> Placer::tail_in(const ShapeIndex& shape, const ShapeIndex::Sums& sums,
                                     const Group& group, const Extents& extents) const {
  const std::int64_t tail = group.ranks % group.segment;
  std::map<std::uint32_t, std::int64_t> taken;  // ranks of each domain
  std::optional<std::tuple<bool, std::int64_t, std::uint32_t>> best;
  shape.visit(extents, std::min(tail, group.segment), false, [&](std::uint32_t domain) {
    const std::int64_t whole = shape.fit(domain) / group.segment * group.segment;
    const std::int64_t left = shape.fit(domain) - whole;
    if (whole > 0) taken[domain] = whole;
    if (left < tail) return true;
    // A block that is used already, the least room that takes it, the lowest id.
    const auto block = index(inventory_->topology().domain(DomainId(domain)).block);
    const std::tuple order{sums.blocks[block] == 0, left, domain};
    if (!best || order < *best) best = order;
    return true;
  });
  if (!best) return std::nullopt;
  const std::uint32_t last = std::get<2>(*best);
  const std::int64_t with_tail = taken[last] + tail;
  taken.erase(last);
  Parts parts;
  for (const auto& [domain, ranks] : taken) parts.push_back({domain, ranks});
  parts.push_back({last, with_tail});
  return parts;
}

std::optional<Parts> Placer::choose_tail(ShapeIndex& shape, const Group& group, Level required,
                                         const std::vector<ClusterId>& clusters) {
  const auto& topology = inventory_->topology();
  const std::int64_t whole = group.ranks / group.segment;
  const ShapeIndex::Sums& sums = shape.sums(*inventory_, group.segment);
  const auto room = [&](ClusterId id) {
    return index(id) < sums.clusters.size() ? sums.clusters[index(id)] : 0;
  };
  if (required == Level::kBlock) {
    for (std::uint32_t block = 0; block < sums.blocks.size(); ++block) {
      const auto& row = topology.block(BlockId(block));
      if (sums.blocks[block] != whole || !std::binary_search(clusters.begin(), clusters.end(), row.cluster))
        continue;
      if (auto parts = tail_in(shape, sums, group, row.extents)) return parts;
    }
    return std::nullopt;
  }
  for (const ClusterId cluster : clusters) {
    if (room(cluster) != whole) continue;
    if (auto parts = tail_in(shape, sums, group, cluster_extents_[index(cluster)])) return parts;
  }
  if (required != Level::kRegion && required != Level::kNone) return std::nullopt;
  const std::uint32_t areas = required == Level::kNone ? 1 : static_cast<std::uint32_t>(topology.regions());
  for (std::uint32_t area = 0; area < areas; ++area) {
    Extents extents;
    std::int64_t total = 0;
    for (const ClusterId cluster : clusters) {
      if (required == Level::kRegion && index(topology.cluster(cluster).region) != area) continue;
      total += room(cluster);
      const auto& here = cluster_extents_[index(cluster)];
      extents.insert(extents.end(), here.begin(), here.end());
    }
    if (total != whole) continue;
    if (auto parts = tail_in(shape, sums, group, extents)) return parts;
  }
  return std::nullopt;
}

std::int64_t Placer::available(const Group& group, Level required, const std::vector<ClusterId>& clusters) {
  ShapeIndex& shape = index_of(*inventory_, group.shape);
  const auto& topology = inventory_->topology();
  const std::int64_t segment = std::max<std::int64_t>(group.segment, 1);
  std::int64_t best = 0, all = 0;
  if (required == Level::kDomain || required == Level::kHost) {
    // Fits of one key differ, so all of the highest are looked at; domains with GPUs are in no order of room
    // for ranks without.
    const Capacity& each = group.shape.each;
    const bool ordered = each.gpus > 0 || each.gpu_milli > 0 || group.shape.without_gpus;
    for (const ClusterId cluster : clusters) {
      shape.visit(cluster_extents_[index(cluster)], segment, true, [&](std::uint32_t domain) {
        const std::int64_t fit = shape.fit(domain);
        const bool lower = fit_key(fit) < fit_key(best);
        best = std::max(best, fit);
        return !ordered || !lower;
      });
    }
    return best / segment * segment;
  }
  const auto& sums = shape.sums(*inventory_, segment);
  std::vector<std::int64_t> regions(topology.regions());
  for (const ClusterId cluster : clusters) {
    if (index(cluster) >= sums.clusters.size()) continue;
    const std::int64_t here = sums.clusters[index(cluster)];
    const auto& blocks = sums.ordered[index(cluster)];
    std::int64_t& region = regions[index(topology.cluster(cluster).region)];
    region += here;
    all += here;
    if (required == Level::kBlock) {
      best = std::max(best, blocks.empty() ? 0 : blocks.rbegin()->first);
    } else {
      best = std::max(best, required == Level::kRegion ? region : here);
    }
  }
  return (required == Level::kNone ? all : best) * segment;
}

void Placer::fill(const Shape& shape, const Part& part, std::vector<Slice>& out) {
  if (index_last_ == nullptr || !(index_last_->shape() == shape)) index_of(*inventory_, shape);
  fill_domain(*inventory_, DomainId(part.domain), shape, index_last_->mask(), {}, part.ranks, out);
}

void Placer::set_mix(WorkloadMix mix) {
  if (mix_ == mix) return;
  mix_ = std::move(mix);
  if (shares_) shares_->set_policy(fragmentation_policy(*mix_));
}

bool Placer::by_fragmentation(const Request& request) const {
  return mix_ && request.groups.size() == 1 && request.groups.front().shape.each.gpu_milli > 0 &&
         request.groups.front().ranks == 1 && request.cluster.empty() && request.region.empty();
}

std::optional<Placement> Placer::place_share(const Inventory& inventory, const Request& request) {
  if (!shares_) {
    shares_ = std::make_unique<SingleHostPlacer>(fragmentation_policy(*mix_),
                                                 SingleHostPlacer::Options{.shares_only = true});
  }
  const Shape& shape = request.groups.front().shape;
  HostRequest asked{.each = shape.each, .gpu_models = {}, .host_class = shape.host_class};
  if (!shape.gpu_model.empty()) asked.gpu_models = {shape.gpu_model};
  const auto choice = shares_->place(inventory, asked);
  if (!choice) return std::nullopt;
  return Placement{.slices = {{choice->host, 1, choice->gpus}}, .group_ranks = {1}};
}

Placed Placer::place(Inventory& inventory, const Request& request) {
  inventory_ = &inventory;
  follow(inventory);
  if (by_fragmentation(request)) {
    if (auto placement = place_share(inventory, request)) return *std::move(placement);
  }
  Placed placed = place_groups(inventory, request, clusters_allowed(inventory.topology(), request), *this);
  if (placed) return placed;
  if (const auto never_fits = never(inventory, request)) return std::unexpected(*never_fits);
  return placed;
}

Placed Placer::place_some(Inventory& inventory, const Request& request) {
  CAPSTAN_ASSERT(request.groups.size() == 1);
  inventory_ = &inventory;
  const auto& topology = inventory.topology();
  const Group& group = request.groups.front();
  const ShapeIndex& shape = index_of(inventory, group.shape);
  if (by_fragmentation(request)) {
    if (auto placement = place_share(inventory, request)) return *std::move(placement);
  }
  const bool avoids = group.shape.each.gpus == 0 && group.shape.each.gpu_milli == 0;
  const auto clusters = clusters_allowed(topology, request);
  const std::int64_t wanted = group.shape.each.gpu_milli > 0 ? 1 : group.ranks;
  std::int64_t rest = wanted;
  Placement out;
  // Ranks without GPUs: domains with GPUs (the last in order) only when no others are left in any cluster.
  for (const bool last : {false, true}) {
    if (last && !avoids) break;
    for (const ClusterId cluster : clusters) {
      if (rest == 0) break;
      shape.visit(cluster_extents_[index(cluster)], 1, false, [&](std::uint32_t domain) {
        const bool has_gpus = avoids && inventory.capacity(topology.domain(DomainId(domain)).first).gpus > 0;
        if (has_gpus != last) return last;
        const std::int64_t take = std::min(rest, shape.fit(domain));
        fill_domain(inventory, DomainId(domain), shape.shape(), shape.mask(), {}, take, out.slices);
        rest -= take;
        return rest > 0;
      });
    }
  }
  if (rest < wanted) {
    out.group_ranks = {wanted - rest};
    return out;
  }
  Request one = request;
  one.groups.front().ranks = 1;
  one.groups.front().ranks_min = 0;
  one.groups.front().segment = 0;
  if (const auto never_fits = never(inventory, one)) return std::unexpected(*never_fits);
  return std::unexpected(Refusal{inventory.total() == Capacity{} ? Reason::kNoHosts : Reason::kBusy, 0});
}

std::int64_t Placer::available(Inventory& inventory, const Request& request, std::size_t which) {
  inventory_ = &inventory;
  return available(request.groups[which], which == 0 ? request.required : Level::kCluster,
                   clusters_allowed(inventory.topology(), request));
}

}  // namespace capstan::scheduler
