// How it works: of each shape and segment the most that hosts, domains, blocks, clusters and regions could
// hold is worked out from capacities once, so that gangs of every size are answered from a few numbers. Only
// where a shorter last segment decides is the policy itself asked about an idle fleet.
#include <algorithm>

#include "scheduler/place_among.h"
#include "scheduler/placer.h"

namespace capstan::scheduler {
namespace {

using fleet::BlockId;
using fleet::ClassId;
using fleet::ClusterId;

Level level_of(const Request& request, std::size_t which) {
  if (which == 0) return request.required;
  const bool may_spread = request.required == Level::kNone || request.required == Level::kRegion;
  return may_spread ? request.required : Level::kCluster;
}

bool knows_names(const fleet::Topology& topology, const Shape& shape) {
  Shape any = shape;
  any.each = {};
  for (std::uint32_t i = 0; i < topology.classes(); ++i) {
    if (allows(any, topology.host_class(ClassId(i)))) return true;
  }
  return shape.gpu_model.empty() && shape.host_class.empty();
}

}  // namespace

std::optional<Refusal> Placer::never(const Inventory& inventory, const Request& request) {
  if (inventory.topology().hosts() == 0) return std::nullopt;  // nobody has joined: anything may still come
  if (never_layout_ != inventory.layout()) {
    never_layout_ = inventory.layout();
    most_.clear();
    together_.clear();
  }
  for (std::size_t i = 0; i < request.groups.size(); ++i) {
    if (const auto reason = never_group(inventory, request, i)) return Refusal{*reason, i};
  }
  if (request.groups.size() == 1) return std::nullopt;
  TogetherKey key{{}, {request.required, request.cluster, request.region}};
  for (const Group& group : request.groups)
    key.first.emplace_back(group.shape, group.ranks, group.segment, group.ranks_min);
  auto at = together_.find(key);
  if (at == together_.end()) {
    if (together_.size() >= kNeverMax) together_.clear();
    at = together_.emplace(std::move(key), never_together(inventory, request)).first;
  }
  if (!at->second) return std::nullopt;
  return Refusal{Reason::kGangTooLarge, request.groups.size() - 1};
}

const Placer::Most& Placer::most(const Inventory& inventory, const Request& request, const Group& group,
                                 std::int64_t segment) {
  MostKey key{group.shape, segment, request.cluster, request.region};
  if (const auto at = most_.find(key); at != most_.end()) return at->second;
  if (most_.size() >= kNeverMax) most_.clear();
  const auto& topology = inventory.topology();
  const ClassMask mask(topology, group.shape);
  const HostFilter all{.hosts = Hosts::kAll};
  std::vector<std::int64_t> regions(topology.regions());
  const auto clusters = clusters_allowed(topology, request);
  Most out;
  out.known_names = !clusters.empty() && knows_names(topology, group.shape);
  for (const ClusterId cluster : clusters) {
    std::int64_t in_cluster = 0;
    for (const BlockId block : topology.cluster(cluster).blocks) {
      std::int64_t in_block = 0;
      for (const auto& extent : topology.block(block).extents) {
        for (std::uint32_t i = 0; i < extent.count; ++i) {
          const DomainId domain{index(extent.first) + i};
          const std::int64_t fit = domain_fit(inventory, domain, group.shape, mask, all);
          out.domain = std::max(out.domain, fit);
          in_block += fit / segment;
          const auto& row = topology.domain(domain);
          for (std::uint32_t host = 0; fit > out.host && host < row.hosts; ++host)
            out.host = std::max(out.host,
                                host_fit(inventory, HostId(index(row.first) + host), group.shape, mask, all));
        }
      }
      out.block = std::max(out.block, in_block);
      in_cluster += in_block;
    }
    out.cluster = std::max(out.cluster, in_cluster);
    regions[index(topology.cluster(cluster).region)] += in_cluster;
    out.all += in_cluster;
  }
  for (const std::int64_t region : regions) out.region = std::max(out.region, region);
  return most_.emplace(std::move(key), out).first->second;
}

std::optional<Reason> Placer::never_group(const Inventory& inventory, const Request& request,
                                          std::size_t which) {
  const Group& group = request.groups[which];
  const Level level = level_of(request, which);
  const std::int64_t segment = std::max<std::int64_t>(group.segment, 1);
  const Most& most = this->most(inventory, request, group, segment);
  if (!most.known_names) return Reason::kNoSuchPlace;
  if (most.domain == 0) return Reason::kRankTooLarge;
  const auto unless = [](bool fits, Reason reason) { return fits ? std::nullopt : std::optional(reason); };
  if (level == Level::kHost) return unless(group.ranks <= most.host, Reason::kGangTooLarge);
  const std::int64_t ranks = ranks_least(group);
  if (std::min(ranks, segment) > most.domain) return Reason::kSegmentTooLarge;
  if (level == Level::kDomain) return unless(ranks <= most.domain, Reason::kGangTooLarge);
  if (ranks <= segment) return std::nullopt;
  const std::int64_t largest = level == Level::kBlock    ? most.block
                               : level == Level::kRegion ? most.region
                               : level == Level::kNone   ? most.all
                                                         : most.cluster;
  if (largest >= (ranks + segment - 1) / segment) return std::nullopt;
  if (ranks % segment == 0 || largest < ranks / segment) return Reason::kGangTooLarge;
  Inventory idle = idle_copy(inventory);
  Request alone = request;
  alone.groups = {group};
  alone.required = level;
  alone.preferred = Level::kNone;
  return unless(place_among(idle, alone, {.hosts = Hosts::kAll}).has_value(), Reason::kGangTooLarge);
}

// Groups that each could be placed: is there no cluster (or, for gangs that spread, nothing at all) with room
// for each of them and, in sum, for all? What this lets through may still never fit; it then waits.
bool Placer::never_together(const Inventory& inventory, const Request& request) {
  const auto& topology = inventory.topology();
  if (request.required == Level::kNone || request.required == Level::kRegion) return false;
  Capacity need;
  for (const Group& group : request.groups) need = need + times(group.shape.each, ranks_least(group));
  for (const ClusterId cluster : clusters_allowed(topology, request)) {
    Request here = request;
    here.cluster = topology.cluster(cluster).name;
    here.region = topology.region(topology.cluster(cluster).region).name;
    bool all = true;
    for (std::size_t i = 0; i < here.groups.size() && all; ++i) all = !never_group(inventory, here, i);
    if (!all) continue;
    Capacity offered;
    for (const BlockId block : topology.cluster(cluster).blocks) {
      for (const auto& extent : topology.block(block).extents) {
        const HostId first = topology.domain(extent.first).first;
        const auto& last = topology.domain(DomainId(index(extent.first) + extent.count - 1));
        for (std::uint32_t host = index(first); host < index(last.first) + last.hosts; ++host)
          offered = offered + inventory.capacity(HostId(host));
      }
    }
    if (offered.milli_cpus >= need.milli_cpus && offered.memory_bytes >= need.memory_bytes &&
        offered.gpus >= need.gpus)
      return false;
  }
  return true;
}

}  // namespace capstan::scheduler
