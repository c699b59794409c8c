// Placer: places gangs and tasks by the policy of placement.h, through indices that follow what changes.
//
//   Placer placer;
//   Placed placed = placer.place(inventory, request);
//   if (placed) for (const Slice& slice : placed->slices) inventory.hold(slice.host, job, slice.ranks, each,
//   slice.gpus);
//
// Sees unclaimed hosts only; claims.h places on claimed ones.  A refusal says whether it could ever fit; why
// it does not fit now is refined by explain.h, which may look at the whole fleet. Cost: O(domains that
// changed since the shape was last asked for + domains that the gang takes); nothing depends on the size of
// the fleet, but a shape that is new (or was forgotten: the kShapesMax most recent are kept) is filed once.
// The answer depends on inventory, request and mix alone, not on what was asked before.
// Threads: one owner, the inventory's.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "scheduler/place_groups.h"
#include "scheduler/placement.h"
#include "scheduler/shape_index.h"
#include "scheduler/single_host.h"

namespace capstan::scheduler {

inline constexpr std::size_t kShapesMax = 64;
inline constexpr std::size_t kNeverMax = 10'000;  // remembered answers to "could it ever fit?"

class Placer : private DomainChooser {
 public:
  // From now on single ranks that ask for a share of a GPU go, of all hosts with room, where they leave least that this mix
  // cannot use (fragmentation.h), ties to the lowest host; requests that name a cluster or a region go by best fit as before.
  // The same mix again costs nothing; another one forgets the scores of all rooms.
  void set_mix(WorkloadMix mix);
  // All of it, or a refusal. The inventory is changed while several groups are tried, and then as before.
  Placed place(Inventory& inventory, const Request& request);
  // Up to groups[0].ranks ranks of the one group (of shares of a GPU: one), anywhere allowed, best fit, hosts
  // without GPUs first for ranks without; the refusal if not even one fits.
  Placed place_some(Inventory& inventory, const Request& request);

  // Why the request could never be placed, were every host healthy and idle; nullopt: it could. The first
  // answer for a shape and segment looks at every host. Exact for one group; several groups that could each
  // be placed in a cluster whose capacity suffices in sum are not called impossible, even if they can not
  // share its hosts.
  std::optional<Refusal> never(const Inventory& inventory, const Request& request);
  // How many ranks of the group the best cluster (or what `required` says) takes now, in whole segments.
  std::int64_t available(Inventory& inventory, const Request& request, std::size_t group);
  // The shape's index, current.
  ShapeIndex& index_of(Inventory& inventory, const Shape& shape);

 private:
  struct Slot {
    std::unique_ptr<ShapeIndex> index;
  };
  // The most that places of each level could ever hold of a shape: hosts and domains in ranks, else in
  // segments.
  struct Most {
    bool known_names = true;
    std::int64_t host = 0, domain = 0, block = 0, cluster = 0, region = 0, all = 0;
  };
  using MostKey = std::tuple<Shape, std::int64_t, std::string, std::string>;  // segment, cluster, region
  // Several groups: shape, ranks, segment, least ranks of each; required level, cluster, region.
  using TogetherKey = std::pair<std::vector<std::tuple<Shape, std::int64_t, std::int64_t, std::int64_t>>,
                                std::tuple<Level, std::string, std::string>>;

  std::optional<Parts> choose(const Group& group, Level required,
                              const std::vector<fleet::ClusterId>& clusters) override;
  std::int64_t available(const Group& group, Level required,
                         const std::vector<fleet::ClusterId>& clusters) override;
  void fill(const Shape& shape, const Part& part, std::vector<Slice>& out) override;

  void follow(Inventory& inventory);
  bool by_fragmentation(const Request& request) const;
  std::optional<Placement> place_share(const Inventory& inventory, const Request& request);
  std::optional<Parts> choose_segments(ShapeIndex& shape, const Group& group, Level required,
                                       const std::vector<fleet::ClusterId>& clusters);
  std::optional<Parts> choose_domain(const ShapeIndex& shape, std::int64_t ranks,
                                     const std::vector<fleet::ClusterId>& clusters);
  std::optional<Parts> choose_tail(ShapeIndex& shape, const Group& group, Level required,
                                   const std::vector<fleet::ClusterId>& clusters);
  std::optional<Parts> tail_in(const ShapeIndex& shape, const ShapeIndex::Sums& sums, const Group& group,
                               const Extents& extents) const;

  const Most& most(const Inventory& inventory, const Request& request, const Group& group,
                   std::int64_t segment);
  std::optional<Reason> never_group(const Inventory& inventory, const Request& request, std::size_t which);
  bool never_together(const Inventory& inventory, const Request& request);

  Inventory* inventory_ = nullptr;          // of the call that is going on
  std::optional<WorkloadMix> mix_;          // see set_mix
  std::unique_ptr<SingleHostPlacer> shares_;  // made when a share is asked for first
  const ShapeIndex* index_last_ = nullptr;  // what index_of gave last
  std::vector<Slot> shapes_;                // at most kShapesMax
  std::vector<std::uint64_t> marked_;       // a bit a shape: the domain is on its list of changes
  std::vector<Extents> cluster_extents_;    // of each cluster; made anew when the topology grows
  std::map<MostKey, Most> most_;
  std::map<TogetherKey, bool> together_;
  std::int64_t layout_ = -1;        // of the inventory, when the extents were made
  std::int64_t never_layout_ = -1;  // and when what could ever fit was worked out
  std::int64_t calls_ = 0;
};

}  // namespace capstan::scheduler
