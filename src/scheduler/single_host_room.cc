// How it works: a host's GPUs are sorted by their free thousandths, so that hosts that differ only in which
// GPU is used compare equal. Wholly free GPUs are then the last ones.
#include "scheduler/single_host_room.h"

#include <algorithm>
#include <tuple>

#include "base/assert.h"
#include "base/prng.h"

namespace capstan::scheduler {

std::strong_ordering operator<=>(const HostRequest& a, const HostRequest& b) {
  const auto key = [](const HostRequest& r) {
    return std::tie(r.each.milli_cpus, r.each.memory_bytes, r.each.gpus, r.each.gpu_milli, r.gpu_models,
                    r.host_class);
  };
  return key(a) <=> key(b);
}

bool allows(const HostRequest& request, const fleet::HostClass& host_class) {
  if (!request.host_class.empty() && request.host_class != host_class.name) return false;
  const auto& models = request.gpu_models;
  if (!models.empty() && !std::binary_search(models.begin(), models.end(), host_class.gpu_model))
    return false;
  if (request.each.gpus > host_class.capacity.gpus) return false;
  if (request.each.gpu_milli == 0) return true;
  if (!host_class.fractional || host_class.capacity.gpus == 0) return false;
  const auto& slices = host_class.gpu_slices;
  return slices.empty() || std::find(slices.begin(), slices.end(), request.each.gpu_milli) != slices.end();
}

HostRoom room_of(const Inventory& inventory, HostId id) {
  const Inventory::Host& host = inventory.host(id);
  HostRoom room{.host_class = inventory.topology().class_of(id),
                .gpus = 0,
                .milli_cpus = host.milli_cpus_free,
                .memory_bytes = host.memory_free};
  const auto free = inventory.gpu_free(id);
  for (std::size_t gpu = 0; gpu < free.size(); ++gpu) {
    if ((host.gpus_failed >> gpu & 1) == 0) room.gpu_milli[room.gpus++] = free[gpu];
  }
  std::sort(room.gpu_milli.begin(), room.gpu_milli.begin() + room.gpus);
  return room;
}

std::uint64_t hash_of(const HostRoom& room) {
  std::uint64_t hash = Prng::mix(index(room.host_class) * std::uint64_t{64} + room.gpus);
  hash = Prng::mix(hash ^ static_cast<std::uint64_t>(room.milli_cpus));
  hash = Prng::mix(hash ^ static_cast<std::uint64_t>(room.memory_bytes));
  for (std::uint32_t gpu = 0; gpu < room.gpus; gpu += 4) {
    std::uint64_t four = 0;
    for (std::uint32_t i = 0; i < 4; ++i) four = four << 16 | room.gpu_milli[gpu + i];
    hash = Prng::mix(hash ^ four);
  }
  return hash;
}

std::int64_t free_gpu_milli(const HostRoom& room) {
  std::int64_t sum = 0;
  for (std::uint32_t gpu = 0; gpu < room.gpus; ++gpu) sum += room.gpu_milli[gpu];
  return sum;
}

bool fits(const HostRequest& request, const HostRoom& room) {
  const Capacity& each = request.each;
  if (each.milli_cpus > room.milli_cpus || each.memory_bytes > room.memory_bytes) return false;
  if (each.gpus > 0) return room.gpus >= each.gpus && room.gpu_milli[room.gpus - each.gpus] == kGpuMilli;
  return each.gpu_milli == 0 || (room.gpus > 0 && room.gpu_milli[room.gpus - 1] >= each.gpu_milli);
}

HostRoom room_after(const HostRequest& request, const HostRoom& room, std::uint32_t gpu) {
  const Capacity& each = request.each;
  CAPSTAN_ASSERT(fits(request, room));
  HostRoom after = room;
  after.milli_cpus -= each.milli_cpus;
  after.memory_bytes -= each.memory_bytes;
  for (std::int64_t i = 1; i <= each.gpus; ++i) after.gpu_milli[room.gpus - i] = 0;
  if (each.gpu_milli > 0) {
    CAPSTAN_ASSERT(gpu < room.gpus && room.gpu_milli[gpu] >= each.gpu_milli);
    after.gpu_milli[gpu] = static_cast<std::uint16_t>(room.gpu_milli[gpu] - each.gpu_milli);
  }
  return after;
}

}  // namespace capstan::scheduler
