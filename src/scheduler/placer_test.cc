// Goal: the indices of the Placer change nothing: it answers as place_among does, which looks at every
// domain. Method: long random lives of mixed fleets; after every step a random request is asked of both.
// Placements are checked against the rules, and "never" against the policy on an idle copy of the fleet (for
// several groups it may say too little, never too much).
#include "scheduler/placer.h"

#include <gtest/gtest.h>

#include "scheduler/place_among.h"
#include "scheduler/random_fleet.h"

namespace capstan::scheduler {
namespace {

std::string text(const Placed& placed) {
  if (!placed) return "refused";
  std::string out;
  for (const Slice& slice : placed->slices)
    out += std::to_string(index(slice.host)) + "x" + std::to_string(slice.ranks) + "@" +
           std::to_string(slice.gpus) + " ";
  for (const std::int64_t ranks : placed->group_ranks) out += "/" + std::to_string(ranks);
  return out;
}

std::string text(const Request& request) {
  std::string out;
  for (const Group& group : request.groups) {
    out += "[" + std::to_string(group.ranks) + " ranks of " + std::to_string(group.shape.each.milli_cpus) +
           " mcpu " + std::to_string(group.shape.each.gpus) + " gpus, segment " +
           std::to_string(group.segment) + ", min " + std::to_string(group.ranks_min) + " " +
           group.shape.gpu_model + group.shape.host_class + "] ";
  }
  return out + std::string(level_name(request.required)) + " " + std::string(level_name(request.preferred)) +
         " " + request.cluster + request.region;
}

struct Seen {
  int placed = 0, refused = 0, never = 0, several = 0, elastic = 0;
};

void live(std::uint64_t seed, int steps, Seen& seen) {
  Prng prng(seed);
  RandomFleet fleet(prng);
  Inventory& inventory = fleet.inventory();
  Placer placer;
  for (int step = 0; step < steps; ++step) {
    if (prng.below(4) == 0) fleet.mishap();
    if (prng.below(3) == 0) fleet.end_one();
    const Request request = fleet.request();
    const std::string where =
        "seed " + std::to_string(seed) + " step " + std::to_string(step) + ": " + text(request);
    const Inventory before = inventory;
    const Placed twin = place_among(inventory, request, {});
    const Placed placed = placer.place(inventory, request);
    ASSERT_EQ(text(placed), text(twin)) << where;
    ++(placed ? seen.placed : seen.refused);
    const bool never = placer.never(inventory, request).has_value();
    if (placed) {
      ASSERT_EQ(fault_of(before, request, *placed), "") << where << ": " << text(placed);
      seen.several += request.groups.size() > 1;
      seen.elastic += placed->group_ranks.front() < request.groups.front().ranks;
      ASSERT_FALSE(never) << where;
      if (prng.below(3) != 0) fleet.start(request, *placed);
    } else {
      Inventory idle = idle_copy(inventory);
      const bool could = place_among(idle, request, {.hosts = Hosts::kUsable}).has_value();
      ASSERT_FALSE(never && could) << where;
      if (request.groups.size() == 1) {
        ASSERT_EQ(never, !could) << where;
      }
      ASSERT_EQ(placed.error().never(), never);
      seen.never += never;
    }
    Request some = request;
    some.groups.resize(1);
    ASSERT_EQ(text(placer.place_some(inventory, some)), text(place_some_among(inventory, some, {}))) << where;
  }
}

TEST(Placer, AgreesWithTheTwinAfterEveryStepOfRandomLives) {
  Seen seen;
  for (std::uint64_t seed = 1; seed <= 150 && !testing::Test::HasFatalFailure(); ++seed)
    live(seed, 150, seen);
  EXPECT_GT(seen.placed, 1'000);
  EXPECT_GT(seen.refused, 1'000);
  EXPECT_GT(seen.never, 100);
  EXPECT_GT(seen.several, 100);
  EXPECT_GT(seen.elastic, 100);
}

TEST(Placer, ForgottenShapesAreFiledAnew) {
  Prng prng(5);
  RandomFleet fleet(prng);
  Placer placer;
  for (int round = 0; round < 3; ++round) {
    for (std::int64_t i = 0; i < 2 * static_cast<std::int64_t>(kShapesMax); ++i) {
      const Request request{.groups = {{.ranks = 2, .shape = {.each = {.milli_cpus = 10 + i}}}}};
      const Placed twin = place_among(fleet.inventory(), request, {});
      const Placed placed = placer.place(fleet.inventory(), request);
      ASSERT_EQ(text(placed), text(twin));
      if (placed && i % 8 == 0) fleet.start(request, *placed);
      if (i % 11 == 0) fleet.end_one();
    }
  }
}

// marin #8249: one CPU job on 64 GB200 hosts made 256 GPUs unreachable.
TEST(Placer, RanksWithoutGpusLeaveHostsWithGpusAloneAsLongAsOthersHaveRoom) {
  Inventory inventory;
  auto& topology = inventory.topology();
  const auto block = topology.block("r", "c", "b");
  const auto tray =
      topology.intern({.name = "tray", .capacity = {.milli_cpus = 8'000, .gpus = 4}, .gpu_model = "gb200"});
  const auto cpu = topology.intern({.name = "cpu", .capacity = {.milli_cpus = 4'000}, .gpu_model = ""});
  (void)topology.add_domain(block, {.name = "u"}, tray, {"t0", "t1", "t2"}).value();
  for (const char* name : {"h0", "h1", "h2"}) (void)topology.add_host(block, cpu, name).value();
  inventory.sync();
  for (std::uint32_t i = 0; i < inventory.hosts(); ++i)
    inventory.set_health(HostId(i), fleet::Health::kHealthy);
  Placer placer;
  const auto ranks = [&](std::int64_t count) {
    return text(
        placer.place(inventory, {.groups = {{.ranks = count, .shape = {.each = {.milli_cpus = 1'000}}}}}));
  };
  EXPECT_EQ(ranks(12), "3x4@0 4x4@0 5x4@0 /12");
  EXPECT_EQ(ranks(13), "0x8@0 1x5@0 /13");
}

}  // namespace
}  // namespace capstan::scheduler
