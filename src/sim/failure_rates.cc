// How it works: one exponential gap for all causes together, then the cause by its weight, then the host
// among those with GPUs.
#include "sim/failure_rates.h"

#include <algorithm>

#include "sim/random_draws.h"

namespace capstan::sim {
namespace {

using Scope = Fault::Scope;

constexpr std::int64_t kHourMs = 3'600'000, kMinuteMs = 60'000;

// Assumptions, as the sources that speak of them at all differ: a process starts again at once; a GPU is
// reset, or its host is swapped; a tray is exchanged; a rack is rebuilt.
constexpr RepairMinutes kNone = {0, 0, 0, 0, 0, 0, 0, 0, 0};
constexpr RepairMinutes kReset = {5, 7, 8, 9, 10, 12, 15, 30, 120};
constexpr RepairMinutes kSwap = {20, 25, 28, 30, 35, 45, 60, 240, 1'440};
constexpr RepairMinutes kTray = {720, 1'080, 1'440, 1'800, 2'160, 2'700, 3'600, 4'320, 5'760};
constexpr RepairMinutes kRack = {2'880, 4'320, 5'760, 7'200, 8'640, 10'080, 11'520, 14'400, 20'160};

// Grattafiori et al., "The Llama 3 Herd of Models" (2024), table 5: 419 unplanned and 47 planned
// interruptions in 54 days of one job on 16,384 H100.
RateSet llama3() {
  RateSet out{.name = "llama3",
              .source = "Llama 3 (2024), table 5: 54 days of 16,384 H100",
              .gpu_hours = 54 * 24 * 16'384,
              .causes = {{"GPU", Scope::kGpu, 148, kReset, 60'000},
                         {"HBM3 memory", Scope::kGpu, 72, kSwap, 60'000},
                         {"software", Scope::kProcess, 54, kNone, 0},
                         {"network", Scope::kHost, 35, kSwap, 60'000},
                         {"host maintenance", Scope::kHost, 32, kSwap, 60'000},
                         {"GPU SRAM", Scope::kGpu, 19, kSwap, 60'000},
                         {"GPU system processor", Scope::kGpu, 17, kReset, 60'000},
                         {"NIC", Scope::kHost, 7, kSwap, 60'000},
                         {"NCCL watchdog", Scope::kProcess, 7, kNone, 0},
                         {"silent data corruption", Scope::kHost, 6, kSwap, 60'000},
                         {"GPU thermal interface", Scope::kGpu, 6, kSwap, 60'000},
                         {"others", Scope::kHost, 16, kSwap, 60'000},
                         {"planned", Scope::kPlanned, 47, kSwap, 0}},
              .notes = {"Rates: Llama 3 (2024), table 5; its causes with three events or fewer are 'others'.",
                        "Assumed: a failure is noticed within a minute; repair times (a reset 10 minutes, a "
                        "swapped host half an "
                        "hour, the longest a day)."}};
  return out;
}

// Kokolis et al., "Revisiting Reliability in Large-Scale Machine Learning Research Clusters" (HPCA'25).
RateSet rsc(std::string_view name, std::int64_t events_per_100k_node_days) {
  return {
      .name = name,
      .source = "Meta RSC (HPCA'25): failures per 1,000 days of an 8-GPU node",
      .gpu_hours = 100'000LL * 24 * 8,
      .causes = {{"node", Scope::kHost, events_per_100k_node_days, kSwap, 60'000}},
      .notes = {
          "Rates: Meta RSC (HPCA'25). Assumed: noticed within a minute; a node is swapped in half an hour."}};
}

// A rack of 72: the GPUs' own rates are Llama 3's; what else can break there, nobody has published.
RateSet nvl72() {
  const std::int64_t hours = 54 * 24 * 16'384;
  return {.name = "nvl72",
          .source = "Llama 3 (2024) for GPUs and software; trays, NVSwitch and racks are assumptions",
          .gpu_hours = hours,
          .causes = {{"GPU", Scope::kGpu, 148 + 19 + 17 + 6, kReset, 60'000},
                     {"HBM memory", Scope::kGpu, 72, kSwap, 60'000},
                     {"software", Scope::kProcess, 61, kNone, 0},
                     {"tray", Scope::kHost, 60, kTray, 60'000, true},
                     {"NIC or network", Scope::kHost, 42, kSwap, 60'000},
                     {"NVSwitch or backplane", Scope::kDomain, 7, kTray, 60'000,
                      true},  // one in five years of a rack
                     {"rack", Scope::kDomain, 2, kRack, 60'000, true}},
          .notes = {"Rates: Llama 3 (2024) for GPUs, memory, software and network. Assumed: 60 trays, 7 "
                    "NVSwitches or backplanes and "
                    "2 racks in the same 21 million GPU-hours; repair times."}};
}

class Drawn : public FaultSource {
 public:
  Drawn(RateSet rates, const fleet::Topology& topology, const FaultDraw& draw, std::uint64_t seed)
      : rates_(std::move(rates)), draw_(draw), prng_(Prng::at(seed, 0xFA17)) {
    std::int64_t gpus = 0, events = 0;
    for (std::uint32_t i = 0; i < topology.hosts(); ++i) {
      const std::int64_t here = topology.host_class(fleet::HostId{i}).capacity.gpus;
      if (here == 0) continue;
      gpus += here;
      hosts_.push_back({fleet::HostId{i}, gpus});
    }
    for (const Cause& cause : rates_.causes) {
      weights_.push_back(cause.events);
      events += cause.events;
    }
    const auto all = static_cast<__int128>(events) * gpus * draw.rates_percent;
    if (all == 0) return;
    mean_gap_us_ =
        static_cast<std::int64_t>(static_cast<__int128>(rates_.gpu_hours) * kHourMs * 1000 * 100 / all);
    mean_gap_us_ = std::max<std::int64_t>(1, mean_gap_us_);
  }
  bool ever() const { return mean_gap_us_ > 0; }

  std::optional<Fault> next() override {
    at_us_ += exponential(prng_, mean_gap_us_);
    const Cause& cause = rates_.causes[weighted(prng_, weights_)];
    const auto pick =
        static_cast<std::int64_t>(prng_.below(static_cast<std::uint64_t>(hosts_.back().gpus_until)));
    const auto host =
        std::upper_bound(hosts_.begin(), hosts_.end(), pick,
                         [](std::int64_t wanted, const Host& row) { return wanted < row.gpus_until; });
    const std::int64_t before = host == hosts_.begin() ? 0 : std::prev(host)->gpus_until;
    const std::uint64_t part = prng_.below(8);
    const std::int64_t low = cause.repair[part] * kMinuteMs, high = cause.repair[part + 1] * kMinuteMs;
    return Fault{.time_ms = at_us_ / 1000,
                 .scope = cause.scope,
                 .host = host->id,
                 .gpu = pick - before,
                 .detected_after_ms = cause.detected_after_ms,
                 .repair_ms = prng_.between(low, high) * draw_.repair_percent / 100,
                 .cause = cause.name};
  }

 private:
  struct Host {
    fleet::HostId id{};
    std::int64_t gpus_until = 0;  // of it and all before
  };
  RateSet rates_;
  FaultDraw draw_;
  Prng prng_;
  std::vector<Host> hosts_;
  std::vector<std::int64_t> weights_;
  std::int64_t mean_gap_us_ = 0;
  std::int64_t at_us_ = 0;
};

std::vector<RateSet> all_sets() {
  return {llama3(), rsc("meta-rsc-1", 650), rsc("meta-rsc-2", 234), nvl72()};
}

}  // namespace

std::vector<std::string_view> rate_sets() {
  std::vector<std::string_view> out;
  for (const RateSet& set : all_sets()) out.push_back(set.name);
  return out;
}

Result<RateSet> rate_set(std::string_view name) {
  for (RateSet& set : all_sets()) {
    if (set.name == name) return std::move(set);
  }
  return fail(Code::kNotFound, "there are no failure rates '{}'; there are none, {}", name,
              fmt::join(rate_sets(), ", "));
}

Result<void> override_rate(RateSet& rates, std::string_view cause, std::int64_t events) {
  std::vector<std::string_view> names;
  for (Cause& one : rates.causes) {
    names.push_back(one.name);
    if (one.name != cause) continue;
    rates.notes.push_back(fmt::format("Changed: {} {} events instead of {} in {} GPU-hours.", cause, events,
                                      one.events, rates.gpu_hours));
    one.events = events;
    return {};
  }
  return fail(Code::kNotFound, "{} has no cause '{}'; it has {}", rates.name, cause, fmt::join(names, ", "));
}

std::unique_ptr<FaultSource> draw_faults(RateSet rates, const fleet::Topology& topology,
                                         const FaultDraw& draw, std::uint64_t seed) {
  auto out = std::make_unique<Drawn>(std::move(rates), topology, draw, seed);
  if (!out->ever()) return nullptr;
  return out;
}

}  // namespace capstan::sim
