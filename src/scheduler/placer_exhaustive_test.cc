// Goal: placement never refuses what is possible, and packs as well as the policy promises.
// Method: all fleets of up to 3 domains of up to 3 trays with 1 or 2 GPUs and every occupancy, against a
// search that deals ranks to hosts in every way; random tiny fleets with CPUs as well, and with helpers,
// against the same search.
#include <gtest/gtest.h>

#include <bit>
#include <functional>

#include "scheduler/place_among.h"
#include "scheduler/placer.h"
#include "scheduler/random_fleet.h"

namespace capstan::scheduler {
namespace {

// Deals ranks to hosts in every way that the rules allow.
class Search {
 public:
  Search(const Inventory& inventory, const Request& request) : inventory_(inventory), request_(request) {
    for (std::uint32_t i = 0; i < inventory.hosts(); ++i) {
      room_.push_back(inventory.room(HostId(i)));
      in_use_.push_back(!inventory.idle(HostId(i)));
    }
  }
  // Inside the blocks of this mask (a bit each).
  bool feasible(std::uint32_t blocks = ~0U) {
    blocks_ = blocks;
    const auto& topology = inventory_.topology();
    const auto areas = [&]() -> std::size_t {
      switch (request_.required) {
        case Level::kHost:
          return topology.hosts();
        case Level::kDomain:
          return topology.domains();
        case Level::kBlock:
          return topology.blocks();
        case Level::kCluster:
          return topology.clusters();
        case Level::kRegion:
          return topology.regions();
        default:
          return 1;
      }
    }();
    for (area_ = 0; area_ < areas; ++area_) {
      if (deal(0, 0, 0)) return true;
    }
    return false;
  }

 private:
  bool inside(std::uint32_t host, std::size_t group) const {
    const auto& topology = inventory_.topology();
    const HostId id{host};
    const auto block = index(topology.block_of(id));
    const auto cluster = topology.cluster_of(id);
    if ((blocks_ >> block & 1) == 0) return false;
    switch (request_.required) {
      case Level::kHost:
        return group == 0 ? host == area_
                          : cluster == topology.cluster_of(HostId(static_cast<std::uint32_t>(area_)));
      case Level::kDomain:
        return group == 0
                   ? index(topology.domain_of(id)) == area_
                   : cluster ==
                         topology.block(topology.domain(DomainId(static_cast<std::uint32_t>(area_))).block)
                             .cluster;
      case Level::kBlock:
        return group == 0
                   ? block == area_
                   : cluster == topology.block(fleet::BlockId(static_cast<std::uint32_t>(area_))).cluster;
      case Level::kCluster:
        return index(cluster) == area_;
      case Level::kRegion:
        return index(topology.cluster(cluster).region) == area_;
      default:
        return true;
    }
  }
  bool may_open(std::uint32_t host) const {
    const auto& domain = inventory_.topology().domain(inventory_.topology().domain_of(HostId(host)));
    int in_use = 0;
    for (std::uint32_t i = 0; i < domain.hosts; ++i) in_use += in_use_[index(domain.first) + i];
    return in_use < domain.hosts - domain.spares;
  }
  // Deals rank `rank` of a group and all that follow. Inside a segment hosts do not descend.
  bool deal(std::size_t g, std::int64_t rank, std::uint32_t host_last) {
    if (g == request_.groups.size()) return true;
    const Group& group = request_.groups[g];
    if (rank == group.ranks) return deal(g + 1, 0, 0);
    const std::int64_t segment = std::max<std::int64_t>(group.segment, 1);
    const bool goes_on = rank % segment != 0;
    // Whole segments (and ranks without) are alike: they need not descend either.
    const bool whole = (rank / segment + 1) * segment <= group.ranks;
    const std::uint32_t from = rank == 0 || (!goes_on && !whole) ? 0 : goes_on ? host_last : host_of_segment_;
    for (std::uint32_t host = from; host < room_.size(); ++host) {
      if (!inside(host, g) || !inventory_.usable(HostId(host))) continue;
      if (!allows(group.shape, inventory_.topology().host_class(HostId(host)))) continue;
      if (goes_on &&
          inventory_.topology().domain_of(HostId(host)) != inventory_.topology().domain_of(HostId(host_last)))
        continue;
      const Capacity left = room_[host] - group.shape.each;
      if (left.milli_cpus < 0 || left.memory_bytes < 0 || left.gpus < 0) continue;
      if (!in_use_[host] && !may_open(host)) continue;
      const Capacity before = room_[host];
      const bool was_in_use = in_use_[host];
      const std::uint32_t segment_before = host_of_segment_;
      room_[host] = left;
      in_use_[host] = true;
      if (!goes_on) host_of_segment_ = host;
      const bool done = deal(g, rank + 1, host);
      room_[host] = before;
      in_use_[host] = was_in_use;
      host_of_segment_ = segment_before;
      if (done) return true;
    }
    return false;
  }

