// How it works: one row a host, one number a GPU. Every change notes the host once in a list of changes.
#include "scheduler/inventory.h"

#include <algorithm>
#include <bit>

#include "base/assert.h"

namespace capstan::scheduler {
namespace {

GpuSet mask_of(std::int64_t gpus) {
  return gpus >= 32 ? ~GpuSet{0} : static_cast<GpuSet>((std::uint64_t{1} << gpus) - 1);
}

std::int64_t divide(std::int64_t room, std::int64_t each) {
  return each <= 0 ? kFitMax : room <= 0 ? 0 : room / each;
}

// The `count` lowest bits of the set; 0 if there are fewer.
GpuSet lowest(GpuSet set, std::int64_t count) {
  if (std::popcount(set) < count) return 0;
  GpuSet out = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const GpuSet bit = set & (~set + 1);
    out |= bit;
    set &= ~bit;
  }
  return out;
}

}  // namespace

Capacity operator+(const Capacity& a, const Capacity& b) {
  return {a.milli_cpus + b.milli_cpus, a.memory_bytes + b.memory_bytes, a.gpus + b.gpus,
          a.gpu_milli + b.gpu_milli};
}

Capacity operator-(const Capacity& a, const Capacity& b) {
  return {a.milli_cpus - b.milli_cpus, a.memory_bytes - b.memory_bytes, a.gpus - b.gpus,
          a.gpu_milli - b.gpu_milli};
}

Capacity times(const Capacity& each, std::int64_t count) {
  return {each.milli_cpus * count, each.memory_bytes * count, each.gpus * count, each.gpu_milli * count};
}

void Inventory::sync() {
  if (hosts_.size() == topology_.hosts()) return;
  ++layout_;
  if (topology_.hosts() > hosts_.capacity()) hosts_.reserve(std::max(topology_.hosts(), hosts_.size() * 2));
  domain_conditions_.resize(topology_.domains(), fleet::Condition::kInService);
  for (std::size_t i = hosts_.size(); i < topology_.hosts(); ++i) {
    const HostId id{static_cast<std::uint32_t>(i)};
    const Capacity& offered = capacity(id);
    Host host;
    host.milli_cpus_free = offered.milli_cpus;
    host.memory_free = offered.memory_bytes;
    host.gpu_slots = static_cast<std::uint8_t>(std::min(offered.gpus, fleet::kGpusPerHostMax));
    host.gpus_idle = mask_of(host.gpu_slots);
    host.gpu_first = static_cast<std::uint32_t>(gpu_free_.size());
    gpu_free_.insert(gpu_free_.end(), host.gpu_slots, static_cast<std::uint16_t>(kGpuMilli));
    hosts_.push_back(std::move(host));
    changed(id);
  }
}

void Inventory::resize(HostId id, fleet::ClassId host_class) {
  ++layout_;
  Host& host = hosts_[index(id)];
  const Capacity before = capacity(id);
  topology_.set_class(id, host_class);
  const Capacity& after = capacity(id);
  if (host.health != fleet::Health::kAbsent) total_ = total_ - before + after;
  host.milli_cpus_free += after.milli_cpus - before.milli_cpus;
  host.memory_free += after.memory_bytes - before.memory_bytes;
  const auto slots = static_cast<std::uint8_t>(std::min(after.gpus, fleet::kGpusPerHostMax));
  if (slots > host.gpu_slots) {
    // New room for its GPUs at the end; what is held of the old ones goes along.
    const auto first = static_cast<std::uint32_t>(gpu_free_.size());
    gpu_free_.insert(gpu_free_.end(), slots, static_cast<std::uint16_t>(kGpuMilli));
    std::copy_n(gpu_free_.begin() + host.gpu_first, host.gpu_slots, gpu_free_.begin() + first);
    host.gpu_first = first;
    host.gpu_slots = slots;
  }
  host.gpus_idle = 0;
  for (int gpu = 0; gpu < slots; ++gpu) {
    if (gpu_free_[host.gpu_first + gpu] == kGpuMilli) host.gpus_idle |= GpuSet{1} << gpu;
  }
  host.gpus_idle &= ~host.gpus_failed;
  changed(id);
}

