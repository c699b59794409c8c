// How it works: the scenario's variants (or itself), each with each seed, one run after another; progress to
// stderr while it is a terminal, results to stdout and to files.
#include "apps/sim_run.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "apps/sim_output.h"
#include "base/text.h"
#include "sim/report.h"
#include "sim/scenario_setup.h"

namespace capstan::apps {
namespace {

using sim::Results;
using sim::Scenario;

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

std::string simulated(std::int64_t ms) {
  const std::int64_t hours = ms / 3'600'000;
  return hours >= 48 ? fmt::format("{}.{} days", hours / 24, hours % 24 * 10 / 24)
                     : fmt::format("{}:{:02} h", hours, ms / 60'000 % 60);
}

Result<Results> run(const Scenario& scenario, std::uint64_t seed, bool progress) {
  CAPSTAN_TRY(sim::Setup setup, sim::setup_of(scenario, seed));
  sim::World world(std::move(setup));
  if (!world.refused().empty()) return fail(Code::kInvalid, "{}", world.refused());
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  auto shown = begin;
  const std::string what = scenario.variant.empty() ? scenario.name : scenario.name + " " + scenario.variant;
  while (!world.done()) {
    world.advance(2'000);
    const auto now = Clock::now();
    if (!progress || now - shown < std::chrono::milliseconds(200)) continue;
    shown = now;
    const double seconds = std::chrono::duration<double>(now - begin).count();
    const bool open = scenario.duration_ms == 0;
    const std::int64_t percent =
        open ? 0 : world.now_ms() * 100 / std::max<std::int64_t>(1, world.duration_ms());
    const auto filled = static_cast<std::size_t>(percent / 5);
    const std::string bar =
        open ? ""
             : fmt::format("[{}{}] {:3}% ", std::string(filled, '#'), std::string(20 - filled, '.'), percent);
    fmt::print(stderr, "\r{} seed {} {}{}, {:.0f} inputs/s   ", what, seed, bar, simulated(world.now_ms()),
               static_cast<double>(world.inputs()) / std::max(seconds, 0.001));
    std::fflush(stderr);
  }
  if (progress) fmt::print(stderr, "\r{:79}\r", "");
  return world.results();
}

Result<std::vector<Scenario>> chosen(const Scenario& scenario, const std::string& compare) {
  std::vector<Scenario> all = sim::comparison(scenario);
  if (compare.empty()) return all;
  std::vector<Scenario> out;
  std::vector<std::string> names;
  for (const Scenario& one : all) names.push_back(one.variant);
  for (const auto& wanted : split(compare, ',')) {
    const auto at = std::find_if(all.begin(), all.end(),
                                 [&](const Scenario& one) { return one.variant == trim(wanted); });
    if (at == all.end()) {
      return fail(Code::kNotFound, "scenario {} has no variant '{}'; it has {}", scenario.name, wanted,
                  scenario.variants.empty() ? "none" : fmt::format("{}", fmt::join(names, ", ")));
    }
    out.push_back(*at);
  }
  return out;
}

}  // namespace

int sim_run(const SimRun& options) {
  sim::ScenarioOptions reading;
  reading.trace = options.trace;
  for (const std::string& directory : options.traces) reading.trace_directories.emplace_back(directory);
  const auto loaded = sim::load_scenario(options.scenario, reading);
  if (!loaded) {
    for (const auto& diagnostic : loaded.error()) fmt::print(stderr, "{}\n", diagnostic.text());
    return kExitUsage;
  }
  const auto scenarios = chosen(*loaded, options.compare);
  if (!scenarios) {
    fmt::print(stderr, "capstan: {}\n", scenarios.error().message);
    return kExitUsage;
  }
  const std::uint64_t first = options.seed >= 0 ? static_cast<std::uint64_t>(options.seed) : loaded->seed;
  const bool progress = !options.quiet && ::isatty(STDERR_FILENO) == 1;
  std::vector<Results> all;
  for (const Scenario& scenario : *scenarios) {
    for (int i = 0; i < options.seeds; ++i) {
      auto results = run(scenario, first + static_cast<std::uint64_t>(i), progress);
      if (!results) {
        fmt::print(stderr, "capstan: {}: {}\n", options.scenario, results.error().message);
        return kExitUsage;
      }
      all.push_back(*std::move(results));
    }
  }
  if (options.json != "-") fmt::print("{}", sim::summary(all));
  if (!write_results(all, options.json, options.report)) return kExitFailed;
  if (!options.report.empty()) fmt::print(stderr, "report: {}\n", options.report);
  return 0;
}

}  // namespace capstan::apps
