// place_groups: the part of the policy (placement.h) above single groups: which group, level and cluster
// comes when.
//
// It asks a DomainChooser for the domains of one group at a time, fills their hosts, and holds what is placed
// while further groups are tried. Both implementations of the policy (placer.h, place_among.h) are
// DomainChoosers. Cost: that of the choices; for several groups at most three for each group and cluster.
// Threads: one owner, the inventory's, which is changed while several groups are tried, and then as before.
#pragma once

#include <optional>
#include <vector>

#include "scheduler/placement.h"

namespace capstan::scheduler {

// So many ranks of a group go to a domain.
struct Part {
  std::uint32_t domain = 0;
  std::int64_t ranks = 0;
};
using Parts = std::vector<Part>;  // in order of rank

class DomainChooser {
 public:
  virtual ~DomainChooser() = default;
  // All ranks of the group inside one place of the level (kNone: anywhere; never kHost) in these clusters;
  // nullopt: they do not fit.
  virtual std::optional<Parts> choose(const Group& group, Level required,
                                      const std::vector<fleet::ClusterId>& clusters) = 0;
  // How many ranks in whole segments fit into one place of the level.
  virtual std::int64_t available(const Group& group, Level required,
                                 const std::vector<fleet::ClusterId>& clusters) = 0;
  virtual void fill(const Shape& shape, const Part& part, std::vector<Slice>& out) = 0;
};

// All groups inside these clusters. Refused: kBusy (or kNoHosts while nobody has joined), and the group that
// the first try found no room for.
Placed place_groups(Inventory& inventory, const Request& request,
                    const std::vector<fleet::ClusterId>& clusters, DomainChooser& chooser);

// Segments that the ranks make, a shorter last one included; ranks without segments are segments of one.
std::int64_t segments_of(const Group& group);
// All ranks on one host: they are one rank of their sum.
Group on_one_host(const Group& group);
// The fewest ranks with which the group runs: whole segments, unless it needs all.
std::int64_t ranks_least(const Group& group);
// Has no GPUs and names no class: such ranks go to hosts without GPUs first.
bool avoids_gpus(const Shape& shape);
// The clusters that the request allows, in order of id.
std::vector<fleet::ClusterId> clusters_allowed(const fleet::Topology& topology, const Request& request);

}  // namespace capstan::scheduler