  const Inventory& inventory_;
  const Request& request_;
  std::vector<Capacity> room_;
  std::vector<bool> in_use_;
  std::size_t area_ = 0;
  std::uint32_t blocks_ = ~0U;
  std::uint32_t host_of_segment_ = 0;  // first of the segment that is dealt
};

std::string text(const Inventory& inventory, const Request& request) {
  std::string out;
  for (std::uint32_t d = 0; d < inventory.topology().domains(); ++d) {
    const auto& domain = inventory.topology().domain(DomainId(d));
    out += "b" + std::to_string(index(domain.block)) + "-" + std::to_string(domain.spares) + ":";
    for (std::uint32_t i = 0; i < domain.hosts; ++i) {
      const HostId host{index(domain.first) + i};
      out += std::to_string(inventory.room(host).gpus) + (inventory.idle(host) ? "" : "*") + "/" +
             std::to_string(inventory.room(host).milli_cpus) + (inventory.usable(host) ? " " : "! ");
    }
  }
  for (const Group& group : request.groups)
    out += "[" + std::to_string(group.ranks) + "x" + std::to_string(group.shape.each.gpus) + "/" +
           std::to_string(group.shape.each.milli_cpus) + " seg " + std::to_string(group.segment) + "]";
  return out + std::string(level_name(request.required));
}

// The fewest blocks of one cluster that take the gang.
int fewest_blocks(const Inventory& inventory, const Request& request) {
  const std::uint32_t blocks = static_cast<std::uint32_t>(inventory.topology().blocks());
  int best = 99;
  for (std::uint32_t mask = 1; mask < 1U << blocks; ++mask) {
    if (std::popcount(mask) < best && Search(inventory, request).feasible(mask)) best = std::popcount(mask);
  }
  return best;
}

// Compares one answer with the search.
void check(Inventory& inventory, Placer& placer, const Request& request, int& placed_count) {
  const Placed placed = placer.place(inventory, request);
  const bool feasible = Search(inventory, request).feasible();
  ASSERT_EQ(placed.has_value(), feasible) << text(inventory, request);
  if (!placed) return;
  ++placed_count;
  ASSERT_EQ(fault_of(inventory, request, *placed), "") << text(inventory, request);
  if (request.groups.size() > 1) return;
  const Group& group = request.groups.front();
  const auto& topology = inventory.topology();
  std::set<std::uint32_t> blocks, clusters;
  for (const Slice& slice : placed->slices) {
    blocks.insert(index(topology.block_of(slice.host)));
    clusters.insert(index(topology.cluster_of(slice.host)));
  }
  // Not promised where a shorter last segment takes the room of a whole one, and for ranks that avoid hosts
  // with GPUs.
  const bool promised =
      group.shape.each.gpus > 0 && group.ranks % std::max<std::int64_t>(group.segment, 1) == 0;
  if (promised && clusters.size() == 1) {
    ASSERT_EQ(static_cast<int>(blocks.size()), fewest_blocks(inventory, request)) << text(inventory, request);
  }
  if (segments_of(group) > 1 || request.required == Level::kHost || group.shape.each.gpus == 0) return;
  const ClassMask mask(topology, group.shape);
  const auto fit = [&](DomainId domain) { return domain_fit(inventory, domain, group.shape, mask, {}); };
  const std::int64_t chosen = fit(topology.domain_of(placed->slices.front().host));
  for (std::uint32_t d = 0; d < topology.domains(); ++d) {
    if (fit(DomainId(d)) >= group.ranks) {
      ASSERT_LE(chosen, fit(DomainId(d))) << text(inventory, request);
    }
  }
}

struct Layout {
  std::array<int, 3> trays{};     // of each domain; 0: no domain
  std::array<int, 3> block_of{};  // b0, b1 in c0; b2 in c1
  std::int64_t gpus = 2;
  std::uint16_t spares = 0;
};

Inventory fleet_of(const Layout& layout) {
  Inventory inventory;
  auto& topology = inventory.topology();
  const auto tray = topology.intern({.name = "tray", .capacity = {.gpus = layout.gpus}, .gpu_model = "g"});
  for (std::size_t d = 0; d < 3; ++d) {
    if (layout.trays[d] == 0) continue;
    const int block = layout.block_of[d];
    std::vector<std::string> names;
    for (int t = 0; t < layout.trays[d]; ++t) names.push_back(std::to_string(d) + "-" + std::to_string(t));
    (void)topology
        .add_domain(topology.block("r", block == 2 ? "c1" : "c0", "b" + std::to_string(block)),
                    {.name = "d" + std::to_string(d), .spares = layout.spares}, tray, names)
        .value();
  }
  inventory.sync();
  for (std::uint32_t i = 0; i < inventory.hosts(); ++i)
    inventory.set_health(HostId(i), fleet::Health::kHealthy);
  return inventory;
}

// Every way in which GPUs of the hosts are held; within a domain the order of hosts is left aside.
void each_occupancy(Inventory& inventory, std::uint32_t host, const std::function<void()>& visit) {
  if (host == inventory.hosts()) return visit();
  const auto& topology = inventory.topology();
  const auto& domain = topology.domain(topology.domain_of(HostId(host)));
  const std::int64_t least = host == index(domain.first) ? 0 : inventory.used(HostId(host - 1)).gpus;
  for (std::int64_t held = least; held <= inventory.capacity(HostId(host)).gpus; ++held) {
    const Capacity each{.gpus = held};
    const GpuSet gpus = held == 0 ? 0 : inventory.choose_gpus(HostId(host), each);
    if (held > 0) inventory.hold(HostId(host), 1, 1, each, gpus);
    each_occupancy(inventory, host + 1, visit);
    if (held > 0) inventory.release(HostId(host), 1, 1, each, gpus);
  }
}

void try_layout(const Layout& layout, int& asked, int& placed) {
  Inventory inventory = fleet_of(layout);
  Placer placer;
  each_occupancy(inventory, 0, [&] {
    for (std::int64_t ranks = 1; ranks <= 5; ++ranks) {
      for (std::int64_t segment = 0; segment <= 3; ++segment) {
        if (testing::Test::HasFatalFailure()) return;
        Request request{
            .groups = {{.ranks = ranks, .shape = {.each = {.gpus = 1 + asked % 2}}, .segment = segment}}};
        static constexpr Level kAsked[] = {Level::kCluster, Level::kBlock, Level::kCluster, Level::kNone,
                                           Level::kDomain};
        request.required = kAsked[asked / 2 % 5];
        check(inventory, placer, request, placed);
        ++asked;
      }
    }
  });
}

TEST(PlacerExhaustive, AgreesWithEveryWayOnAllFleetsOfThreeDomainsOfThreeTrays) {
  int asked = 0, placed = 0;
  static constexpr std::array<int, 3> kBlocks[] = {{0, 0, 0}, {0, 0, 1}, {0, 1, 1}, {0, 1, 2}, {0, 2, 0}};
  for (int a = 1; a <= 3; ++a) {
    for (int b = 0; b <= 3; ++b) {
      for (int c = 0; c <= (b == 0 ? 0 : 3); ++c) {
        for (std::int64_t gpus = 1; gpus <= 2; ++gpus) {
          const auto spares = static_cast<std::uint16_t>(asked % 3 == 0);
          for (const auto& blocks : kBlocks) try_layout({{a, b, c}, blocks, gpus, spares}, asked, placed);
        }
      }
    }
  }
  EXPECT_GT(placed, 100'000);
  EXPECT_GT(asked - placed, 100'000);
}

// Different trays in a domain, CPUs that bind, hosts that may not be used.
Inventory mixed_fleet(Prng& prng) {
  Layout layout;
  for (std::size_t d = 0; d < 3; ++d) {
    layout.trays[d] = static_cast<int>(prng.between(d == 0 ? 1 : 0, 3));
    layout.block_of[d] = static_cast<int>(prng.between(0, 2));
  }
  layout.spares = static_cast<std::uint16_t>(prng.below(2));
  Inventory inventory = fleet_of(layout);
  auto& topology = inventory.topology();
  for (std::uint32_t i = 0; i < inventory.hosts(); ++i) {
    const Capacity offered{.milli_cpus = prng.between(0, 4), .gpus = prng.between(0, 2)};
    inventory.resize(
        HostId(i),
        topology.intern({.name = "x", .capacity = offered, .gpu_model = offered.gpus > 0 ? "g" : ""}));
    if (prng.below(3) == 0)
      inventory.hold(HostId(i), 1, 1, {.milli_cpus = prng.between(0, offered.milli_cpus)}, 0);
    if (prng.below(8) == 0) inventory.set_cordoned(HostId(i), true);
  }
  return inventory;
}

Group small_group(Prng& prng) {
  Group group{.ranks = prng.between(1, 5), .segment = prng.between(0, 3)};
  group.shape.each = {.milli_cpus = prng.between(0, 2), .gpus = prng.between(0, 2)};
  return group;
}

TEST(PlacerExhaustive, AgreesWithEveryWayOnRandomTinyFleetsOfMixedHosts) {
  Prng prng(3);
  int placed = 0;
  for (int round = 0; round < 40'000 && !testing::Test::HasFatalFailure(); ++round) {
    Inventory inventory = mixed_fleet(prng);
    Request request{.groups = {small_group(prng)}};
    request.required = static_cast<Level>(prng.below(6));
    Placer placer;
    check(inventory, placer, request, placed);
  }
  EXPECT_GT(placed, 10'000);
}

// A gang with helpers that may share its hosts: packing both is a knapsack, and placement tries a few orders
// only.
TEST(PlacerExhaustive, HelpersAreNeverPlacedWronglyAndRarelyRefusedWithoutNeed) {
  Prng prng(4);
  int feasible = 0, missed = 0;
  for (int round = 0; round < 40'000 && !testing::Test::HasFatalFailure(); ++round) {
    Inventory inventory = mixed_fleet(prng);
    Request request{.groups = {small_group(prng), {.ranks = prng.between(1, 3)}}};
    request.groups[0].shape.each.gpus = prng.between(1, 2);
    request.groups[1].shape.each.milli_cpus = prng.between(1, 2);
    request.required = static_cast<Level>(prng.below(6));
    Placer placer;
    const Placed placed = placer.place(inventory, request);
    const bool possible = Search(inventory, request).feasible();
    if (placed) {
      ASSERT_TRUE(possible) << text(inventory, request);
      ASSERT_EQ(fault_of(inventory, request, *placed), "") << text(inventory, request);
    }
    feasible += possible;
    missed += possible && !placed;
  }
  EXPECT_GT(feasible, 3'000);
  EXPECT_LT(missed * 200, feasible);
}

}  // namespace
}  // namespace capstan::scheduler
