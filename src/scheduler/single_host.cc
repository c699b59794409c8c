// How it works: RoomStates groups hosts of equal room. A Ranking, one for each kind of request, holds the
// score of every state that it has met, and a heap of (score, lowest host, state). Entries are not removed
// when a state's lowest host changes: a new one is pushed, and one that is no longer true is dropped when it
// comes to the top.
#include "scheduler/single_host.h"

#include <algorithm>

#include "base/assert.h"

namespace capstan::scheduler {
namespace {

constexpr std::int32_t kUnknown = INT32_MIN;
constexpr std::int32_t kNoFit = INT32_MIN + 1;

// The fullest GPU that takes the share; the GPUs are in ascending order of free room.
std::uint32_t fullest(const HostRequest& request, const HostRoom& room) {
  std::uint32_t gpu = 0;
  while (request.each.gpu_milli > 0 && room.gpu_milli[gpu] < request.each.gpu_milli) ++gpu;
  return gpu;
}

// May the host take new work now?
bool counts(const Inventory& inventory, HostId id) {
  if (!inventory.usable(id) || inventory.host(id).claimed) return false;
  const fleet::Domain& domain = inventory.topology().domain(inventory.topology().domain_of(id));
  if (domain.spares == 0) return true;
  std::uint32_t in_use = 0, awaited = 0;
  for (std::uint32_t at = 0; at < domain.hosts; ++at) {
    const HostId other{index(domain.first) + at};
    in_use += !inventory.idle(other) || inventory.host(other).awaited;
    awaited += inventory.host(other).awaited;
  }
  const std::uint32_t allowed = domain.hosts - std::min<std::uint32_t>(domain.spares, domain.hosts);
  return inventory.idle(id) ? in_use < allowed : awaited == 0 || in_use <= allowed;
}

class BestFit : public RoomPolicy {
 public:
  RoomScore score(const HostRequest& request, const HostRoom& room) const override {
    const std::int64_t milli_cpus = room.milli_cpus - request.each.milli_cpus;
    const std::int64_t gpu_milli =
        free_gpu_milli(room) - request.each.gpu_milli - request.each.gpus * kGpuMilli;
    // 100 (1 - (c / 128000 + g / 8000) / 2) = (256000 - c - 16 g) / 2560, rounded down.
    const std::int64_t numerator = 256'000 - milli_cpus - 16 * gpu_milli;
    const std::int64_t floor = numerator / 2'560 - (numerator % 2'560 < 0 ? 1 : 0);
    return {static_cast<std::int32_t>(std::clamp<std::int64_t>(floor, -1'000'000'000, 100)),
            fullest(request, room)};
  }
};

class FirstFit : public RoomPolicy {
 public:
  RoomScore score(const HostRequest& request, const HostRoom& room) const override {
    return {0, fullest(request, room)};
  }
};

class LeastFragmentation : public RoomPolicy {
 public:
  explicit LeastFragmentation(WorkloadMix mix) : fragmentation_(std::move(mix)) {}
  void extend(const fleet::Topology& topology) override { fragmentation_.extend(topology); }
  RoomScore score(const HostRequest& request, const HostRoom& room) const override {
    const std::int64_t before = fragmentation_.amount(room);
    const auto score_at = [&](std::uint32_t gpu) {
      const std::int64_t after = fragmentation_.amount(room_after(request, room, gpu));
      return fragmentation_score(before - after, fragmentation_.weight());
    };
    const std::uint32_t first = fullest(request, room);
    RoomScore best{score_at(first), first};
    if (request.each.gpu_milli == 0) return best;
    for (std::uint32_t gpu = first + 1; gpu < room.gpus; ++gpu) {
      if (room.gpu_milli[gpu] == room.gpu_milli[gpu - 1]) continue;
      if (const int score = score_at(gpu); score > best.score) best = {score, gpu};
    }
    return best;
  }