void Inventory::changed(HostId id) {
  Host& host = hosts_[index(id)];
  if (host.changed) return;
  host.changed = true;
  changes_.push_back(id);
}

std::vector<HostId> Inventory::take_changes() {
  for (const HostId id : changes_) hosts_[index(id)].changed = false;
  return std::exchange(changes_, {});
}

void Inventory::set_health(HostId id, fleet::Health health) {
  Host& host = hosts_[index(id)];
  if (host.health == health) return;
  const bool was_there = host.health != fleet::Health::kAbsent;
  const bool is_there = health != fleet::Health::kAbsent;
  if (was_there && !is_there) total_ = total_ - capacity(id);
  if (!was_there && is_there) total_ = total_ + capacity(id);
  host.health = health;
  changed(id);
}

void Inventory::set_condition(HostId id, fleet::Condition condition) {
  hosts_[index(id)].condition = condition;
  changed(id);
}

void Inventory::set_cordoned(HostId id, bool cordoned) {
  hosts_[index(id)].cordoned = cordoned;
  changed(id);
}

void Inventory::set_claimed(HostId id, bool claimed, bool for_work) {
  hosts_[index(id)].claimed = claimed;
  hosts_[index(id)].awaited = claimed && for_work;
  changed(id);
}

void Inventory::set_gpus_failed(HostId id, GpuSet gpus) {
  Host& host = hosts_[index(id)];
  host.gpus_failed = gpus;
  host.gpus_idle = 0;
  for (int gpu = 0; gpu < std::min<std::int64_t>(host.gpu_slots, capacity(id).gpus); ++gpu) {
    if (gpu_free_[host.gpu_first + gpu] == kGpuMilli) host.gpus_idle |= GpuSet{1} << gpu;
  }
  host.gpus_idle &= ~gpus;
  changed(id);
}

void Inventory::set_domain_condition(DomainId domain, fleet::Condition condition) {
  domain_conditions_[index(domain)] = condition;
  const fleet::Domain& row = topology_.domain(domain);
  for (std::uint32_t i = 0; i < row.hosts; ++i) changed(HostId(index(row.first) + i));
}

void Inventory::set_spares(DomainId domain, std::uint16_t spares) {
  ++layout_;
  topology_.set_spares(domain, spares);
  const fleet::Domain& row = topology_.domain(domain);
  for (std::uint32_t i = 0; i < row.hosts; ++i) changed(HostId(index(row.first) + i));
}

bool Inventory::usable(HostId id) const {
  const Host& host = hosts_[index(id)];
  return host.health == fleet::Health::kHealthy && !host.cordoned &&
         host.condition == fleet::Condition::kInService &&
         domain_conditions_[index(topology_.domain_of(id))] == fleet::Condition::kInService;
}

void Inventory::hold(HostId id, std::int64_t job, std::uint32_t ranks, const Capacity& each, GpuSet gpus) {
  Host& host = hosts_[index(id)];
  const auto at = std::lower_bound(host.holders.begin(), host.holders.end(), job,
                                   [](const Holder& holder, std::int64_t wanted) { return holder.job < wanted; });
  if (at != host.holders.end() && at->job == job) {
    at->ranks += ranks;
    at->gpus |= gpus;
  } else {
    host.holders.insert(at, {job, ranks, gpus});
  }
  host.milli_cpus_free -= each.milli_cpus * ranks;
  host.memory_free -= each.memory_bytes * ranks;
  CAPSTAN_ASSERT(each.gpu_milli == 0 || ranks == 1);
  const std::int64_t taken = each.gpus > 0 ? kGpuMilli : each.gpu_milli;
  for (GpuSet rest = gpus; rest != 0; rest &= rest - 1) {
    const int gpu = std::countr_zero(rest);
    CAPSTAN_ASSERT(gpu < host.gpu_slots && gpu_free_[host.gpu_first + gpu] >= taken);
    gpu_free_[host.gpu_first + gpu] = static_cast<std::uint16_t>(gpu_free_[host.gpu_first + gpu] - taken);
    host.gpus_idle &= ~(GpuSet{1} << gpu);
  }
  total_used_ = total_used_ + times(each, ranks);
  changed(id);
}

