// Recipe: how a fleet is aged: which work comes, how long it stays, what fails. The file:
// examples/fleets/aging.yaml.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/prng.h"
#include "base/result.h"

namespace capstan::apps::bench {

// Seconds that work takes, at the quantiles 10, 25, 50, 75, 90 and 99 %; between them straight lines.
struct Durations {
  std::array<std::int64_t, 6> s = {};
  std::int64_t draw_ms(Prng& prng) const;
};

struct SmallSize {
  std::int64_t gpus = 1;
  std::int64_t weight = 1;
  Durations durations;
};
struct GangSize {
  std::int64_t trays = 16;
  std::int64_t weight = 1;
};

struct Recipe {
  std::int64_t seed = 42;
  std::int64_t starts_and_ends = 10'000'000;
  std::int64_t occupancy_percent = 90;
  std::int64_t frontier_percent = 55;
  std::int64_t tenants = 1;
  std::int64_t waiting_max = 2;
  std::int64_t give_up_s = 3'600;
  std::int64_t limits_percent = 0;
  std::int64_t services_percent = 0;
  std::int64_t tray_fails_every_days = 470;
  std::int64_t tray_repair_s = 14'400;
  std::int64_t milli_cpus_per_gpu = 1'000;
  std::int64_t memory_bytes_per_gpu = 0;
  std::vector<SmallSize> small;
  std::int64_t segment = 16;
  std::vector<GangSize> gangs;
  Durations gang_durations;
};

// kInvalid with file:line:column for what is wrong.
Result<Recipe> parse_recipe(std::string_view yaml, const std::string& source);

}  // namespace capstan::apps::bench
