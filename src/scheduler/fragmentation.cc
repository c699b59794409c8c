// How it works: for each class of hosts the mix is split once into what the class never takes (a constant
// factor of all idle thousandths) and the kinds that it may take. A measurement then works out, for each size
// of GPU share in the mix, how many GPUs have that much and what lies idle on the others, and sums over the
// kinds.
//
// The sigmoid is a table of thresholds. Its argument is the fraction drop / (1000 weight), so `x >=
// threshold` is a comparison of products; only the thresholds are rounded, upwards to 1e-15. They are derived
// at compile time: with z = (k - 50) / 50, ln(k / (100 - k)) = 2 (z + z^3/3 + z^5/5 + …), in 100 fractional
// bits. z^2 is at most 0.9604, so 2,000 terms leave less than 1e-33, and the truncations of 2,000 terms less
// than 1e-26.
#include "scheduler/fragmentation.h"

#include <algorithm>

#include "base/assert.h"

namespace capstan::scheduler {
namespace {

__extension__ using Wide = __int128;

constexpr Wide kOne = Wide{1} << 100;

// ln(k / (100 - k)) in units of 1e-15, rounded up, for k from 50 to 99.
constexpr std::int64_t threshold_above_half(int k) {
  const int n = k - 50;
  Wide power = kOne / 50 * n;
  Wide sum = 0;
  for (int term = 1; term < 4'000 && power != 0; term += 2) {
    sum += power / term;
    power = power / 2'500 * (n * n);
  }
  sum *= 2;
  // sum × 1e15 / 2^100, rounded up, in two steps: the product would not fit.
  const Wide scaled = (sum >> 30) * kScoreUnit;
  return static_cast<std::int64_t>((scaled + ((Wide{1} << 70) - 1)) >> 70);
}

constexpr std::array<std::int64_t, 100> make_thresholds() {
  std::array<std::int64_t, 100> out{};
  for (int k = 50; k < 100; ++k) out[static_cast<std::size_t>(k)] = threshold_above_half(k);
  // ln((100 - k) / k) is the negative; rounding up a negative is rounding its size down.
  for (std::size_t k = 1; k < 50; ++k) out[k] = 1 - out[100 - k];
  return out;
}

constexpr std::array<std::int64_t, 100> kThresholds = make_thresholds();
static_assert(kThresholds[50] == 0 && kThresholds[99] > 4'595'119'850'134'589 &&
              kThresholds[99] <= 4'595'119'850'134'590);

}  // namespace

std::int64_t score_threshold(int k) {
  CAPSTAN_ASSERT(k >= 1 && k <= 99);
  return kThresholds[static_cast<std::size_t>(k)];
}

int fragmentation_score(std::int64_t drop, std::int64_t weight) {
  if (weight == 0) return 50;
  // x >= t  <=>  drop / (1000 weight) >= t 1e-15  <=>  drop 1e12 >= t weight
  const Wide left = Wide{drop} * (kScoreUnit / 1'000);
  int low = 0, high = 99;  // the greatest k whose threshold is reached
  while (low < high) {
    const int k = (low + high + 1) / 2;
    if (left >= Wide{kThresholds[static_cast<std::size_t>(k)]} * weight) {
      low = k;
    } else {
      high = k - 1;
    }
  }
  return low;
}

void WorkloadHistogram::halve() {
  total_ = 0;
  for (auto at = counts_.begin(); at != counts_.end();) {
    at->second.count /= 2;
    total_ += at->second.count;
    at = at->second.count == 0 ? counts_.erase(at) : std::next(at);
  }
}

void WorkloadHistogram::add(HostRequest request) {
  request.each.memory_bytes = 0;
  if (counts_.size() >= options_.kinds_max && !counts_.contains(request)) {
    const auto rarest = std::min_element(counts_.begin(), counts_.end(), [](const auto& a, const auto& b) {
      return std::tie(a.second.count, a.second.asked_last) < std::tie(b.second.count, b.second.asked_last);
    });
    total_ -= rarest->second.count;
    counts_.erase(rarest);
  }
  Count& count = counts_[std::move(request)];
  ++count.count;
  count.asked_last = ++asked_;
  if (++total_ >= 2 * options_.window) halve();
}

WorkloadMix WorkloadHistogram::mix(int coverage_percent) const {
  WorkloadMix out;
  for (const auto& [request, count] : counts_) out.entries.push_back({request, count.count});
  // Stable: the map is in order of request.
  std::stable_sort(
      out.entries.begin(), out.entries.end(),
      [](const WorkloadMix::Entry& a, const WorkloadMix::Entry& b) { return a.count > b.count; });
  std::int64_t covered = 0;
  std::size_t kept = 0;
  while (kept < out.entries.size() && covered * 100 < total_ * coverage_percent) {
    covered += out.entries[kept++].count;
  }
  out.entries.resize(kept);
  return out;
}

Fragmentation::Fragmentation(WorkloadMix mix) : mix_(std::move(mix)) {
  for (const WorkloadMix::Entry& entry : mix_.entries) {
    weight_ += entry.count;
    const Capacity& each = entry.request.each;
    if (each.gpus > 0) sizes_.push_back(kGpuMilli);
    if (each.gpu_milli > 0) sizes_.push_back(each.gpu_milli);
  }
  std::sort(sizes_.begin(), sizes_.end());
  sizes_.erase(std::unique(sizes_.begin(), sizes_.end()), sizes_.end());
}

void Fragmentation::extend(const fleet::Topology& topology) {
  for (std::size_t i = views_.size(); i < topology.classes(); ++i) {
    const auto& host_class = topology.host_class(fleet::ClassId(static_cast<std::uint32_t>(i)));
    View& view = views_.emplace_back();
    for (const auto& [request, count] : mix_.entries) {
      const Capacity& each = request.each;
      if ((each.gpus == 0 && each.gpu_milli == 0) || !allows(request, host_class)) {
        view.count_never += count;
        continue;
      }
      const std::int64_t size = each.gpus > 0 ? kGpuMilli : each.gpu_milli;
      const auto at = std::lower_bound(sizes_.begin(), sizes_.end(), size) - sizes_.begin();
      view.kinds.push_back({.milli_cpus = each.milli_cpus,
                            .gpus = static_cast<std::uint32_t>(std::max<std::int64_t>(each.gpus, 1)),
                            .size = static_cast<std::uint32_t>(at),
                            .count = count});
    }
  }
}

std::int64_t Fragmentation::amount(const HostRoom& room) const {
  struct Fill {
    std::uint32_t gpus;      // that have this much free
    std::int64_t fragments;  // idle thousandths of the others
  };
  CAPSTAN_ASSERT(index(room.host_class) < views_.size());
  const View& view = views_[index(room.host_class)];
  const std::int64_t idle = free_gpu_milli(room);
  if (idle == 0) return 0;
  std::array<Fill, kGpuMilli + 1> fills;  // only the first sizes_.size() are used: not initialised
  for (std::size_t size = 0; size < sizes_.size(); ++size) {
    Fill fill{0, 0};
    for (std::uint32_t gpu = 0; gpu < room.gpus; ++gpu) {
      const bool enough = room.gpu_milli[gpu] >= sizes_[size];
      fill.gpus += enough ? 1 : 0;
      fill.fragments += enough ? 0 : room.gpu_milli[gpu];
    }
    fills[size] = fill;
  }
  std::int64_t sum = view.count_never * idle;
  for (const Kind& kind : view.kinds) {
    const Fill& fill = fills[kind.size];
    const bool takes = room.milli_cpus >= kind.milli_cpus && fill.gpus >= kind.gpus;
    sum += kind.count * (takes ? fill.fragments : idle);
  }
  return sum;
}

}  // namespace capstan::scheduler
