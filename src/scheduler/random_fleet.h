// RandomFleet: mixed fleets with a long life, and requests for them, for tests of placement and claims.
#pragma once

#include <bit>
#include <map>
#include <string>
#include <vector>

#include "base/prng.h"
#include "scheduler/placement.h"

namespace capstan::scheduler {

class RandomFleet {
 public:
  struct Job {
    std::vector<Group> groups;
    std::vector<std::pair<std::size_t, Slice>> slices;  // with the group of each
  };

  explicit RandomFleet(Prng& prng) : prng_(prng) {
    const std::int64_t blocks = prng.between(1, 5);
    for (std::int64_t i = 0; i < blocks; ++i) grow();
  }
  Inventory& inventory() { return inventory_; }
  std::size_t jobs() const { return jobs_.size(); }

  // A block more, or more in one that is there.
  void grow() {
    auto& topology = inventory_.topology();
    const auto block =
        topology.block("r" + std::to_string(prng_.below(2)), "c" + std::to_string(prng_.below(2)),
                       "b" + std::to_string(prng_.below(3)));
    const std::int64_t kind = prng_.between(0, 3);
    for (std::int64_t i = prng_.between(1, 4); i > 0; --i) {
      const std::string name = "d" + std::to_string(topology.domains());
      if (kind <= 1) {
        const auto tray = topology.intern({.name = "tray",
                                           .capacity = {.milli_cpus = 8'000, .memory_bytes = 800, .gpus = 4},
                                           .gpu_model = "gb200"});
        const std::int64_t trays = kind == 0 ? prng_.between(2, 5) : 18;
        std::vector<std::string> hosts;
        for (std::int64_t t = 0; t < trays; ++t) hosts.push_back(name + "-t" + std::to_string(t));
        const auto spares = static_cast<std::uint16_t>(kind == 0 ? prng_.between(0, 1) : 2);
        (void)topology.add_domain(block, {.name = name, .spares = spares}, tray, hosts).value();
      } else {
        (void)topology.add_host(block, host_class(kind == 2), name).value();
      }
    }
    inventory_.sync();
    for (std::uint32_t i = 0; i < inventory_.hosts(); ++i) {
      if (inventory_.host(HostId(i)).health == fleet::Health::kAbsent && prng_.below(10) != 0)
        inventory_.set_health(HostId(i), fleet::Health::kHealthy);
    }
  }

  Group group() {
    Group out;
    Capacity& each = out.shape.each;
    if (prng_.below(3) == 0) {
      each = {.milli_cpus = prng_.between(1, 12) * 500, .memory_bytes = prng_.between(0, 2) * 100};
    } else {
      each = {.milli_cpus = prng_.between(0, 2) * 1'000, .gpus = prng_.between(1, 4)};
    }
    out.ranks = prng_.below(4) == 0 ? prng_.between(1, 90) : prng_.between(1, 12);
    if (prng_.below(2) == 0) out.segment = prng_.between(1, 9);
    if (prng_.below(4) == 0) out.ranks_min = prng_.between(1, out.ranks);
    if (prng_.below(8) == 0) out.shape.gpu_model = prng_.below(2) == 0 ? "gb200" : "h100";
    if (prng_.below(12) == 0) out.shape.host_class = prng_.below(2) == 0 ? "tray" : "box";
    return out;
  }
  Request request() {
    Request out{.groups = {group()}};
    if (prng_.below(12) == 0) {
      out.groups = {
          Group{.ranks = 1, .shape = {.each = {.milli_cpus = 100, .gpu_milli = prng_.between(1, 9) * 100}}}};
    } else if (prng_.below(4) == 0) {
      out.groups.push_back(group());
      if (prng_.below(4) == 0) out.groups.push_back(group());
    }
    if (prng_.below(2) == 0) out.required = static_cast<Level>(prng_.below(6));
    if (prng_.below(3) == 0) out.preferred = static_cast<Level>(prng_.below(6));
    if (prng_.below(10) == 0) out.cluster = "c" + std::to_string(prng_.below(3));
    if (prng_.below(10) == 0) out.region = "r" + std::to_string(prng_.below(2));
    return out;
  }

  // Holds what was placed, as a job.
  void start(const Request& request, const Placement& placement) {
    Job job{request.groups, {}};
    const std::int64_t id = ++job_last_;
    std::size_t group = 0;
    std::int64_t ranks = 0;
    for (const Slice& slice : placement.slices) {
      while (ranks == placement.group_ranks[group]) {
        ++group;
        ranks = 0;
      }
      ranks += slice.ranks;
      job.slices.emplace_back(group, slice);
      inventory_.hold(slice.host, id, static_cast<std::uint32_t>(slice.ranks),
                      request.groups[group].shape.each, slice.gpus);
    }
    jobs_.emplace(id, std::move(job));
  }
  void end_one() {
    if (jobs_.empty()) return;
    const auto at = std::next(jobs_.begin(), static_cast<std::ptrdiff_t>(prng_.below(jobs_.size())));
    for (const auto& [group, slice] : at->second.slices) {
      inventory_.release(slice.host, at->first, static_cast<std::uint32_t>(slice.ranks),
                         at->second.groups[group].shape.each, slice.gpus);
    }
    jobs_.erase(at);
  }
  // Something happens to a host or a domain.
  void mishap() {
    const HostId host{static_cast<std::uint32_t>(prng_.below(inventory_.hosts()))};
    switch (prng_.below(9)) {
      case 0:
        return inventory_.set_health(host, static_cast<fleet::Health>(prng_.below(3)));
      case 1:
        return inventory_.set_cordoned(host, prng_.below(2) == 0);
      case 2:
        return inventory_.set_condition(host, static_cast<fleet::Condition>(prng_.below(2)));
      case 3:
        return inventory_.set_domain_condition(inventory_.topology().domain_of(host),
                                               static_cast<fleet::Condition>(prng_.below(2)));
      case 4:
        return inventory_.set_claimed(host, prng_.below(2) == 0, prng_.below(2) == 0);
      case 5:
        return inventory_.set_gpus_failed(host, static_cast<GpuSet>(prng_.below(16)));
      case 6:
        if (inventory_.idle(host)) inventory_.resize(host, host_class(prng_.below(2) == 0));
        return;
      case 7:
        return inventory_.set_spares(inventory_.topology().domain_of(host), static_cast<std::uint16_t>(prng_.below(3)));
      default:
        return prng_.below(10) == 0 ? grow() : inventory_.set_health(host, fleet::Health::kHealthy);
    }
  }

 private:
  fleet::ClassId host_class(bool gpus) {
    return inventory_.topology().intern(
        gpus ? fleet::HostClass{.name = "box",
                                .capacity = {.milli_cpus = 16'000, .memory_bytes = 1'000, .gpus = 8},
                                .gpu_model = "h100",
                                .fractional = true}
             : fleet::HostClass{
                   .name = "cpu", .capacity = {.milli_cpus = 32'000, .memory_bytes = 500}, .gpu_model = ""});
  }

  Prng& prng_;
  Inventory inventory_;
  std::map<std::int64_t, Job> jobs_;
  std::int64_t job_last_ = 0;
};

// What is wrong with a placement, empty if nothing is: room, GPUs, domains of segments, usable hosts.
inline std::string fault_of(const Inventory& before, const Request& request, const Placement& placement) {
  Inventory inventory = before;
  std::size_t at = 0;
  for (std::size_t g = 0; g < request.groups.size(); ++g) {
    const Group& group = request.groups[g];
    const std::int64_t ranks = placement.group_ranks.at(g);
    if (ranks != group.ranks && (group.ranks_min == 0 || ranks < group.ranks_min || ranks > group.ranks))
      return "group " + std::to_string(g) + " has " + std::to_string(ranks) + " ranks";
    std::map<std::int64_t, std::map<std::uint32_t, std::int64_t>> segments;  // domains of each
    for (std::int64_t rank = 0; rank < ranks; ++at) {
      if (at >= placement.slices.size()) return "ranks are missing";
      const Slice& slice = placement.slices[at];
      const auto& topology = inventory.topology();
      if (!inventory.usable(slice.host) || inventory.host(slice.host).claimed)
        return "a host may not be used";
      if (!allows(group.shape, topology.host_class(slice.host))) return "a host of the wrong class";
      if (slice.ranks < 1 || inventory.fit(slice.host, group.shape.each) < slice.ranks)
        return "no room on a host";
      const std::int64_t gpus = group.shape.each.gpu_milli > 0 ? 1 : group.shape.each.gpus * slice.ranks;
      if (std::popcount(slice.gpus) != gpus) return "wrong number of gpus";
      if (group.shape.each.gpus > 0 && (slice.gpus & ~inventory.host(slice.host).gpus_idle) != 0)
        return "gpu in use";
      if (inventory.idle(slice.host)) {
        const auto& domain = topology.domain(topology.domain_of(slice.host));
        std::int64_t in_use = 0;
        for (std::uint32_t i = 0; i < domain.hosts; ++i)
          in_use += !inventory.idle(HostId(index(domain.first) + i)) ||
                    inventory.host(HostId(index(domain.first) + i)).awaited;
        if (in_use >= domain.hosts - domain.spares) return "a spare is in use";
      }
      for (std::int64_t i = 0; i < slice.ranks; ++i, ++rank)
        ++segments[group.segment > 0 ? rank / group.segment : rank][index(topology.domain_of(slice.host))];
      inventory.hold(slice.host, 1 << 30, static_cast<std::uint32_t>(slice.ranks), group.shape.each,
                     slice.gpus);
    }
    for (const auto& [segment, domains] : segments) {
      if (domains.size() > 1) return "segment " + std::to_string(segment) + " is split";
    }
  }
  return at == placement.slices.size() ? "" : "too many ranks";
}

}  // namespace capstan::scheduler
