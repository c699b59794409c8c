// FairQueue: who is served next when a model's replicas are full: token-weighted fair queueing with tiers.
//
//   FairQueue queue({.requests_max = 64, .waiting_max = 10'000});
//   switch (queue.enter({.id = 1, .tenant = 7, .weight = 1, .tier = Tier::kDefault, .tokens = 900})) { … }
//   for (std::uint64_t id : queue.leave(1, 412)) start(id);     // what may start now
//
// Each (tier, tenant) is a flow with a virtual clock: tokens over weight, charged as an estimate when a request
// starts and corrected when it ends (virtual token counter, Sheng et al. OSDI'24; start-time fair queueing, Goyal
// et al. SIGCOMM'96). The flow that is furthest behind starts next; one that comes back from idleness begins at
// the present, so nobody saves up a turn. Tiers share in the same way, with weights kTierWeights, so that none
// starves.
//
// Headroom: the last `newcomers` places are only for tenants of the tiers priority and default that hold none. A
// tenant who floods can therefore not make another one wait for the end of a whole answer: the newcomer starts at
// once, and its first token comes with the next step of the replica's batch.
// A full queue refuses: a flow may hold at most as many waiting requests as there are free places, so that one
// that floods leaves room for the others.
//
// Pure and deterministic: no clock; ties go to the lower tenant, then to who came first.  Threads: one owner.
// Cost: logarithmic in the flows that wait.  Bounds: waiting_max; idle flows are forgotten when they are no
// longer ahead of the others, or nobody waits.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <unordered_map>
#include <vector>

#include "store/tenants.h"

namespace capstan::gateway {

inline constexpr std::array<std::int64_t, store::kTiers> kTierWeights{64, 16, 4, 1};

struct QueueOptions {
  int requests_max = 64;           // under way at once
  std::int64_t tokens_max = 0;     // of requests under way; 0: only their number counts
  int newcomers = -1;              // of the places; -1: one in eight, at least one if there are two
  std::size_t waiting_max = 10'000;
};

struct QueueItem {
  std::uint64_t id = 0;  // unique among those in the queue and under way
  std::int64_t tenant = 0;
  std::int64_t weight = 1;
  store::Tier tier = store::Tier::kDefault;
  std::int64_t tokens = 1;  // about what it will cost
};

class FairQueue {
 public:
  enum class Entry { kStarts, kWaits, kFull };
  using Started = std::vector<std::uint64_t>;

  explicit FairQueue(const QueueOptions& options) : options_(options) {}

  Entry enter(const QueueItem& item);
  // Under way, and ended: what it really cost. Also takes one back that waits (its client left). The ids that
  // start now.
  Started leave(std::uint64_t id, std::int64_t tokens);
  // As replicas come and go.
  Started set_capacity(int requests_max, std::int64_t tokens_max);

  std::size_t waiting() const { return waiting_; }
  int running() const { return running_; }
  int requests_max() const { return options_.requests_max; }
  std::size_t flows() const;  // remembered, for tests of the bound

 private:
  // A virtual clock's reading, then who; sets of it give who is furthest behind.
  using Place = std::pair<std::int64_t, std::int64_t>;
  struct Flow {
    std::int64_t clock = 0;
    std::int64_t weight = 1;
    int running = 0;
    std::deque<QueueItem> waiting;
  };
  struct Level {  // one tier
    std::int64_t clock = 0;
    std::int64_t present = 0;  // virtual time: where the last flow that started stood
    std::map<std::int64_t, Flow> flows;
    std::set<Place> waiting_new, waiting_held;  // flows that wait: that hold nothing, and that hold something
    std::set<Place> idle;                       // flows that neither wait nor run, still ahead of the present
    bool waits() const { return !waiting_new.empty() || !waiting_held.empty(); }
  };

  int newcomer_places() const;
  bool has_room(bool newcomer, std::int64_t tokens) const;
  void take_out(Level& level, std::int64_t tenant, const Flow& flow);  // of the sets, before its clock changes
  void put_in(Level& level, std::int64_t tenant);                      // back, where it belongs now
  void start(Level& level, std::int64_t tenant, const QueueItem& item);
  bool start_next(Started& started);

  QueueOptions options_;
  std::array<Level, store::kTiers> levels_;
  std::int64_t present_ = 0;  // virtual time among tiers
  int running_ = 0;
  std::int64_t running_tokens_ = 0;
  std::size_t waiting_ = 0;
  std::unordered_map<std::uint64_t, QueueItem> items_;  // that run
  std::unordered_map<std::uint64_t, std::pair<store::Tier, std::int64_t>> places_;  // of those that wait
};

}  // namespace capstan::gateway
