// How it works: columns indexed by dense ids; levels above domains are few and found by walking them.
#include "fleet/topology.h"

#include <algorithm>

#include "base/hash.h"
#include "base/assert.h"

namespace capstan::fleet {

std::string_view condition_name(Condition condition) {
  switch (condition) {
    case Condition::kInService:
      return "in service";
    case Condition::kDraining:
      return "draining";
    case Condition::kFailed:
      return "failed";
    case Condition::kInRepair:
      return "in repair";
    case Condition::kQuarantined:
      return "quarantined";
  }
  return "in service";
}

namespace {

constexpr std::string_view kLevels[] = {"none", "host", "ultraserver", "block", "cluster", "region"};

// The id of the first entry of that name among those listed; nullopt if there is none.
template <class Id, class Entries>
std::optional<Id> find_named(const Entries& entries, std::string_view name) {
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].name == name) return Id(static_cast<std::uint32_t>(i));
  }
  return std::nullopt;
}

}  // namespace

void Topology::reserve(std::size_t hosts) {
  host_names_.reserve(hosts);
  host_domain_.reserve(hosts);
  host_class_.reserve(hosts);
  reserve_names(hosts);
}

std::string_view level_name(Level level) { return kLevels[static_cast<int>(level)]; }

std::optional<Level> parse_level(std::string_view name) {
  const auto at = std::find(std::begin(kLevels), std::end(kLevels), name);
  if (at == std::end(kLevels)) return std::nullopt;
  return static_cast<Level>(at - std::begin(kLevels));
}

ClassId Topology::intern(const HostClass& host_class) {
  const auto at = std::find(classes_.begin(), classes_.end(), host_class);
  if (at != classes_.end()) return ClassId(static_cast<std::uint32_t>(at - classes_.begin()));
  CAPSTAN_ASSERT(classes_.size() < kClassesMax);
  classes_.push_back(host_class);
  return ClassId(static_cast<std::uint32_t>(classes_.size() - 1));
}

BlockId Topology::block(std::string_view region, std::string_view cluster, std::string_view block) {
  auto region_id = find_region(region);
  if (!region_id) {
    region_id = RegionId(static_cast<std::uint32_t>(regions_.size()));
    regions_.push_back({std::string(region), {}});
  }
  std::optional<ClusterId> cluster_id;
  for (const ClusterId id : regions_[index(*region_id)].clusters) {
    if (clusters_[index(id)].name == cluster) cluster_id = id;
  }
  if (!cluster_id) {
    cluster_id = ClusterId(static_cast<std::uint32_t>(clusters_.size()));
    clusters_.push_back({std::string(cluster), *region_id, {}});
    regions_[index(*region_id)].clusters.push_back(*cluster_id);
  }
  for (const BlockId id : clusters_[index(*cluster_id)].blocks) {
    if (blocks_[index(id)].name == block) return id;
  }
  const BlockId id{static_cast<std::uint32_t>(blocks_.size())};
  blocks_.push_back({std::string(block), *cluster_id, {}});
  clusters_[index(*cluster_id)].blocks.push_back(id);
  return id;
}

Result<DomainId> Topology::add_domain(BlockId block, const DomainOptions& options, ClassId host_class,
                                      std::vector<std::string> hosts) {
  CAPSTAN_ASSERT(!hosts.empty() && hosts.size() < 65'536);
  CAPSTAN_ASSERT(index(block) < blocks_.size() && index(host_class) < classes_.size());
  reserve_names(host_names_.size() + hosts.size());
  for (const std::string& name : hosts) {
    const bool twice = std::count(hosts.begin(), hosts.end(), name) > 1;
    if (twice || by_name_[slot_of(name)] != 0) return fail(Code::kConflict, "there is already a host {}", name);
  }
  const DomainId id{static_cast<std::uint32_t>(domains_.size())};
  const HostId first{static_cast<std::uint32_t>(host_names_.size())};
  domains_.push_back({options.name, block, first, static_cast<std::uint16_t>(hosts.size()), options.spares});
  for (std::string& name : hosts) {
    by_name_[slot_of(name)] = static_cast<std::uint32_t>(host_names_.size() + 1);
    host_names_.push_back(std::move(name));
    host_domain_.push_back(id);
    host_class_.push_back(host_class);
  }
  auto& extents = blocks_[index(block)].extents;
  if (!extents.empty() && index(extents.back().first) + extents.back().count == index(id)) {
    ++extents.back().count;
  } else {
    extents.push_back({id, 1});
  }
  return id;
}

Result<HostId> Topology::add_host(BlockId block, ClassId host_class, std::string name) {
  CAPSTAN_TRY(const DomainId id, add_domain(block, {}, host_class, {std::move(name)}));
  return domains_[index(id)].first;
}

void Topology::set_class(HostId host, ClassId host_class) { host_class_[index(host)] = host_class; }

void Topology::set_spares(DomainId domain, std::uint16_t spares) { domains_[index(domain)].spares = spares; }

std::optional<HostId> Topology::find(std::string_view host) const {
  if (by_name_.empty()) return std::nullopt;
  const std::uint32_t found = by_name_[slot_of(host)];
  if (found == 0) return std::nullopt;
  return HostId(found - 1);
}

std::size_t Topology::slot_of(std::string_view name) const {
  const std::uint64_t hash = fnv1a(name);  // only where a name is kept depends on it
  std::size_t slot = (hash ^ hash >> 32) & (by_name_.size() - 1);
  while (by_name_[slot] != 0 && host_names_[by_name_[slot] - 1] != name) slot = (slot + 1) & (by_name_.size() - 1);
  return slot;
}

void Topology::reserve_names(std::size_t hosts) {
  if (by_name_.size() >= hosts * 2 && !by_name_.empty()) return;
  std::size_t size = 64;
  while (size < hosts * 2) size *= 2;
  by_name_.assign(size, 0);
  for (std::size_t i = 0; i < host_names_.size(); ++i)
    by_name_[slot_of(host_names_[i])] = static_cast<std::uint32_t>(i + 1);
}

std::optional<DomainId> Topology::find_domain(std::string_view name) const {
  if (const auto host = find(name); host && domain(domain_of(*host)).hosts == 1) return domain_of(*host);
  return find_named<DomainId>(domains_, name);
}

std::optional<BlockId> Topology::find_block(std::string_view name) const {
  return find_named<BlockId>(blocks_, name);
}

std::optional<ClusterId> Topology::find_cluster(std::string_view name) const {
  return find_named<ClusterId>(clusters_, name);
}

std::optional<RegionId> Topology::find_region(std::string_view name) const {
  return find_named<RegionId>(regions_, name);
}

}  // namespace capstan::fleet
