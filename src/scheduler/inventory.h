// Inventory: what is free on every host, who holds the rest, and which hosts may take work.
//
//   Inventory inventory;
//   BlockId block = inventory.topology().block("local", "local", "local");
//   CAPSTAN_TRY(HostId host, inventory.topology().add_host(block, class_id, "h1"));
//   inventory.sync();                                              // hosts that the topology has gained: absent
//   inventory.set_health(host, Health::kHealthy);
//   GpuSet gpus = inventory.choose_gpus(host, {.gpus = 2});       // which ones a rank would get
//   inventory.hold(host, job, 1, {.milli_cpus = 4000, .gpus = 2}, gpus);
//   inventory.release(host, job, 1, {.milli_cpus = 4000, .gpus = 2}, gpus);
//
// The one record of what is used: placement, preemption and explanations read it, the controller's fold writes it.
// It is a value of integers; everything in it follows from the calls, in whatever order they came.
// Indices (placer.h) take the hosts that changed since they last looked from `take_changes`.
// Cost: every call O(1) (hold and release: O(holders of the host)); 48 bytes a host, 2 a GPU, 16 a holder.
// Threads: one owner.  Failure: asserts when more is given back than was taken; holding more than is free is
// allowed (a host that shrank), its room is then negative.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "fleet/topology.h"

namespace capstan::scheduler {

using fleet::Capacity;
using fleet::DomainId;
using fleet::HostId;
using fleet::index;

Capacity operator+(const Capacity& a, const Capacity& b);
Capacity operator-(const Capacity& a, const Capacity& b);
Capacity times(const Capacity& each, std::int64_t count);

// GPUs of one host, a bit each.
using GpuSet = std::uint32_t;
inline constexpr std::int64_t kGpuMilli = 1000;  // a whole GPU
// How many of `each` a host can hold at most; an empty demand fits that often.
inline constexpr std::int64_t kFitMax = std::int64_t{1} << 40;

class Inventory {
 public:
  // `ranks` of workload `job` on a host (several entries if what a rank holds differs).
  struct Holder {
    std::int64_t job = 0;
    std::uint32_t ranks = 0;
    GpuSet gpus = 0;
  };
  struct Host {
    std::int64_t milli_cpus_free = 0;
    std::int64_t memory_free = 0;
    GpuSet gpus_idle = 0;    // wholly free and not failed
    GpuSet gpus_failed = 0;
    fleet::Health health = fleet::Health::kAbsent;
    fleet::Condition condition = fleet::Condition::kInService;
    bool cordoned = false;
    bool changed = false;  // is in the list of changes
    bool claimed = false;  // kept for a reservation, a maintenance window or a waiting gang (claims.h)
    bool awaited = false;  // claimed for work that will come: its domain's spares count it as in use
    std::uint8_t gpu_slots = 0;   // GPUs that it has or had
    std::uint32_t gpu_first = 0;  // where their free thousandths begin
    std::vector<Holder> holders;  // in order of job
  };
  fleet::Topology& topology() { return topology_; }
  const fleet::Topology& topology() const { return topology_; }
  // Takes in the hosts that the topology has gained since. They are absent.
  void sync();
  // The host's class changed: its capacity is another.
  void resize(HostId host, fleet::ClassId host_class);

  void set_health(HostId host, fleet::Health health);
  void set_condition(HostId host, fleet::Condition condition);
  void set_cordoned(HostId host, bool cordoned);
  void set_claimed(HostId host, bool claimed, bool for_work = false);
  void set_gpus_failed(HostId host, GpuSet gpus);
  // A fault of the domain as a whole: switch tray, backplane.
  void set_domain_condition(DomainId domain, fleet::Condition condition);
  fleet::Condition domain_condition(DomainId domain) const { return domain_conditions_[index(domain)]; }

  // How many hosts of the domain placement leaves free.
  void set_spares(DomainId domain, std::uint16_t spares);

  void hold(HostId host, std::int64_t job, std::uint32_t ranks, const Capacity& each, GpuSet gpus);
  void release(HostId host, std::int64_t job, std::uint32_t ranks, const Capacity& each, GpuSet gpus);

  const Host& host(HostId id) const { return hosts_[index(id)]; }
  std::size_t hosts() const { return hosts_.size(); }
  // May take new work, claims aside.
  bool usable(HostId id) const;
  const Capacity& capacity(HostId id) const { return topology_.host_class(id).capacity; }
  // Free thousandths of each GPU of the host, in order; failed ones included.
  std::span<const std::uint16_t> gpu_free(HostId id) const;
  // Free of everything; negative where a host has shrunk. `gpus` counts the wholly idle ones.
  Capacity room(HostId id) const;
  Capacity used(HostId id) const;
  bool idle(HostId id) const { return hosts_[index(id)].holders.empty(); }

  // How many ranks of `each` the free room of the host takes, whether or not it may take work.
  std::int64_t fit(HostId id, const Capacity& each) const;
  // Which GPUs the next ranks would get: whole ones of lowest number; of a share (one rank only) the GPU with the
  // least free room that suffices. 0 if there are not enough.
  GpuSet choose_gpus(HostId id, const Capacity& each, std::int64_t ranks = 1) const;

  // Everything that is usable or used, and everything there is: for shares and quotas.
  const Capacity& total() const { return total_; }
  const Capacity& total_used() const { return total_used_; }

  // Grows whenever hosts are added or change their class: what could ever fit is the same until then.
  std::int64_t layout() const { return layout_; }

  // Hosts that changed in any way that matters to placement since the last call, each once, in order of the change.
  std::vector<HostId> take_changes();

 private:
  void changed(HostId id);

  fleet::Topology topology_;
  std::vector<Host> hosts_;
  std::vector<fleet::Condition> domain_conditions_;
  std::vector<std::uint16_t> gpu_free_;
  Capacity total_;  // of hosts that are not absent
  Capacity total_used_;
  std::vector<HostId> changes_;
  std::int64_t layout_ = 0;
};

}  // namespace capstan::scheduler
