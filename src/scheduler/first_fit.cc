// How it works: hosts live in an ordered map with what is used on each. Placing walks it and fills host after
// host. Whether a refusal is "never" is asked only when placing has failed: the same walk over an idle fleet.
#include <algorithm>

#include "base/assert.h"
#include "scheduler/scheduler.h"

namespace capstan::scheduler {

Capacity operator+(const Capacity& a, const Capacity& b) {
  return {a.milli_cpus + b.milli_cpus, a.memory_bytes + b.memory_bytes, a.gpus + b.gpus};
}
Capacity operator-(const Capacity& a, const Capacity& b) {
  return {a.milli_cpus - b.milli_cpus, a.memory_bytes - b.memory_bytes, a.gpus - b.gpus};
}
Capacity times(const Capacity& each, std::int64_t count) {
  return {each.milli_cpus * count, each.memory_bytes * count, each.gpus * count};
}

std::int64_t fit(const Capacity& room, const Capacity& each) {
  std::int64_t count = kFitMax;
  const auto bound = [&](std::int64_t have, std::int64_t need) {
    if (need > 0) count = std::min(count, std::max<std::int64_t>(have, 0) / need);
  };
  bound(room.milli_cpus, each.milli_cpus);
  bound(room.memory_bytes, each.memory_bytes);
  bound(room.gpus, each.gpus);
  return count;
}

bool Inventory::set_host(const fleet::Host& host) {
  const auto [at, is_new] = hosts_.try_emplace(host.name);
  Entry& entry = at->second;
  const Entry before = entry;
  entry.capacity = host.capacity;
  entry.health = host.health;
  return is_new || before.capacity != entry.capacity || before.health != entry.health;
}

void Inventory::take(const std::string& host, const Capacity& amount) {
  Entry& entry = hosts_[host];
  entry.used = entry.used + amount;
}

void Inventory::give(const std::string& host, const Capacity& amount) {
  const auto at = hosts_.find(host);
  CAPSTAN_ASSERT(at != hosts_.end());
  at->second.used = at->second.used - amount;
  CAPSTAN_ASSERT(at->second.used.milli_cpus >= 0 && at->second.used.memory_bytes >= 0 &&
                 at->second.used.gpus >= 0);
}

namespace {

enum class Assume { kNow, kIdle, kIdleAndHealthy };

// Fills hosts in order; less than request.ranks in all if they do not fit.
std::vector<Slice> fill(const Inventory& inventory, const Request& request, Assume assume) {
  std::vector<Slice> slices;
  std::int64_t left = request.ranks;
  for (const auto& [name, entry] : inventory.hosts()) {
    if (left == 0) break;
    if (assume != Assume::kIdleAndHealthy && entry.health != fleet::Health::kHealthy) continue;
    const std::int64_t count =
        std::min(left, fit(assume == Assume::kNow ? entry.room() : entry.capacity, request.each));
    if (count == 0) continue;
    slices.push_back({name, count});
    left -= count;
  }
  return slices;
}

std::int64_t total(const std::vector<Slice>& slices) {
  std::int64_t ranks = 0;
  for (const Slice& slice : slices) ranks += slice.ranks;
  return ranks;
}

Refusal refuse(const Inventory& inventory, const Request& request) {
  if (inventory.hosts().empty()) return {Reason::kNoHosts};
  const std::int64_t best = total(fill(inventory, request, Assume::kIdleAndHealthy));
  if (best == 0) return {Reason::kRankTooLarge};
  if (best < request.ranks) return {Reason::kGangTooLarge};
  if (total(fill(inventory, request, Assume::kIdle)) < request.ranks) return {Reason::kHostsUnhealthy};
  return {Reason::kBusy};
}

}  // namespace

std::expected<std::vector<Slice>, Refusal> place(const Inventory& inventory, const Request& request) {
  CAPSTAN_ASSERT(request.ranks > 0);
  std::vector<Slice> slices = fill(inventory, request, Assume::kNow);
  if (total(slices) < request.ranks) return std::unexpected(refuse(inventory, request));
  return slices;
}

std::expected<std::vector<Slice>, Refusal> place_some(const Inventory& inventory, const Request& request) {
  CAPSTAN_ASSERT(request.ranks > 0);
  std::vector<Slice> slices = fill(inventory, request, Assume::kNow);
  if (slices.empty()) return std::unexpected(refuse(inventory, {.ranks = 1, .each = request.each}));
  return slices;
}

}  // namespace capstan::scheduler
