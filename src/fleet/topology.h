// Topology: where every host stands: region > cluster > spine block > NVLink domain (UltraServer) > tray (host).
//
//   Topology topology;
//   ClassId tray = topology.intern({.name = "p6e-gb200.36xlarge", .capacity = …, .gpu_model = "gb200"});
//   BlockId block = topology.block("us-east-1", "c1", "b00");              // made if it is new
//   DomainId domain = topology.add_domain(block, {.name = "c1-b00-u0000", .spares = 2}, tray, names_of_its_trays);
//   topology.name(topology.domain(domain).first);                          // "c1-b00-u0000-t00"
//
// Every host is in exactly one domain; a CPU host or an 8-GPU HGX host is a domain of one. The hosts of a domain
// have consecutive ids, the domains of a block are a few ranges of consecutive ids (extents), so every level is
// walked without an index. Ids are dense, given in the order of the calls and never reused. Names of hosts are
// unique. What a host is doing is not kept here (scheduler/inventory.h).
// Cost: lookups O(1); about 90 bytes a host, name included.  Threads: one owner.  Failure: asserts on foreign ids;
// add_* refuses a name that is taken.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "fleet/host.h"

namespace capstan::fleet {

enum class HostId : std::uint32_t {};
enum class DomainId : std::uint32_t {};
enum class BlockId : std::uint32_t {};
enum class ClusterId : std::uint32_t {};
enum class RegionId : std::uint32_t {};
enum class ClassId : std::uint32_t {};
// A level of the topology, as requirements name it.
enum class Level { kNone, kHost, kDomain, kBlock, kCluster, kRegion };
std::string_view level_name(Level level);  // "none", "host", "ultraserver", "block", "cluster", "region"
std::optional<Level> parse_level(std::string_view name);

template <class Id>
constexpr std::uint32_t index(Id id) {
  return static_cast<std::uint32_t>(id);
}

struct Domain {
  std::string name;  // unique: "c1-b00-u0000"; of a domain of one: its host's
  BlockId block{};
  HostId first{};
  std::uint16_t hosts = 0;
  std::uint16_t spares = 0;  // trays that placement leaves free, to replace failed ones (policy: 2 of 18)
};

struct Block {
  std::string name;
  ClusterId cluster{};
  struct Extent {
    DomainId first{};
    std::uint32_t count = 0;
  };
  std::vector<Extent> extents;
};

struct Cluster {
  std::string name;
  RegionId region{};
  std::vector<BlockId> blocks;
};

struct Region {
  std::string name;
  std::vector<ClusterId> clusters;
};

class Topology {
 public:
  struct DomainOptions {
    std::string name;
    std::uint16_t spares = 0;
  };

  // The class of this value; a new id if no equal one is known. At most kClassesMax.
  ClassId intern(const HostClass& host_class);
  // Found by path, or made with every level above it.
  BlockId block(std::string_view region, std::string_view cluster, std::string_view block);
  Result<DomainId> add_domain(BlockId block, const DomainOptions& options, ClassId host_class,
                              std::vector<std::string> hosts);
  // A domain of one.
  Result<HostId> add_host(BlockId block, ClassId host_class, std::string name);
  // Room for so many hosts at once.
  void reserve(std::size_t hosts);
  void set_class(HostId host, ClassId host_class);
  void set_spares(DomainId domain, std::uint16_t spares);

  std::size_t hosts() const { return host_names_.size(); }
  std::size_t domains() const { return domains_.size(); }
  std::size_t blocks() const { return blocks_.size(); }
  std::size_t clusters() const { return clusters_.size(); }
  std::size_t regions() const { return regions_.size(); }
  std::size_t classes() const { return classes_.size(); }

  const std::string& name(HostId host) const { return host_names_[index(host)]; }
  std::optional<HostId> find(std::string_view host) const;
  DomainId domain_of(HostId host) const { return host_domain_[index(host)]; }
  ClassId class_of(HostId host) const { return host_class_[index(host)]; }
  const HostClass& host_class(ClassId id) const { return classes_[index(id)]; }
  const HostClass& host_class(HostId host) const { return classes_[index(host_class_[index(host)])]; }
  const Domain& domain(DomainId id) const { return domains_[index(id)]; }
  const Block& block(BlockId id) const { return blocks_[index(id)]; }
  const Cluster& cluster(ClusterId id) const { return clusters_[index(id)]; }
  const Region& region(RegionId id) const { return regions_[index(id)]; }
  BlockId block_of(HostId host) const { return domain(domain_of(host)).block; }
  ClusterId cluster_of(HostId host) const { return block(block_of(host)).cluster; }
  // By name; a domain of one has its host's name. O(domains) for domains of several, for people's commands.
  std::optional<DomainId> find_domain(std::string_view name) const;
  std::optional<BlockId> find_block(std::string_view name) const;
  std::optional<ClusterId> find_cluster(std::string_view name) const;
  std::optional<RegionId> find_region(std::string_view name) const;

 private:
  std::vector<HostClass> classes_;
  std::vector<Region> regions_;
  std::vector<Cluster> clusters_;
  std::vector<Block> blocks_;
  std::vector<Domain> domains_;
  std::vector<std::string> host_names_;
  std::vector<DomainId> host_domain_;
  std::vector<ClassId> host_class_;
  // Open addressing over host_names_: a slot holds a host's index plus 1, 0 is free; at most half of them are taken.
  std::vector<std::uint32_t> by_name_;
  std::size_t slot_of(std::string_view name) const;  // where the name is, or would go
  void reserve_names(std::size_t hosts);
};

inline constexpr std::size_t kClassesMax = 65'536;

}  // namespace capstan::fleet
