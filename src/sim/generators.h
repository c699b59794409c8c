// Generators: made-up arrivals that look like what large fleets run. The same seed gives the same arrivals everywhere.
//
//   auto source = generate(FineTunes{.pattern = …, .mean_gap_ms = 60'000}, {.from_ms = 0, .until_ms = 86'400'000}, 42);
//
// Integers only: exponential gaps come from a table (random_draws.h). Times of day: the scenario starts at midnight, a Monday.
// Threads: each source has one owner.  Cost: O(1) an arrival; nothing is kept.  Failure: asserts on options that
// scenario_yaml.cc refuses (gaps below 1 ms, empty tables, low above high).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sim/arrivals.h"
#include "sim/work_template.h"

namespace capstan::sim {

// When things are submitted: the busiest hour of the day is 1000.
using DailyCurve = std::array<std::int64_t, 24>;
inline constexpr DailyCurve kFlat = {1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000,
                                     1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000};
extern const DailyCurve kOfficeHours;  // submissions by people
extern const DailyCurve kConsumers;    // requests of an assistant's users in one part of the world
// At this moment, in thousandths of the busiest hour: straight lines from hour to hour.
std::int64_t share_of_day(const DailyCurve& curve, std::int64_t time_ms);

// Gangs that hold the fleet for months. One after the other: the next is submitted `gap_ms` after the one before.
struct FrontierRuns {
  WorkTemplate pattern;
  std::int64_t count = 1;
  std::int64_t ranks = 1;  // of gpus_per_rank GPUs each; 0 of them: CPU ranks
  std::int64_t work_ms = 0;
  std::int64_t gap_ms = 0;
};

// Sizes of jobs and, for each, how long they take: quantiles with straight lines between them.
struct Quantile {
  std::int64_t share_milli = 0;  // so many of a thousand take at most …
  std::int64_t work_ms = 0;
};
struct SizeClass {
  std::int64_t gpus = 1;
  std::int64_t weight = 1;
  std::vector<Quantile> work;  // from share 0 to share 1000, rising
};
// Of 52,849 jobs of Philly, see NOTICE.
const std::vector<SizeClass>& philly_sizes();

// Jobs of people: Poisson arrivals that follow the day, sizes and durations from a table.
struct FineTunes {
  WorkTemplate pattern;
  std::int64_t mean_gap_ms = 60'000;  // in the busiest hour
  DailyCurve curve = kFlat;
  std::vector<SizeClass> sizes = philly_sizes();
  std::vector<std::string> tenants = {};  // by turns, drawn; empty: the pattern's
};

// Services whose replicas follow the day: they are applied again, under their name, when the number changes.
struct InferenceServices {
  WorkTemplate pattern;
  std::int64_t count = 1;
  std::int64_t gpus = 1;  // of a replica
  std::int64_t replicas_min = 1;
  std::int64_t replicas_max = 1;
  DailyCurve curve = kConsumers;
  std::int64_t every_ms = 900'000;  // looked at so often
  std::int64_t noise_milli = 50;    // of the curve, up and down
};

// Task arrays that agents start in bursts: each is `arrays` arrays inside `within_ms`, each of `tasks` tasks.
struct AgentBursts {
  WorkTemplate pattern;
  std::int64_t mean_gap_ms = 600'000;  // between bursts, in the busiest hour
  DailyCurve curve = kFlat;
  std::int64_t arrays_min = 1, arrays_max = 4;
  std::int64_t within_ms = 60'000;
  std::int64_t tasks_min = 10, tasks_max = 1'000;  // few are common: each doubling is as likely as the next
  std::int64_t work_min_ms = 5'000, work_max_ms = 600'000;  // of a task, the same
};

struct Window {
  std::int64_t from_ms = 0;
  std::int64_t until_ms = 0;   // nothing arrives from here on
  bool ends_services = false;  // and services are withdrawn then
};
std::unique_ptr<ArrivalSource> generate(FrontierRuns runs, Window window, std::uint64_t seed);
std::unique_ptr<ArrivalSource> generate(FineTunes jobs, Window window, std::uint64_t seed);
std::unique_ptr<ArrivalSource> generate(InferenceServices services, Window window, std::uint64_t seed);
std::unique_ptr<ArrivalSource> generate(AgentBursts bursts, Window window, std::uint64_t seed);

}  // namespace capstan::sim
