// How it works: the fleet of examples/fleets/million.yaml with a cluster of CPU hosts beside it, for a simulated year: four
// frontier runs of 1,024 trays that last all of it, fine-tunes of 1 to 64 trays for hours to weeks, bursts of agents' tasks, and
// failures of trays, GPUs, processes and whole UltraServers. A year is 365 days.
#include <sys/resource.h>

#include <algorithm>
#include <bit>
#include <chrono>

#include "apps/bench_sim/section.h"
#include "base/file.h"
#include "base/prng.h"
#include "sim/world.h"
#include "workload/fleet_yaml.h"

namespace capstan::apps::bench_sim {
namespace {

using sim::Arrival;
using sim::Fault;

constexpr std::int64_t kHourMs = 3'600'000, kDayMs = 24 * kHourMs, kYearMs = 365 * kDayMs;
constexpr std::int64_t kGangs = 205'000, kTasks = 20'500'000, kFailures = 155'000, kTasksPerArray = 2'050;

// `count` moments spread over the year: one in each of as many equal pieces, drawn inside it.
class Spread {
 public:
  Spread(std::int64_t count, std::int64_t year_ms, std::uint64_t seed) : count_(count), year_ms_(year_ms), prng_(seed) {}
  std::optional<std::int64_t> next() {
    if (at_ == count_) return std::nullopt;
    const std::int64_t begin = year_ms_ / count_ * at_, width = std::max<std::int64_t>(1, year_ms_ / count_);
    ++at_;
    return begin + static_cast<std::int64_t>(prng_.below(static_cast<std::uint64_t>(width)));
  }
  Prng& prng() { return prng_; }
  std::int64_t made() const { return at_; }

 private:
  std::int64_t count_, year_ms_, at_ = 0;
  Prng prng_;
};

class Frontier : public sim::ArrivalSource {
 public:
  std::optional<Arrival> next() override {
    if (made_ == 4) return std::nullopt;
    Arrival out;
    out.kind = "frontier";
    out.spec.name = fmt::format("frontier-{}", made_++);
    out.spec.command = {"train"};
    out.spec.ranks = 1'024;
    out.spec.resources.gpus = 4;
    out.spec.placement.segment = 16;
    out.spec.checkpoint.interval_ms = 600'000;
    out.spec.restarts.budget = 1'000'000;
    out.behaviour.work_ms = 2 * kYearMs;
    out.behaviour.checkpoint_stall_ms = 5'000;
    out.behaviour.start_ms = 120'000;
    out.behaviour.restart_ms = 180'000;
    return out;
  }

 private:
  int made_ = 0;
};

class FineTuning : public sim::ArrivalSource {
 public:
  FineTuning(std::int64_t count, std::int64_t year_ms, std::uint64_t seed) : when_(count, year_ms, seed) {}
  std::optional<Arrival> next() override {
    const auto time = when_.next();
    if (!time) return std::nullopt;
    Prng& prng = when_.prng();
    Arrival out;
    out.time_ms = *time;
    out.kind = "fine-tune";
    out.spec.name = fmt::format("tune-{}", when_.made());
    out.spec.command = {"train"};
    out.spec.ranks = std::int64_t{1} << prng.below(7);  // 1 to 64 trays
    out.spec.resources.gpus = 4;
    out.spec.placement.segment = std::min<std::int64_t>(16, out.spec.ranks);
    out.spec.checkpoint.interval_ms = 1'200'000;
    out.spec.restarts.budget = 1'000;
    // Each doubling from an hour to six weeks is as likely as the next.
    const std::int64_t base = kHourMs << prng.below(10);
    out.behaviour.work_ms = base + static_cast<std::int64_t>(prng.below(static_cast<std::uint64_t>(base)));
    out.behaviour.checkpoint_stall_ms = 10'000;
    out.behaviour.start_ms = 60'000;
    out.behaviour.restart_ms = 60'000;
    return out;
  }

 private:
  Spread when_;
};

class Agents : public sim::ArrivalSource {
 public:
  Agents(std::int64_t count, std::int64_t year_ms, std::uint64_t seed) : when_(count, year_ms, seed) {}
  std::optional<Arrival> next() override {
    const auto time = when_.next();
    if (!time) return std::nullopt;
    Arrival out;
    out.time_ms = *time;
    out.kind = "agents";
    out.spec.kind = workload::Kind::kTasks;
    out.spec.name = fmt::format("agents-{}", when_.made());
    out.spec.command = {"agent"};
    out.spec.count = kTasksPerArray;
    out.spec.retries = 3;
    out.spec.resources.milli_cpus = 2'000;
    out.behaviour.work_ms = 300'000;
    out.behaviour.spread_milli = 900;
    return out;
  }

