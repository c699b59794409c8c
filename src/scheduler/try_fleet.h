// TryFleet: small fleets with running work, for the tests of preemption, explanations and defragmentation.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/prng.h"
#include "scheduler/placer.h"
#include "scheduler/preemption.h"
#include "scheduler/running.h"
#include "scheduler/victim_search.h"

namespace capstan::scheduler {

struct TryFleet {
  Inventory inventory;
  Placer placer;
  RunningJobs running;
  std::vector<std::pair<std::int64_t, Slice>> scattered;  // ranks of what is not a gang, one by one

  TryFleet() = default;
  TryFleet(const TryFleet& other)
      : inventory(other.inventory), running(other.running), scattered(other.scattered) {
    // The copy's Placer starts afresh: all its hosts count as changed for an index that is new.
  }

  // Trays of 4 GPUs of the class "tray".
  void add_ultraservers(const std::string& cluster, const std::string& block, int count, int trays,
                        int spares = 0, Capacity each = {.milli_cpus = 8'000, .gpus = 4}) {
    auto& topology = inventory.topology();
    const auto tray = topology.intern({.name = "tray", .capacity = each, .gpu_model = "gb200"});
    const auto id = topology.block("r1", cluster, block);
    for (int i = 0; i < count; ++i) {
      const std::string name = cluster + "-" + block + "-u" + std::to_string(topology.domains());
      std::vector<std::string> names;
      for (int t = 0; t < trays; ++t) names.push_back(name + "-t" + std::to_string(t));
      (void)topology.add_domain(id, {.name = name, .spares = static_cast<std::uint16_t>(spares)}, tray, names)
          .value();
    }
    appear();
  }
  void add_hosts(const std::string& cluster, const std::string& block, int count, Capacity each,
                 bool fractional = false) {
    auto& topology = inventory.topology();
    const auto id = topology.block("r1", cluster, block);
    const auto host_class = topology.intern({.name = each.gpus > 0 ? "box" : "cpu",
                                             .capacity = each,
                                             .gpu_model = each.gpus > 0 ? "l4" : "",
                                             .fractional = fractional});
    for (int i = 0; i < count; ++i)
      (void)topology.add_host(id, host_class, cluster + "-" + block + "-h" + std::to_string(topology.hosts()))
          .value();
    appear();
  }
  void appear() {
    const auto first = static_cast<std::uint32_t>(inventory.hosts());
    inventory.sync();
    for (auto host = first; host < inventory.hosts(); ++host)
      inventory.set_health(HostId{host}, fleet::Health::kHealthy);
  }

  // A gang with one rank on each of these trays, holding these GPUs.
  Running& start_gang(std::int64_t job, std::int64_t priority,
                      const std::vector<std::pair<std::uint32_t, GpuSet>>& trays, std::int64_t began_ms) {
    Running row{.job = job, .priority = priority, .began_ms = began_ms};
    for (const auto& [host, gpus] : trays) row.slices.push_back({HostId{host}, 1, gpus});
    row.each = {{.gpus = std::popcount(trays.front().second)}};
    return start(std::move(row));
  }
  Running& start(Running row) {
    if (row.group_ends.empty()) row.group_ends = {row.slices.size()};
    for (std::size_t i = 0; i < row.slices.size(); ++i) {
      const Slice& slice = row.slices[i];
      inventory.hold(slice.host, row.job, static_cast<std::uint32_t>(slice.ranks),
                     row.each[i < row.group_ends[0] ? 0 : 1], slice.gpus);
    }
    return running[row.job] = std::move(row);
  }
  // Replicas or tasks.
  Running& start_ranks(std::int64_t job, std::int64_t priority, const Capacity& each,
                       const std::vector<Slice>& slices, std::int64_t checkpoint_ms) {
    for (const Slice& slice : slices) {
      inventory.hold(slice.host, job, static_cast<std::uint32_t>(slice.ranks), each, slice.gpus);
      for (std::int64_t i = 0; i < slice.ranks; ++i) scattered.push_back({job, {slice.host, 1, slice.gpus}});
    }
    return running[job] = {.job = job,
                           .gang = false,
                           .each = {each},
                           .priority = priority,
                           .checkpoint_ms = checkpoint_ms};
  }

  // Everything that is held and free, as text.
  std::string fingerprint() const {
    std::string out;
    for (std::uint32_t i = 0; i < inventory.hosts(); ++i) {
      const HostId id{i};
      const auto& host = inventory.host(id);
      out += std::to_string(host.milli_cpus_free) + "/" + std::to_string(host.memory_free) + "/" +
             std::to_string(host.gpus_idle);
      for (const auto free : inventory.gpu_free(id)) out += "," + std::to_string(free);
      for (const auto& holder : host.holders)
        out += ";" + std::to_string(holder.job) + "x" + std::to_string(holder.ranks) + "@" +
               std::to_string(holder.gpus);
      out += "\n";
    }
    return out + std::to_string(inventory.total_used().gpus);
  }
};

// At most 3 domains of 3 trays in one or two clusters, a CPU host or two, at most 6 jobs of every kind.
inline TryFleet tiny_fleet(Prng& prng, std::int64_t now_ms) {
  TryFleet fleet;
  const bool two = prng.below(3) == 0;
  const int domains = static_cast<int>(prng.between(1, 3));
  for (int i = 0; i < domains; ++i) {
    fleet.add_ultraservers(two && i == 1 ? "c2" : "c1", prng.below(2) == 0 ? "b0" : "b1", 1,
                           static_cast<int>(prng.between(1, 3)), static_cast<int>(prng.between(0, 1)),
                           {.milli_cpus = 4'000, .gpus = 2});
  }
  if (prng.below(2) == 0) fleet.add_hosts("c1", "b0", 1, {.milli_cpus = 4'000});
  for (std::uint32_t i = 0; i < fleet.inventory.hosts(); ++i) {
    if (prng.below(12) == 0) fleet.inventory.set_cordoned(HostId{i}, true);
  }
  const std::int64_t jobs = prng.between(1, 6);
  for (std::int64_t job = 1; job <= jobs; ++job) {
    const bool gpus = prng.below(3) != 0;
    Group group{.ranks = prng.between(1, 3), .segment = prng.between(0, 2)};
    group.shape.each = gpus ? Capacity{.milli_cpus = prng.between(0, 2) * 500, .gpus = prng.between(1, 2)}
                            : Capacity{.milli_cpus = prng.between(1, 4) * 1'000};
    const Request request{.groups = {group}};
    Running row{.job = job,
                .gang = prng.below(3) != 0,
                .each = {group.shape.each},
                .tenant = static_cast<std::uint32_t>(prng.below(2)),
                .priority = prng.between(0, 2),
                .guaranteed = prng.below(3) == 0,
                .preemptible = prng.below(8) != 0,
                .began_ms = now_ms - prng.between(1, 100) * 1'000,
                .checkpoint_ms = prng.below(2) == 0 ? 0 : 10'000};
    const auto placed = row.gang ? fleet.placer.place(fleet.inventory, request)
                                 : fleet.placer.place_some(fleet.inventory, request);
    if (!placed) continue;
    if (row.gang) {
      row.slices = placed->slices;
      fleet.start(std::move(row));
      continue;
    }
    for (const Slice& slice : placed->slices) {
      GpuSet gpus_left = slice.gpus;
      for (std::int64_t rank = 0; rank < slice.ranks; ++rank) {
        GpuSet mine = 0;
        for (std::int64_t i = 0; i < group.shape.each.gpus; ++i) {
          mine |= gpus_left & (~gpus_left + 1);
          gpus_left &= gpus_left - 1;
        }
        fleet.inventory.hold(slice.host, job, 1, group.shape.each, mine);
        fleet.scattered.push_back({job, {slice.host, 1, mine}});
      }
    }
    fleet.running[job] = std::move(row);
  }
  return fleet;
}

struct BusyOptions {
  int clusters = 1, blocks = 1, domains = 1, trays = 18,
      spares = 2;  // blocks of a cluster, domains of a block
};
// UltraServers full of gangs of whole trays, in segments or not, of priorities 0 to 3, a tenth of them not
// preemptible.
inline TryFleet busy_fleet(Prng& prng, const BusyOptions& options, std::int64_t now_ms) {
  TryFleet fleet;
  for (int c = 0; c < options.clusters; ++c) {
    for (int b = 0; b < options.blocks; ++b)
      fleet.add_ultraservers("c" + std::to_string(c), "b" + std::to_string(b), options.domains, options.trays,
                             options.spares);
  }
  int failures = 0;
  for (std::int64_t job = 1; failures < 4; ++job) {
    const std::int64_t segment = std::int64_t{1} << prng.below(3);
    Request request{
        .groups = {{.ranks = segment * prng.between(1, prng.below(4) == 0 ? 12 : 2), .segment = segment}}};
    request.groups[0].shape.each = {.gpus = 4};
    const auto placed = fleet.placer.place(fleet.inventory, request);
    if (!placed) {
      ++failures;
      continue;
    }
    fleet.start({.job = job,
                 .slices = placed->slices,
                 .each = {{.gpus = 4}},
                 .priority = prng.between(0, 3),
                 .preemptible = prng.below(10) != 0,
                 .began_ms = now_ms - prng.between(1, 600) * 1'000,
                 .checkpoint_ms = prng.below(3) == 0 ? 0 : 60'000});
  }
  return fleet;
}

}  // namespace capstan::scheduler
