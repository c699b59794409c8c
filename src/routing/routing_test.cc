#include "routing/routing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <vector>

#include "base/prng.h"
#include "routing/block_cache.h"

namespace capstan::routing {
namespace {

std::vector<ReplicaLoad> fleet(int count) {
  std::vector<ReplicaLoad> out;
  for (int i = 0; i < count; ++i) out.push_back({"r" + std::to_string(i)});
  return out;
}

TEST(RoutingTest, TheLeastLoadedHealthyReplicaGetsTheRequest) {
  auto replicas = fleet(3);
  replicas[0].tokens_outstanding = 10;
  replicas[1].tokens_outstanding = 5;
  replicas[2].healthy = false;
  EXPECT_EQ(choose(replicas, {.key = 1}, {}), 1u);
  for (auto& replica : replicas) replica.healthy = false;
  EXPECT_EQ(choose(replicas, {.key = 1}, {}), std::nullopt);
}

TEST(RoutingTest, AffinityHoldsInsideTheWindowOnly) {
  auto replicas = fleet(4);
  const Request request{.key = 1, .affinity_key = 77};
  const auto home = choose(replicas, request, {.affinity_window_tokens = 100});
  ASSERT_TRUE(home);
  replicas[*home].tokens_outstanding = 100;
  EXPECT_EQ(choose(replicas, request, {.affinity_window_tokens = 100}), home);
  replicas[*home].tokens_outstanding = 101;
  EXPECT_NE(choose(replicas, request, {.affinity_window_tokens = 100}), home);
}

TEST(RoutingTest, TheChoiceDoesNotDependOnTheOrderOfReplicas) {
  auto replicas = fleet(5);
  for (std::uint64_t key = 1; key < 200; ++key) {
    const std::string forward = replicas[*choose(replicas, {.key = key}, {})].id;
    auto reversed = replicas;
    std::ranges::reverse(reversed);
    EXPECT_EQ(reversed[*choose(reversed, {.key = key}, {})].id, forward);
  }
}

// Goal: equal loads spread evenly, and a replica that leaves moves only its own keys.
TEST(RoutingTest, TiesSpreadAndLeavingMovesOnlyItsOwn) {
  auto replicas = fleet(4);
  std::map<std::size_t, int> counts;
  for (std::uint64_t key = 1; key <= 4000; ++key) {
    const auto before = *choose(replicas, {.key = key}, {});
    ++counts[before];
    replicas[3].healthy = false;
    if (before != 3) {
      EXPECT_EQ(*choose(replicas, {.key = key}, {}), before);
    }
    replicas[3].healthy = true;
  }
  for (const auto& [replica, count] : counts) EXPECT_NEAR(count, 1000, 150) << replica;
}

TEST(RoutingTest, WhoHasThePrefixGetsItUnlessItsWorkIsMoreThanThatSaves) {
  auto replicas = fleet(3);
  replicas[1].cached_tokens = 4'000;
  replicas[1].tokens_outstanding = 3'000;
  EXPECT_EQ(choose(replicas, {.key = 1}, {}), 1u);
  replicas[1].tokens_outstanding = 5'000;
  EXPECT_NE(choose(replicas, {.key = 1}, {}), 1u);
  replicas[1].cached_tokens = 100'000;
  EXPECT_EQ(choose(replicas, {.key = 1}, {}), 1u);
  replicas[1].tokens_outstanding = 9'000;  // past the window: a hot spot, whatever it has
  EXPECT_NE(choose(replicas, {.key = 1}, {.affinity_window_tokens = 8'192}), 1u);
}

using Chain = std::vector<std::uint64_t>;

TEST(BlockCacheTest, WhatFallsOutIsTheEndOfTheOldestChain) {
  BlockCache cache(5);
  cache.touch(Chain{1, 2, 3});
  cache.touch(Chain{1, 7});
  EXPECT_EQ(cache.match(Chain{1, 2, 3}), 3u);
  cache.touch(Chain{8, 9});
  EXPECT_EQ(cache.match(Chain{1, 2, 3}), 2u);
  EXPECT_EQ(cache.match(Chain{1, 7}), 2u);
  EXPECT_EQ(cache.size(), 5u);
  cache.touch(Chain{10, 11, 12, 13, 14, 15, 16});  // longer than the cache: its beginning
  EXPECT_EQ(cache.match(Chain{10, 11, 12, 13, 14, 15, 16}), 5u);
}

TEST(BlockCacheTest, PinnedBlocksStay) {
  BlockCache cache(4);
  ASSERT_TRUE(cache.pin(Chain{1, 2}));
  ASSERT_TRUE(cache.pin(Chain{1, 3}));
  cache.touch(Chain{4, 5, 6});
  EXPECT_EQ(cache.match(Chain{1, 2}), 2u);
  EXPECT_EQ(cache.match(Chain{4}), 1u);
  EXPECT_FALSE(cache.pin(Chain{7, 8}));
  EXPECT_FALSE(cache.reserve(2));
  EXPECT_TRUE(cache.reserve(1));
  EXPECT_EQ(cache.match(Chain{4}), 0u);
  cache.unpin(Chain{1, 2});
  EXPECT_EQ(cache.match(Chain{1, 2}), 2u);  // cached still, and may go
  EXPECT_TRUE(cache.reserve(1));
  EXPECT_EQ(cache.match(Chain{1, 2}), 1u);
  EXPECT_EQ(cache.match(Chain{1, 3}), 2u);
}

// Goal: shares follow weights, a key keeps its service, and a small change moves few keys.
TEST(Routing, ServicesShareAModelByTheirWeights) {
  constexpr int kKeys = 100'000;
  const auto count_second = [](std::int64_t first, std::int64_t second, std::vector<bool>* was) {
    const std::vector<WeightedService> services{{"stable", first}, {"canary", second}};
    int seconds = 0, moved = 0;
    for (int key = 0; key < kKeys; ++key) {
      const bool is_second = *choose_service(services, static_cast<std::uint64_t>(key)) == 1;
      seconds += is_second;
      if (was != nullptr && was->size() == kKeys) moved += (*was)[static_cast<std::size_t>(key)] != is_second;
      if (was != nullptr && was->size() < kKeys) was->push_back(is_second);
    }
    return std::pair(seconds, moved);
  };
  std::vector<bool> was;
  EXPECT_NEAR(count_second(95, 5, &was).first, 5'000, 400);
  const auto [seconds, moved] = count_second(90, 10, &was);
  EXPECT_NEAR(seconds, 10'000, 500);
  EXPECT_NEAR(moved, 5'000, 400) << "only those that the canary gained";
  EXPECT_EQ(count_second(100, 0, nullptr).first, 0);
  EXPECT_FALSE(choose_service(std::vector<WeightedService>{{"a", 0}}, 1));
  EXPECT_FALSE(choose_service({}, 1));
}

}  // namespace
}  // namespace capstan::routing
