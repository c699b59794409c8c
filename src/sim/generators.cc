// How it works: people's jobs and bursts come as a Poisson process at the rate of the busiest hour, thinned: an arrival at
// another hour stays with the part that the curve says. What is drawn for one arrival does not depend on which others stayed,
// so two curves differ in who comes, not in what comes.
#include "sim/generators.h"

#include <algorithm>

#include "sim/random_draws.h"

namespace capstan::sim {
namespace {

// When something of a Poisson process that follows the day happens.
class Moments {
 public:
  Moments(std::int64_t mean_gap_ms, const DailyCurve& curve, Window window, std::uint64_t seed)
      : mean_gap_ms_(mean_gap_ms), curve_(curve), until_ms_(window.until_ms), now_ms_(window.from_ms), prng_(seed) {
    CAPSTAN_ASSERT(mean_gap_ms >= 1);
  }
  // nullopt: none before the end.
  std::optional<std::int64_t> next() {
    for (;;) {
      now_ms_ += exponential(prng_, mean_gap_ms_);
      ++number_;
      const bool stays = static_cast<std::int64_t>(prng_.below(1000)) < share_of_day(curve_, now_ms_);
      if (now_ms_ >= until_ms_) return std::nullopt;
      if (stays) return now_ms_;
    }
  }
  std::uint64_t number() const { return number_; }  // of the last, those that did not stay counted too

 private:
  std::int64_t mean_gap_ms_;
  DailyCurve curve_;
  std::int64_t until_ms_;
  std::int64_t now_ms_;
  std::uint64_t number_ = 0;
  Prng prng_;
};

class FrontierSource : public ArrivalSource {
 public:
  FrontierSource(FrontierRuns runs, Window window) : runs_(std::move(runs)), window_(window) {
    CAPSTAN_ASSERT(runs_.ranks >= 1 && runs_.work_ms >= 1);
  }

  std::optional<Arrival> next() override {
    const std::int64_t time_ms = window_.from_ms + number_ * runs_.gap_ms;
    if (number_ == runs_.count || time_ms >= window_.until_ms) return std::nullopt;
    JobSize size{.work_ms = runs_.work_ms, .ranks = runs_.ranks};
    const std::int64_t per_rank = runs_.pattern.gpus_per_rank;
    if (per_rank > 0) size.gpus = runs_.ranks * per_rank;
    Arrival out = make_job(runs_.pattern, fmt::format("{}-{}", runs_.pattern.kind, number_), size);
    out.time_ms = time_ms;
    ++number_;
    return out;
  }

 private:
  FrontierRuns runs_;
  Window window_;
  std::int64_t number_ = 0;
};

class FineTuneSource : public ArrivalSource {
 public:
  FineTuneSource(FineTunes jobs, Window window, std::uint64_t seed)
      : jobs_(std::move(jobs)), seed_(Prng::at(seed, 1)), moments_(jobs_.mean_gap_ms, jobs_.curve, window, Prng::at(seed, 0)) {
    CAPSTAN_ASSERT(!jobs_.sizes.empty());
    for (const SizeClass& size : jobs_.sizes) weights_.push_back(size.weight);
  }

  std::optional<Arrival> next() override {
    const auto time_ms = moments_.next();
    if (!time_ms) return std::nullopt;
    Prng prng(Prng::at(seed_, moments_.number()));
    const SizeClass& size = jobs_.sizes[weighted(prng, weights_)];
    const std::int64_t work_ms = draw_work(prng, size.work);
    Arrival out =
        make_job(jobs_.pattern, fmt::format("{}-{}", jobs_.pattern.kind, number_++), {.gpus = size.gpus, .work_ms = work_ms});
    out.time_ms = *time_ms;
    if (!jobs_.tenants.empty()) out.spec.tenant = jobs_.tenants[prng.below(jobs_.tenants.size())];
    return out;
  }

