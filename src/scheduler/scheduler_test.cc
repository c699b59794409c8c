// Goal: gangs are placed whole, first fit, and refusals name what binds.
// Method: scripts for the wording; on random tiny fleets, a twin that tries every assignment of ranks to
// hosts.
#include "scheduler/scheduler.h"

#include <gtest/gtest.h>

#include "base/prng.h"

namespace capstan::scheduler {
namespace {

Inventory fleet_of(std::initializer_list<std::int64_t> cpus) {
  Inventory inventory;
  int i = 1;
  for (const std::int64_t count : cpus)
    inventory.set_host({"h" + std::to_string(i++), {.milli_cpus = count * 1000}, fleet::Health::kHealthy});
  return inventory;
}

std::string why(const Inventory& inventory, const Request& request, const std::vector<Holder>& holders = {}) {
  const auto decision = place(inventory, request);
  if (decision) return "placed";
  return (decision.error().never() ? "never: " : "not now: ") +
         explain(decision.error(), inventory, request, holders);
}

TEST(Scheduler, FillsHostsInOrderOfName) {
  const auto decision = place(fleet_of({2, 4, 4}), {.ranks = 5, .each = {.milli_cpus = 1000}});
  ASSERT_TRUE(decision);
  EXPECT_EQ(*decision, (std::vector<Slice>{{"h1", 2}, {"h2", 3}}));
}

TEST(Scheduler, RefusalsNameWhatBinds) {
  EXPECT_EQ(why({}, {.ranks = 1, .each = {.milli_cpus = 1000}}), "not now: no host has joined yet");
  EXPECT_EQ(why(fleet_of({2, 1}), {.ranks = 1, .each = {.milli_cpus = 4000}}),
            "never: rank needs 4 cpus, the largest host has 2");
  EXPECT_EQ(why(fleet_of({2, 2}), {.ranks = 5, .each = {.milli_cpus = 1000}}),
            "never: 5 ranks need 5 cpus, all hosts together have 4: room for 4 at most");
  EXPECT_EQ(why(fleet_of({2}), {.ranks = 1, .each = {.milli_cpus = 1000, .gpus = 1}}),
            "never: rank needs 1 gpus, the largest host has 0");
  Inventory busy = fleet_of({2});
  busy.take("h1", {.milli_cpus = 1000});
  EXPECT_EQ(why(busy, {.ranks = 1, .each = {.milli_cpus = 2000}}, {{"job", "train-1", {.milli_cpus = 1000}}}),
            "not now: needs 2 cpus, 1 is free; job train-1 holds 1");
  Inventory away = fleet_of({2, 2});
  away.set_host({"h2", {.milli_cpus = 2000}, fleet::Health::kSuspect});
  EXPECT_EQ(why(away, {.ranks = 2, .each = {.milli_cpus = 2000}}),
            "not now: waits for a host to come back: h2 is suspect");
}

TEST(Scheduler, TasksTakeWhatFits) {
  const auto some = place_some(fleet_of({2, 1}), {.ranks = 1'000'000, .each = {.milli_cpus = 1000}});
  ASSERT_TRUE(some);
  EXPECT_EQ(*some, (std::vector<Slice>{{"h1", 2}, {"h2", 1}}));
}

// The twin: can the ranks be dealt to hosts at all? Tries every way.
bool dealable(std::vector<Capacity> rooms, std::int64_t ranks, const Capacity& each) {
  if (ranks == 0) return true;
  for (std::size_t i = 0; i < rooms.size(); ++i) {
    const Capacity left = rooms[i] - each;
    if (left.milli_cpus < 0 || left.memory_bytes < 0 || left.gpus < 0) continue;
    std::vector<Capacity> rest = rooms;
    rest[i] = left;
    if (dealable(std::move(rest), ranks - 1, each)) return true;
  }
  return false;
}

TEST(Scheduler, AgreesWithTryingEverythingOnTinyFleets) {
  Prng prng(7);
  int placed = 0, never = 0, not_now = 0;
  for (int round = 0; round < 3000; ++round) {
    Inventory inventory;
    std::vector<Capacity> rooms, capacities;
    const std::int64_t hosts = prng.between(1, 3);
    for (std::int64_t i = 0; i < hosts; ++i) {
      const std::string name = "h" + std::to_string(i);
      const Capacity capacity{prng.between(0, 4) * 1000, prng.between(0, 4) << 20, prng.between(0, 2)};
      const Capacity used{prng.between(0, capacity.milli_cpus), prng.between(0, capacity.memory_bytes),
                          prng.between(0, capacity.gpus)};
      inventory.set_host({name, capacity, fleet::Health::kHealthy});
      inventory.take(name, used);
      rooms.push_back(capacity - used);
      capacities.push_back(capacity);
    }
    const Request request{prng.between(1, 4),
                          {prng.between(0, 2) * 1000, prng.between(0, 2) << 20, prng.between(0, 1)}};
    const auto decision = place(inventory, request);
    ASSERT_EQ(decision.has_value(), dealable(rooms, request.ranks, request.each)) << "round " << round;
    if (!decision) {
      ASSERT_EQ(decision.error().never(), !dealable(capacities, request.ranks, request.each))
          << "round " << round;
      ++(decision.error().never() ? never : not_now);
      continue;
    }
    ++placed;
    for (const Slice& slice : *decision) {
      ASSERT_GE(fit(inventory.hosts().at(slice.host).room(), request.each), slice.ranks);
    }
  }
  EXPECT_GT(placed, 100);
  EXPECT_GT(never, 100);
  EXPECT_GT(not_now, 100);
}

}  // namespace
}  // namespace capstan::scheduler
