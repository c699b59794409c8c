// Placer: places gangs and tasks by the policy of placement.h, through indices that follow what changes.
//
//   Placer placer;
//   Placed placed = placer.place(inventory, request);
//   if (placed) for (const Slice& slice : placed->slices) inventory.hold(slice.host, job, slice.ranks, each, slice.gpus);
//
// Sees unclaimed hosts only; claims.h places on claimed ones.  A refusal says whether it could ever fit; why it does
// not fit now is refined by explain.h, which may look at the whole fleet.
// Cost: O(domains that changed since the shape was last asked for + domains that the gang takes); nothing depends on
// the size of the fleet, but a shape that is new (or was forgotten: the kShapesMax most recent are kept) is filed once.
// The answer depends on inventory and request alone, not on what was asked before.
// Threads: one owner, the inventory's.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "scheduler/placement.h"
#include "scheduler/shape_index.h"

namespace capstan::scheduler {

inline constexpr std::size_t kShapesMax = 64;
inline constexpr std::size_t kNeverMax = 10'000;  // remembered answers to "could it ever fit?"

class Placer {
 public:
  // All of it, or a refusal. The inventory is changed while several groups are tried, and then as before.
  Placed place(Inventory& inventory, const Request& request);
  // Up to groups[0].ranks ranks of the one group, anywhere allowed, best fit; the refusal if not even one fits.
  Placed place_some(Inventory& inventory, const Request& request);

  // Why the request could never be placed, were every host healthy and idle; nullopt: it could.
  std::optional<Refusal> never(const Inventory& inventory, const Request& request);
  // How many ranks of the group the best cluster (or what `required` says) takes now, in whole segments.
  std::int64_t available(Inventory& inventory, const Request& request, std::size_t group);
  // The shape's index, current.
  ShapeIndex& index_of(Inventory& inventory, const Shape& shape);

 private:
  struct Part {
    std::uint32_t domain = 0;
    std::int64_t ranks = 0;
  };
  using Parts = std::vector<Part>;
  struct Slot {
    std::unique_ptr<ShapeIndex> index;
  };
  using NeverKey = std::tuple<Shape, std::int64_t, std::int64_t, int, std::string, std::string>;

  void follow(Inventory& inventory);
  const Extents& extents_of(const fleet::Topology& topology, fleet::ClusterId cluster);
  std::vector<fleet::ClusterId> clusters_of(const fleet::Topology& topology, const Request& request) const;

  std::optional<Parts> choose(Inventory& inventory, const Group& group, Level required,
                              const std::vector<fleet::ClusterId>& clusters);
  std::optional<Parts> choose_segments(const Inventory& inventory, ShapeIndex& shape, const Group& group,
                                       Level required, const std::vector<fleet::ClusterId>& clusters);
  std::optional<Parts> choose_domain(const Inventory& inventory, const ShapeIndex& shape, std::int64_t ranks,
                                     const std::vector<fleet::ClusterId>& clusters);
  std::optional<Reason> never_group(const Inventory& inventory, const Request& request, const Group& group,
                                    Level required);

  std::vector<Slot> shapes_;                      // at most kShapesMax
  std::vector<std::uint64_t> marked_;             // a bit a shape: the domain is on its list of changes
  std::vector<Extents> cluster_extents_;          // of each cluster; made anew when the topology grows
  std::map<NeverKey, std::optional<Reason>> never_;
  std::int64_t layout_ = -1;                      // of the inventory, when the two above were made
  std::int64_t calls_ = 0;
};

}  // namespace capstan::scheduler