 private:
  static std::int64_t draw_work(Prng& prng, const std::vector<Quantile>& quantiles) {
    CAPSTAN_ASSERT(quantiles.size() >= 2);
    constexpr std::int64_t kFine = 1'000;  // of a thousandth
    const std::int64_t share = prng.between(0, 1000 * kFine);
    std::size_t upper = 1;
    while (upper + 1 < quantiles.size() && quantiles[upper].share_milli * kFine < share) ++upper;
    const Quantile& from = quantiles[upper - 1];
    const Quantile& to = quantiles[upper];
    const __int128 span = to.work_ms - from.work_ms;
    const std::int64_t width = std::max<std::int64_t>(1, (to.share_milli - from.share_milli) * kFine);
    return from.work_ms + static_cast<std::int64_t>(span * (share - from.share_milli * kFine) / width);
  }

  FineTunes jobs_;
  std::uint64_t seed_;
  Moments moments_;
  std::vector<std::int64_t> weights_;
  std::int64_t number_ = 0;
};

class BurstSource : public ArrivalSource {
 public:
  BurstSource(AgentBursts bursts, Window window, std::uint64_t seed)
      : bursts_(std::move(bursts)),
        window_(window),
        seed_(Prng::at(seed, 1)),
        moments_(bursts_.mean_gap_ms, bursts_.curve, window, Prng::at(seed, 0)),
        next_burst_ms_(moments_.next()) {
    CAPSTAN_ASSERT(bursts_.arrays_min >= 1 && bursts_.arrays_min <= bursts_.arrays_max && bursts_.within_ms >= 0);
  }

  // Bursts overlap: what is due goes out when no later burst can begin before it.
  std::optional<Arrival> next() override {
    while (next_burst_ms_ && (due_.empty() || due_.back().time_ms >= *next_burst_ms_)) begin_burst();
    if (due_.empty()) return std::nullopt;
    Arrival out = std::move(due_.back());
    due_.pop_back();
    out.spec.name = fmt::format("{}-{}", bursts_.pattern.kind, number_++);
    return out;
  }

 private:
  void begin_burst() {
    Prng prng(Prng::at(seed_, moments_.number()));
    const std::int64_t arrays = prng.between(bursts_.arrays_min, bursts_.arrays_max);
    for (std::int64_t i = 0; i < arrays; ++i) {
      Arrival one;
      one.time_ms = *next_burst_ms_ + prng.between(0, bursts_.within_ms);
      one.kind = bursts_.pattern.kind;
      one.spec = bursts_.pattern.spec;
      one.behaviour = bursts_.pattern.behaviour;
      one.spec.kind = workload::Kind::kTasks;
      one.spec.count = by_doublings(prng, bursts_.tasks_min, bursts_.tasks_max);
      one.behaviour.work_ms = by_doublings(prng, bursts_.work_min_ms, bursts_.work_max_ms);
      if (one.time_ms < window_.until_ms) due_.push_back(std::move(one));
    }
    // Latest first, so that the earliest is taken from the end; of equals the one drawn first.
    std::stable_sort(due_.begin(), due_.end(), [](const Arrival& a, const Arrival& b) { return a.time_ms > b.time_ms; });
    next_burst_ms_ = moments_.next();
  }

  AgentBursts bursts_;
  Window window_;
  std::uint64_t seed_;
  Moments moments_;
  std::optional<std::int64_t> next_burst_ms_;
  std::vector<Arrival> due_;
  std::int64_t number_ = 0;
};

}  // namespace

std::unique_ptr<ArrivalSource> generate(FrontierRuns runs, Window window, std::uint64_t) {
  return std::make_unique<FrontierSource>(std::move(runs), window);
}

std::unique_ptr<ArrivalSource> generate(FineTunes jobs, Window window, std::uint64_t seed) {
  return std::make_unique<FineTuneSource>(std::move(jobs), window, seed);
}

std::unique_ptr<ArrivalSource> generate(AgentBursts bursts, Window window, std::uint64_t seed) {
  return std::make_unique<BurstSource>(std::move(bursts), window, seed);
}

}  // namespace capstan::sim