 private:
  Spread when_;
};

class Breakdowns : public sim::FaultSource {
 public:
  Breakdowns(const fleet::Topology& topology, std::int64_t count, std::int64_t year_ms, std::uint64_t seed)
      : when_(count, year_ms, seed) {
    for (std::uint32_t i = 0; i < topology.hosts(); ++i) {
      if (topology.host_class(fleet::HostId{i}).capacity.gpus > 0) hosts_.push_back(fleet::HostId{i});
    }
  }
  std::optional<Fault> next() override {
    const auto time = when_.next();
    if (!time) return std::nullopt;
    Prng& prng = when_.prng();
    Fault out;
    out.time_ms = *time;
    out.host = hosts_[prng.below(hosts_.size())];
    const std::uint64_t draw = prng.below(1000);
    if (draw < 500) {
      out.scope = Fault::Scope::kGpu;
      out.gpu = static_cast<std::int64_t>(prng.below(4));
      out.repair_ms = 2 * kHourMs;
      out.cause = "GPU";
    } else if (draw < 800) {
      out.scope = Fault::Scope::kHost;
      out.detected_after_ms = 30'000;
      out.repair_ms = static_cast<std::int64_t>(prng.below(3 * kDayMs));
      out.cause = "tray";
    } else if (draw < 998) {
      out.scope = Fault::Scope::kProcess;
      out.cause = "software";
    } else {
      out.scope = Fault::Scope::kDomain;
      out.detected_after_ms = 30'000;
      out.repair_ms = 5 * kDayMs;
      out.cause = "NVLink backplane";
    }
    return out;
  }

 private:
  Spread when_;
  std::vector<fleet::HostId> hosts_;
};

std::int64_t peak_rss_mib() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss / 1024;
}

}  // namespace

Result<Json> million_gpu_year(const Options& options) {
  const auto scaled = [&](std::int64_t count) {
    return std::max<std::int64_t>(1, static_cast<std::int64_t>(static_cast<double>(count) * options.scale));
  };
  CAPSTAN_TRY(std::string yaml, read_file(options.examples / "fleets/million.yaml"));
  yaml += "      - {name: cpu, blocks: [{name: b00, hosts: [{class: m8g.48xlarge, count: 2000}]}]}\n";
  auto fleet = workload::parse_fleet(yaml, "million.yaml");
  if (!fleet) return fail(Code::kInvalid, "{}", fleet.error().front().text());
  const std::int64_t year_ms = scaled(kYearMs);
  sim::Setup setup;
  setup.name = "million-gpu-year";
  setup.seed = 42;
  setup.duration_ms = year_ms;
  setup.sample_ms = kDayMs;
  setup.fleet = *std::move(fleet);
  std::vector<std::unique_ptr<sim::ArrivalSource>> sources;
  sources.push_back(std::make_unique<Frontier>());
  sources.push_back(std::make_unique<FineTuning>(scaled(kGangs), year_ms, 1));
  sources.push_back(std::make_unique<Agents>(scaled(kTasks / kTasksPerArray), year_ms, 2));
  setup.arrivals = sim::merge(std::move(sources));
  setup.make_faults = [](const fleet::Topology& topology, const sim::Setup& of) -> std::unique_ptr<sim::FaultSource> {
    const auto count = static_cast<std::int64_t>(static_cast<double>(kFailures) * static_cast<double>(of.duration_ms) / kYearMs);
    return std::make_unique<Breakdowns>(topology, std::max<std::int64_t>(1, count), of.duration_ms, of.seed);
  };
  const auto begin = std::chrono::steady_clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); };
  sim::World world(std::move(setup));
  if (!world.refused().empty()) return fail(Code::kInvalid, "{}", world.refused());
  for (int round = 0; !world.done(); ++round) {
    world.advance(500'000);
    progress("million_gpu_year: day {}, {} inputs, {:.0f} s, {:.0f} inputs/s", world.now_ms() / kDayMs, world.inputs(), seconds(),
             static_cast<double>(world.inputs()) / seconds());
  }
  const double wall_s = seconds();
  const sim::Results results = world.results();
  Json totals = Json::object();
  for (const auto& [name, value] : results.totals) totals[name] = value;
  return Json::object({{"wall_s", wall_s},
                       {"steps_per_s", static_cast<double>(results.inputs) / wall_s},
                       {"rss_mib", peak_rss_mib()},
                       {"hash", results.hash},
                       {"inputs", results.inputs},
                       {"events", results.events},
                       {"totals", std::move(totals)}});
}

}  // namespace capstan::apps::bench_sim
