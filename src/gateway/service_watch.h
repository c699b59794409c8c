// What the gateway has seen of each service lately: who waits, how long first tokens and further ones took.
// The autoscaler (routing/autoscale.h) is fed with it.
//
//   ServiceWatch watch;
//   watch.arrived("chat", now_ms, false);  …  watch.first_token("chat", now_ms, 40);
//   watch.left("chat", now_ms, false, 12);
//   routing::ServiceLoad load = watch.load("chat", now_ms);   // but for `wanted` and `ready`
//
// Percentiles are of the last kWatchWindowMs, from buckets that grow by an eighth: within 13 % of the true
// one. Threads: safe from any thread.  Cost: a short lock and an increment a call.  Bounds:
// kWatchedServicesMax services, the rest is not watched; a second is a slot, so memory does not grow with
// requests.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "routing/autoscale.h"

namespace capstan::gateway {

inline constexpr std::int64_t kWatchWindowMs = 30'000;
inline constexpr std::size_t kWatchedServicesMax = 1'000;

// Counts of durations by size: 0, then buckets that grow by an eighth, up to hours.
class DurationCounts {
 public:
  void add(std::int64_t ms) { ++counts_[bucket(ms)]; }
  void add(const DurationCounts& other);
  void clear() { counts_.fill(0); }
  std::int64_t count() const;
  // The upper edge of the bucket in which the given per cent lies; 0 if there are none.
  std::int64_t percentile_ms(std::int64_t percent) const;

 private:
  static constexpr std::size_t kBuckets = 192;
  static std::size_t bucket(std::int64_t ms);
  static std::int64_t edge_ms(std::size_t bucket);
  std::array<std::uint32_t, kBuckets> counts_{};
};

class ServiceWatch {
 public:
  // A request is for the service; `waiting`: there is no replica to send it to yet. Balanced by left().
  void arrived(const std::string& service, std::int64_t now_ms, bool waiting);
  void found_replica(const std::string& service);  // a waiting one waits no longer
  void first_token(const std::string& service, std::int64_t now_ms, std::int64_t ttft_ms);
  // The request is over. `tpot_ms` < 0: it had fewer than two tokens.
  void left(const std::string& service, std::int64_t now_ms, bool waiting, std::int64_t tpot_ms);
  routing::ServiceLoad load(const std::string& service, std::int64_t now_ms) const;

 private:
  static constexpr std::int64_t kSlotMs = 1'000;
  static constexpr std::size_t kSlots = kWatchWindowMs / kSlotMs;
  struct Slot {
    std::int64_t number = -1;  // of the second it holds
    std::int64_t arrivals = 0;
    DurationCounts ttft, tpot;
  };
  struct Entry {
    std::int64_t under_way = 0, waiting = 0;
    std::array<Slot, kSlots> slots;
  };
  Entry* entry(const std::string& service);
  static Slot& slot(Entry& entry, std::int64_t now_ms);

  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_;
};

}  // namespace capstan::gateway
