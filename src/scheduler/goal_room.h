// GoalRoom: how far one group of a request is from fitting, place by place, while an inventory is changed.
//
//   GoalRoom room(inventory, placer, goal_of(request, 0), clusters);
//   inventory.release(…); room.update(domain);                 // what was touched
//   if (room.met()) …                                          // the Placer would find room for the group
//
// A goal is `need` segments of `segment` ranks inside one area: a cluster, a block, a region, or anywhere;
// one segment makes every area the same. This is the Placer's own rule, kept as sums so that one change costs
// one domain. Cost: built in O(domains of the clusters); update is one domain_fit.  Threads: one owner.
#pragma once

#include <cstdint>
#include <vector>

#include "scheduler/placer.h"

namespace capstan::scheduler {

struct Goal {
  Shape shape;
  std::int64_t segment = 1;
  std::int64_t need = 1;  // segments
  std::int64_t short_last =
      0;  // ranks of the last one if it is shorter; it may also stand in what whole ones leave
  Level area = Level::kCluster;  // kCluster, kBlock or kRegion: inside one of these; else anywhere
};
// What of the group must fit so that it is placed; an elastic group with its least ranks.
Goal goal_of(const Request& request, std::size_t group);
// The clusters that the request allows.
std::vector<fleet::ClusterId> clusters_of(const fleet::Topology& topology, const Request& request);

class GoalRoom {
 public:
  static constexpr std::uint32_t kNoArea = UINT32_MAX;

  GoalRoom(Inventory& inventory, Placer& placer, const Goal& goal,
           const std::vector<fleet::ClusterId>& clusters);

  const Goal& goal() const { return goal_; }
  // What `update` and `fit_now` see from now on; claimed or unusable hosts as well, say.
  void set_hosts(Hosts hosts) { hosts_ = hosts; }
  bool met() const { return met_ > 0; }
  void update(std::uint32_t domain);
  std::size_t areas() const { return sums_.size(); }
  std::uint32_t area_of(std::uint32_t domain) const { return area_of_[domain]; }
  std::int64_t segments(std::uint32_t area) const { return sums_[area]; }
  // Segments that are missing; 0 or less if there are enough.
  std::int64_t missing(std::uint32_t area) const {
    return goal_.need - sums_[area] - (remainders_[area] > 0 ? 1 : 0);
  }
  // How many ranks the domain must take so that the area has one segment more.
  std::int64_t next_step(std::uint32_t domain) const;
  // Of one domain: ranks and segments that fit now.
  std::int64_t fit(std::uint32_t domain) const { return fits_[domain]; }
  std::int64_t fit_now(std::uint32_t domain) const;  // asks the inventory
  // How many ranks an idle host like this takes at most; 0: not of a class that may be used.
  std::int64_t most(HostId host) const { return class_most_[index(inventory_.topology().class_of(host))]; }
  std::int64_t most_in(std::uint32_t domain) const;  // of any of its hosts

 private:
  void count(std::uint32_t area, std::int64_t fit, std::int64_t sign);
  void add_cluster(fleet::ClusterId cluster, const ShapeIndex& index);

  const Inventory& inventory_;
  Hosts hosts_ = Hosts::kUnclaimed;
  Goal goal_;
  ClassMask mask_;
  std::vector<std::int64_t> class_most_;
  std::vector<std::uint32_t> area_of_;  // of each domain
  std::vector<std::uint16_t> fits_;
  std::vector<std::int64_t> sums_;  // of each area, segments
  std::vector<std::int64_t>
      remainders_;        // of each area: domains where the short last one fits beside whole ones
  std::int64_t met_ = 0;  // areas with enough
};

}  // namespace capstan::scheduler
