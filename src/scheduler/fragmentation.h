// Fragmentation: how much of a host's idle GPU capacity the usual workload cannot use, and the score that
// follows.
//
//   WorkloadHistogram recent;
//   recent.add(request);                              // each request that arrives
//   Fragmentation fragmentation(recent.mix());        // the kinds that make up 95% of them
//   std::int64_t before = fragmentation.amount(topology, room);
//   int score = fragmentation_score(before - after, fragmentation.weight());   // 0 to 100, higher is better
//
// Source: fragmentation gradient descent, Weng et al., "Beware of Fragmentation" (USENIX ATC'23). For a rank
// of the mix that fits the host, the idle thousandths of GPUs with less room than it asks of one are
// fragments; for a rank that does not fit, or needs no GPU, all idle thousandths are. A host's amount is the
// mean over the mix, here times the mix's weight so that it is an integer. Memory is not looked at, as in the
// source. Threads: values; a Fragmentation learns new host classes in extend, everything else is pure.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "scheduler/single_host_room.h"

namespace capstan::scheduler {

// Kinds of requests with how often each is asked. The memory of the requests is 0.
struct WorkloadMix {
  struct Entry {
    HostRequest request;
    std::int64_t count = 0;
    friend bool operator==(const Entry&, const Entry&) = default;
  };
  std::vector<Entry> entries;  // most frequent first
  friend bool operator==(const WorkloadMix&, const WorkloadMix&) = default;
};

// Counts kinds of requests, bounded and forgetful: when `window` requests are counted twice over, every count
// is halved; when a further kind would pass `kinds_max`, the rarest goes (of equals the one asked longest
// ago). Cost: add O(log kinds), O(kinds) when full; mix O(kinds log kinds).
class WorkloadHistogram {
 public:
  struct Options {
    std::size_t kinds_max = 1'024;
    std::int64_t window = 65'536;
  };
  WorkloadHistogram() : WorkloadHistogram(Options{}) {}
  explicit WorkloadHistogram(Options options) : options_(options) {}

  void add(HostRequest request);
  std::size_t kinds() const { return counts_.size(); }
  std::int64_t total() const { return total_; }
  // The most frequent kinds that together make at least `coverage_percent` of what is counted; of equally
  // frequent ones the lesser request first.
  WorkloadMix mix(int coverage_percent = 95) const;

 private:
  struct Count {
    std::int64_t count = 0;
    std::int64_t asked_last = 0;
  };
  void halve();
  Options options_;
  std::map<HostRequest, Count> counts_;
  std::int64_t total_ = 0;
  std::int64_t asked_ = 0;
};

class Fragmentation {
 public:
  explicit Fragmentation(WorkloadMix mix);

  // Sum of the mix's counts; 0 for an empty mix.
  std::int64_t weight() const { return weight_; }
  // Takes in classes that the topology has gained.
  void extend(const fleet::Topology& topology);
  // Fragments in thousandths of a GPU, times weight(). The room's class must be known.
  // Cost: O(GPUs × sizes of the mix + kinds of the mix), about 0.2 us for 60 kinds and 8 GPUs.
  std::int64_t amount(const HostRoom& room) const;

 private:
  struct Kind {
    std::int64_t milli_cpus = 0;
    std::uint32_t gpus = 0;
    std::uint32_t size = 0;  // index into sizes_
    std::int64_t count = 0;
  };
  // The mix as a class of hosts sees it.
  struct View {
    std::int64_t count_never = 0;  // of requests that the class never takes, or that need no GPU
    std::vector<Kind> kinds;
  };
  WorkloadMix mix_;
  std::int64_t weight_ = 0;
  std::vector<std::int64_t> sizes_;  // thousandths asked of one GPU, each once
  std::vector<View> views_;          // by class
};

// floor(100 / (1 + exp(-drop / (1000 weight)))), exactly, without floating point: `drop` is the amount before
// less the amount after. 50 when the weight is 0.
int fragmentation_score(std::int64_t drop, std::int64_t weight);

// The least x, in units of 1e-15 and rounded up, for which 100 / (1 + exp(-x)) is at least k, for k from 1 to
// 99: ln(k / (100 - k)).
inline constexpr std::int64_t kScoreUnit = 1'000'000'000'000'000;
std::int64_t score_threshold(int k);

}  // namespace capstan::scheduler