 private:
  Fragmentation fragmentation_;
};

}  // namespace

std::unique_ptr<RoomPolicy> best_fit_policy() { return std::make_unique<BestFit>(); }
std::unique_ptr<RoomPolicy> first_fit_policy() { return std::make_unique<FirstFit>(); }
std::unique_ptr<RoomPolicy> fragmentation_policy(WorkloadMix mix) {
  return std::make_unique<LeastFragmentation>(std::move(mix));
}

struct SingleHostPlacer::Ranking {
  struct Entry {
    std::int32_t score = 0;
    std::uint32_t host = 0;
    std::uint32_t state = 0;
    // Of a heap that has the best on top.
    friend bool operator<(const Entry& a, const Entry& b) {
      return a.score != b.score ? a.score < b.score : a.host > b.host;
    }
  };
  HostRequest request;
  std::vector<std::uint8_t> classes;  // that allow it
  std::vector<RoomScore> scores;      // by state
  std::vector<std::uint32_t> filed;   // by state: the host of its latest entry
  std::vector<Entry> heap;
  std::uint64_t generation = 0;
  std::uint64_t log_read = 0;
  std::int64_t asked_last = 0;
};

SingleHostPlacer::SingleHostPlacer(std::unique_ptr<RoomPolicy> policy, Options options)
    : policy_(std::move(policy)), options_(options), prng_(options.seed) {
  CAPSTAN_ASSERT(policy_ != nullptr && options_.kinds_max > 0);
}

SingleHostPlacer::~SingleHostPlacer() = default;

void SingleHostPlacer::set_policy(std::unique_ptr<RoomPolicy> policy) {
  CAPSTAN_ASSERT(policy != nullptr);
  policy_ = std::move(policy);
  rankings_.clear();
}

void SingleHostPlacer::changed(HostId host) {
  // A host that was not seen yet is looked at anyway.
  if (index(host) >= is_changed_.size() || is_changed_[index(host)] != 0) return;
  is_changed_[index(host)] = 1;
  changes_.push_back(host);
}

void SingleHostPlacer::absorb(const Inventory& inventory) {
  for (std::size_t i = is_changed_.size(); i < inventory.hosts(); ++i) {
    is_changed_.push_back(1);
    changes_.push_back(HostId(static_cast<std::uint32_t>(i)));
  }
  for (std::size_t i = 0; i < changes_.size(); ++i) {  // grows meanwhile
    const HostId host = changes_[i];
    const fleet::Domain& domain = inventory.topology().domain(inventory.topology().domain_of(host));
    // Whether an idle host counts depends on the others.
    for (std::uint32_t at = 0; domain.spares > 0 && at < domain.hosts; ++at) {
      changed(HostId(index(domain.first) + at));
    }
    const bool asked_for = !options_.shares_only || inventory.topology().host_class(host).fractional;
    states_.set(host, asked_for && counts(inventory, host) ? std::optional(room_of(inventory, host)) : std::nullopt);
  }
  for (const HostId host : changes_) is_changed_[index(host)] = 0;
  changes_.clear();
  states_.trim();
}

void SingleHostPlacer::forget_rankings() {
  const auto too_many = [&] {
    return rankings_.size() > options_.kinds_max ||
           (rankings_.size() > 8 && rankings_.size() * states_.states() > options_.scores_max);
  };
  while (too_many()) {
    rankings_.erase(std::min_element(rankings_.begin(), rankings_.end(), [](const auto& a, const auto& b) {
      return a.second->asked_last < b.second->asked_last;
    }));
  }
}

SingleHostPlacer::Ranking& SingleHostPlacer::ranking(const Inventory& inventory, const HostRequest& request) {
  const auto [at, is_new] = rankings_.try_emplace(request);
  if (is_new) {
    at->second = std::make_unique<Ranking>();
    at->second->request = request;
    at->second->generation = UINT64_MAX;
  }
  Ranking& found = *at->second;
  found.asked_last = ++asked_;
  if (is_new) forget_rankings();  // never this one, which was asked last
  const fleet::Topology& topology = inventory.topology();
  for (std::size_t i = found.classes.size(); i < topology.classes(); ++i) {
    const auto& host_class = topology.host_class(fleet::ClassId(static_cast<std::uint32_t>(i)));
    found.classes.push_back(allows(request, host_class) ? 1 : 0);
  }
  return found;
}

// Sees to it that the heap holds a true entry for the state, if the state has hosts and room.
void SingleHostPlacer::file(Ranking& ranking, std::uint32_t state) {
  const std::uint32_t lowest = states_.lowest(state);
  if (ranking.filed[state] == lowest) return;
  ranking.filed[state] = lowest;
  if (lowest == RoomStates::kNone) return;
  RoomScore& score = ranking.scores[state];
  if (score.score == kUnknown) {
    const HostRoom& room = states_.room(state);
    const bool takes = ranking.classes[index(room.host_class)] != 0 && fits(ranking.request, room);
    score = takes ? policy_->score(ranking.request, room) : RoomScore{kNoFit, 0};
  }
  if (score.score == kNoFit) return;
  ranking.heap.push_back({score.score, lowest, state});
  std::push_heap(ranking.heap.begin(), ranking.heap.end());
}

void SingleHostPlacer::rebuild(Ranking& ranking) {
  if (ranking.generation != states_.generation()) {
    ranking.generation = states_.generation();
    ranking.scores.clear();
  }
  ranking.scores.resize(states_.states(), RoomScore{kUnknown, 0});
  ranking.filed.assign(states_.states(), RoomStates::kNone);
  ranking.heap.clear();
  for (std::uint32_t state = 0; state < states_.states(); ++state) file(ranking, state);
  ranking.log_read = states_.log_end();
}

void SingleHostPlacer::catch_up(Ranking& ranking) {
  if (ranking.generation != states_.generation() || ranking.log_read < states_.log_begin() ||
      ranking.heap.size() > 2 * states_.states() + 1'024) {
    rebuild(ranking);
    return;
  }
  ranking.scores.resize(states_.states(), RoomScore{kUnknown, 0});
  ranking.filed.resize(states_.states(), RoomStates::kNone);
  for (; ranking.log_read < states_.log_end(); ++ranking.log_read) {
    file(ranking, states_.log_at(ranking.log_read));
  }
}

// The host that gets the request; kNone if none does.
std::uint32_t SingleHostPlacer::pick(Ranking& ranking) {
  auto& heap = ranking.heap;
  while (!heap.empty() && states_.lowest(heap.front().state) != heap.front().host) {
    std::pop_heap(heap.begin(), heap.end());
    heap.pop_back();
  }
  if (heap.empty()) return RoomStates::kNone;
  if (options_.ties == Ties::kLowestHost) return heap.front().host;
  std::uint32_t picked = RoomStates::kNone;
  std::uint64_t equals = 0;
  for (std::uint32_t host = 0; host < states_.hosts(); ++host) {
    const std::uint32_t state = states_.state_of(HostId(host));
    if (state == RoomStates::kNone || ranking.scores[state].score != heap.front().score) continue;
    if (prng_.below(++equals) == 0) picked = host;
  }
  return picked;
}

std::optional<HostChoice> SingleHostPlacer::place(const Inventory& inventory, const HostRequest& request) {
  CAPSTAN_ASSERT(request.each.gpus == 0 || request.each.gpu_milli == 0);
  absorb(inventory);
  policy_->extend(inventory.topology());
  Ranking& asked = ranking(inventory, request);
  catch_up(asked);
  const std::uint32_t picked = pick(asked);
  if (picked == RoomStates::kNone) return std::nullopt;
  HostChoice choice{.host = HostId(picked), .gpus = 0};
  if (request.each.gpu_milli == 0) {
    choice.gpus = inventory.choose_gpus(choice.host, request.each);
    return choice;
  }
  const std::uint32_t state = states_.state_of(choice.host);
  const std::uint16_t wanted = states_.room(state).gpu_milli[asked.scores[state].gpu];
  const auto free = inventory.gpu_free(choice.host);
  const GpuSet failed = inventory.host(choice.host).gpus_failed;
  for (std::size_t gpu = 0; gpu < free.size() && choice.gpus == 0; ++gpu) {
    if (free[gpu] == wanted && (failed >> gpu & 1) == 0) choice.gpus = GpuSet{1} << gpu;
  }
  CAPSTAN_ASSERT(choice.gpus != 0);
  return choice;
}

}  // namespace capstan::scheduler
