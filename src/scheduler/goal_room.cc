// How it works: sums a domain's whole segments into its area, and counts the areas that have enough.
#include "scheduler/goal_room.h"

#include <algorithm>

namespace capstan::scheduler {

using fleet::ClusterId;

Goal goal_of(const Request& request, std::size_t which) {
  const Group& group = request.groups[which];
  const Level required = which == 0 ? request.required : Level::kCluster;
  Goal goal{.shape = group.shape, .segment = 1, .need = 1, .area = required};
  if (required == Level::kHost) {
    goal.shape.each = times(group.shape.each, group.ranks);
    goal.area = Level::kNone;
    return goal;
  }
  const std::int64_t segment = std::max<std::int64_t>(group.segment, 1);
  std::int64_t ranks = group.ranks;
  if (group.ranks_min > 0) ranks = std::min(ranks, (group.ranks_min + segment - 1) / segment * segment);
  goal.segment = segment;
  goal.need = (ranks + segment - 1) / segment;
  if (goal.need == (group.ranks + segment - 1) / segment) goal.short_last = group.ranks % segment;
  if (required == Level::kDomain || goal.need == 1) {
    goal.segment = ranks;
    goal.need = 1;
    goal.short_last = 0;
  }
  if (goal.need == 1) goal.area = Level::kNone;
  return goal;
}

std::vector<ClusterId> clusters_of(const fleet::Topology& topology, const Request& request) {
  std::vector<ClusterId> out;
  for (std::uint32_t i = 0; i < topology.clusters(); ++i) {
    const auto& cluster = topology.cluster(ClusterId(i));
    if (!request.cluster.empty() && cluster.name != request.cluster) continue;
    if (!request.region.empty() && topology.region(cluster.region).name != request.region) continue;
    out.push_back(ClusterId{i});
  }
  return out;
}

GoalRoom::GoalRoom(Inventory& inventory, Placer& placer, const Goal& goal,
                   const std::vector<ClusterId>& clusters)
    : inventory_(inventory), goal_(goal), mask_(inventory.topology(), goal.shape) {
  const auto& topology = inventory.topology();
  for (std::uint32_t i = 0; i < topology.classes(); ++i) {
    const Capacity& offered = topology.host_class(fleet::ClassId(i)).capacity;
    std::int64_t most = mask_.allows(fleet::ClassId(i)) ? kDomainFitMax : 0;
    const auto limit = [&](std::int64_t room, std::int64_t each) {
      if (each > 0) most = std::min(most, room / each);
    };
    limit(offered.milli_cpus, goal.shape.each.milli_cpus);
    limit(offered.memory_bytes, goal.shape.each.memory_bytes);
    limit(offered.gpus, goal.shape.each.gpus);
    if (goal.shape.each.gpu_milli > 0)
      most = std::min(most, offered.gpus * (kGpuMilli / goal.shape.each.gpu_milli));
    class_most_.push_back(most);
  }
  const std::size_t areas = goal.area == Level::kCluster  ? topology.clusters()
                            : goal.area == Level::kBlock  ? topology.blocks()
                            : goal.area == Level::kRegion ? topology.regions()
                                                          : 1;
  sums_.assign(areas, 0);
  remainders_.assign(areas, 0);
  area_of_.assign(topology.domains(), kNoArea);
  fits_.assign(topology.domains(), 0);
  const ShapeIndex& shape = placer.index_of(inventory, goal.shape);
  for (const ClusterId cluster : clusters) add_cluster(cluster, shape);
  for (std::uint32_t area = 0; area < areas; ++area) met_ += missing(area) <= 0;
}

void GoalRoom::add_cluster(ClusterId cluster, const ShapeIndex& shape) {
  const auto& topology = inventory_.topology();
  const auto& row = topology.cluster(cluster);
  for (const fleet::BlockId block : row.blocks) {
    const std::uint32_t area = goal_.area == Level::kCluster  ? index(cluster)
                               : goal_.area == Level::kBlock  ? index(block)
                               : goal_.area == Level::kRegion ? index(row.region)
                                                              : 0;
    for (const auto& extent : topology.block(block).extents) {
      const std::uint32_t end = index(extent.first) + extent.count;
      for (std::uint32_t domain = index(extent.first); domain < end; ++domain) {
        area_of_[domain] = area;
        const std::int64_t fit = shape.fit(domain);
        fits_[domain] = static_cast<std::uint16_t>(fit);
        if (fit > 0) count(area, fit, 1);
      }
    }
  }
}

void GoalRoom::count(std::uint32_t area, std::int64_t fit, std::int64_t sign) {
  sums_[area] += sign * (fit / goal_.segment);
  if (goal_.short_last > 0 && fit % goal_.segment >= goal_.short_last) remainders_[area] += sign;
}

std::int64_t GoalRoom::next_step(std::uint32_t domain) const {
  const std::int64_t fit = fits_[domain], whole = fit / goal_.segment * goal_.segment;
  const std::uint32_t area = area_of_[domain];
  const bool short_one = goal_.short_last > 0 && remainders_[area] == 0 && missing(area) == 1;
  return whole + (short_one ? goal_.short_last : goal_.segment);
}

std::int64_t GoalRoom::fit_now(std::uint32_t domain) const {
  return domain_fit(inventory_, DomainId(domain), goal_.shape, mask_, {.hosts = hosts_});
}

std::int64_t GoalRoom::most_in(std::uint32_t domain) const {
  const fleet::Domain& row = inventory_.topology().domain(DomainId(domain));
  std::int64_t out = 0;
  for (std::uint32_t i = 0; i < row.hosts; ++i) out = std::max(out, most(HostId(index(row.first) + i)));
  return out;
}

void GoalRoom::update(std::uint32_t domain) {
  const std::uint32_t area = area_of_[domain];
  if (area == kNoArea) return;
  const std::int64_t fit = fit_now(domain), before = fits_[domain];
  if (fit == before) return;
  met_ -= missing(area) <= 0;
  count(area, before, -1);
  count(area, fit, 1);
  met_ += missing(area) <= 0;
  fits_[domain] = static_cast<std::uint16_t>(fit);
}

}  // namespace capstan::scheduler
