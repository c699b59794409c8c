// How: a ring of one-second slots for each service; a slot is cleared when its second comes round again.
#include "gateway/service_watch.h"

#include <algorithm>
#include <bit>
#include <numeric>

namespace capstan::gateway {

// 0 to 7 exactly, then eight buckets for each doubling.
std::size_t DurationCounts::bucket(std::int64_t ms) {
  const auto value = static_cast<std::uint64_t>(std::max<std::int64_t>(ms, 0));
  if (value < 8) return static_cast<std::size_t>(value);
  const auto doubling = static_cast<std::size_t>(std::bit_width(value)) - 4;  // 8..15: 0
  return std::min(kBuckets - 1, 8 + doubling * 8 + static_cast<std::size_t>((value >> doubling) - 8));
}

std::int64_t DurationCounts::edge_ms(std::size_t bucket) {
  if (bucket < 8) return static_cast<std::int64_t>(bucket);
  const std::size_t doubling = (bucket - 8) / 8;
  return static_cast<std::int64_t>((((bucket - 8) % 8 + 9) << doubling) - 1);
}

void DurationCounts::add(const DurationCounts& other) {
  for (std::size_t i = 0; i < kBuckets; ++i) counts_[i] += other.counts_[i];
}

std::int64_t DurationCounts::count() const {
  return std::accumulate(counts_.begin(), counts_.end(), std::int64_t{0});
}

std::int64_t DurationCounts::percentile_ms(std::int64_t percent) const {
  const std::int64_t wanted = (count() * percent + 99) / 100;
  std::int64_t seen = 0;
  for (std::size_t i = 0; i < kBuckets && wanted > 0; ++i) {
    seen += counts_[i];
    if (seen >= wanted) return edge_ms(i);
  }
  return 0;
}

ServiceWatch::Entry* ServiceWatch::entry(const std::string& service) {
  if (const auto at = entries_.find(service); at != entries_.end()) return &at->second;
  if (entries_.size() >= kWatchedServicesMax) return nullptr;
  return &entries_[service];
}

ServiceWatch::Slot& ServiceWatch::slot(Entry& entry, std::int64_t now_ms) {
  const std::int64_t number = now_ms / kSlotMs;
  Slot& slot = entry.slots[static_cast<std::size_t>(number) % kSlots];
  if (slot.number != number) {
    slot.number = number;
    slot.arrivals = 0;
    slot.ttft.clear();
    slot.tpot.clear();
  }
  return slot;
}

void ServiceWatch::arrived(const std::string& service, std::int64_t now_ms, bool waiting) {
  const std::scoped_lock lock(mutex_);
  if (Entry* one = entry(service)) {
    ++one->under_way;
    one->waiting += waiting;
    ++slot(*one, now_ms).arrivals;
  }
}

void ServiceWatch::found_replica(const std::string& service) {
  const std::scoped_lock lock(mutex_);
  if (Entry* one = entry(service)) --one->waiting;
}

void ServiceWatch::first_token(const std::string& service, std::int64_t now_ms, std::int64_t ttft_ms) {
  const std::scoped_lock lock(mutex_);
  if (Entry* one = entry(service)) slot(*one, now_ms).ttft.add(ttft_ms);
}

void ServiceWatch::left(const std::string& service, std::int64_t now_ms, bool waiting, std::int64_t tpot_ms) {
  const std::scoped_lock lock(mutex_);
  Entry* one = entry(service);
  if (one == nullptr) return;
  --one->under_way;
  one->waiting -= waiting;
  if (tpot_ms >= 0) slot(*one, now_ms).tpot.add(tpot_ms);
}

routing::ServiceLoad ServiceWatch::load(const std::string& service, std::int64_t now_ms) const {
  const std::scoped_lock lock(mutex_);
  const auto at = entries_.find(service);
  if (at == entries_.end()) return {};
  DurationCounts ttft, tpot;
  std::int64_t arrivals = 0;
  for (const Slot& slot : at->second.slots) {
    if (slot.number < 0 || slot.number <= now_ms / kSlotMs - static_cast<std::int64_t>(kSlots)) continue;
    arrivals += slot.arrivals;
    ttft.add(slot.ttft);
    tpot.add(slot.tpot);
  }
  return {.requests = arrivals,
          .samples = ttft.count(),
          .under_way = at->second.under_way,
          .waiting = at->second.waiting,
          .ttft_p95_ms = ttft.percentile_ms(95),
          .tpot_p95_ms = tpot.percentile_ms(95)};
}

}  // namespace capstan::gateway