void Inventory::release(HostId id, std::int64_t job, std::uint32_t ranks, const Capacity& each, GpuSet gpus) {
  Host& host = hosts_[index(id)];
  const auto at = std::lower_bound(host.holders.begin(), host.holders.end(), job,
                                   [](const Holder& holder, std::int64_t wanted) { return holder.job < wanted; });
  CAPSTAN_ASSERT(at != host.holders.end() && at->job == job && at->ranks >= ranks);
  at->ranks -= ranks;
  const std::int64_t given = each.gpus > 0 ? kGpuMilli : each.gpu_milli;
  for (GpuSet rest = gpus; rest != 0; rest &= rest - 1) {
    const int gpu = std::countr_zero(rest);
    const GpuSet bit = GpuSet{1} << gpu;
    std::uint16_t& free = gpu_free_[host.gpu_first + gpu];
    CAPSTAN_ASSERT(gpu < host.gpu_slots && free + given <= kGpuMilli);
    free = static_cast<std::uint16_t>(free + given);
    if (free == kGpuMilli && (host.gpus_failed & bit) == 0 && gpu < capacity(id).gpus) host.gpus_idle |= bit;
    if (free == kGpuMilli) at->gpus &= ~bit;
  }
  if (at->ranks == 0) host.holders.erase(at);
  host.milli_cpus_free += each.milli_cpus * ranks;
  host.memory_free += each.memory_bytes * ranks;
  total_used_ = total_used_ - times(each, ranks);
  changed(id);
}

std::span<const std::uint16_t> Inventory::gpu_free(HostId id) const {
  const Host& host = hosts_[index(id)];
  const auto count = std::min<std::int64_t>(host.gpu_slots, capacity(id).gpus);
  return {gpu_free_.data() + host.gpu_first, static_cast<std::size_t>(count)};
}

Capacity Inventory::room(HostId id) const {
  const Host& host = hosts_[index(id)];
  return {host.milli_cpus_free, host.memory_free, std::popcount(host.gpus_idle), 0};
}

Capacity Inventory::used(HostId id) const {
  const Host& host = hosts_[index(id)];
  std::int64_t gpus = 0;
  for (int gpu = 0; gpu < host.gpu_slots; ++gpu) gpus += gpu_free_[host.gpu_first + gpu] < kGpuMilli;
  return {capacity(id).milli_cpus - host.milli_cpus_free, capacity(id).memory_bytes - host.memory_free, gpus, 0};
}

std::int64_t Inventory::fit(HostId id, const Capacity& each) const {
  const Host& host = hosts_[index(id)];
  std::int64_t count = std::min(divide(host.milli_cpus_free, each.milli_cpus), kFitMax);
  if (each.memory_bytes > 0) count = std::min(count, divide(host.memory_free, each.memory_bytes));
  if (each.gpus > 0) count = std::min<std::int64_t>(count, std::popcount(host.gpus_idle) / each.gpus);
  if (each.gpu_milli == 0 || count == 0) return count;
  std::int64_t shares = 0;
  const auto free = gpu_free(id);
  for (std::size_t gpu = 0; gpu < free.size(); ++gpu) {
    if ((host.gpus_failed >> gpu & 1) == 0) shares += free[gpu] / each.gpu_milli;
  }
  return std::min(count, shares);
}

GpuSet Inventory::choose_gpus(HostId id, const Capacity& each, std::int64_t ranks) const {
  const Host& host = hosts_[index(id)];
  if (each.gpus > 0) return lowest(host.gpus_idle, each.gpus * ranks);
  if (each.gpu_milli == 0) return 0;
  CAPSTAN_ASSERT(ranks == 1);
  const auto free = gpu_free(id);
  int best = -1;
  for (std::size_t gpu = 0; gpu < free.size(); ++gpu) {
    if (free[gpu] < each.gpu_milli || (host.gpus_failed >> gpu & 1) != 0) continue;
    if (best < 0 || free[gpu] < free[static_cast<std::size_t>(best)]) best = static_cast<int>(gpu);
  }
  return best < 0 ? 0 : GpuSet{1} << best;
}

}  // namespace capstan::scheduler
