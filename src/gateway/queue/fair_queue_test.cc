// Goal: shares by weight in tokens, headroom for newcomers, bounds and cancellation, and agreement with a twin
// that looks at every waiting request at every step.
#include "gateway/queue/fair_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>

#include "base/prng.h"

namespace capstan::gateway {
namespace {

using store::Tier;
using Entry = FairQueue::Entry;

// Keeps every tenant's queue full, serves one request at a time and counts the tokens each gets.
std::map<std::int64_t, std::int64_t> serve_flooded(const std::vector<QueueItem>& tenants, int rounds,
                                                   const std::vector<std::int64_t>& actual) {
  FairQueue queue({.requests_max = 1, .newcomers = 0});
  std::map<std::uint64_t, std::size_t> whose;
  std::map<std::int64_t, std::int64_t> served;
  std::uint64_t next = 1, running = 0;
  const auto enter = [&](std::size_t tenant) {
    QueueItem item = tenants[tenant];
    item.id = next++;
    whose[item.id] = tenant;
    if (queue.enter(item) == Entry::kStarts) running = item.id;
  };
  for (std::size_t i = 0; i < tenants.size(); ++i) {
    for (int n = 0; n < 3; ++n) enter(i);
  }
  for (int round = 0; round < rounds; ++round) {
    const std::size_t tenant = whose[running];
    served[tenants[tenant].tenant * 10 + static_cast<std::int64_t>(tenants[tenant].tier)] += actual[tenant];
    const auto started = queue.leave(running, actual[tenant]);
    EXPECT_EQ(started.size(), 1u);
    running = started.front();
    enter(tenant);
  }
  return served;
}

TEST(FairQueue, TenantsThatFloodShareTokensByWeightWhateverTheirRequestsCost) {
  const auto served = serve_flooded(
      {{.tenant = 1, .weight = 1, .tokens = 100},
       {.tenant = 2, .weight = 1, .tokens = 1000},
       {.tenant = 3, .weight = 3, .tokens = 300}},
      20'000, {100, 1000, 300});
  EXPECT_NEAR(static_cast<double>(served.at(21)) / static_cast<double>(served.at(11)), 1.0, 0.01);
  EXPECT_NEAR(static_cast<double>(served.at(31)) / static_cast<double>(served.at(11)), 3.0, 0.03);
}

TEST(FairQueue, WhatARequestReallyCostCountsNotWhatItSaid) {
  // Both say 1000; the first uses 100, so it gets ten times as many turns.
  const auto served =
      serve_flooded({{.tenant = 1, .tokens = 1000}, {.tenant = 2, .tokens = 1000}}, 20'000, {100, 1000});
  EXPECT_NEAR(static_cast<double>(served.at(21)) / static_cast<double>(served.at(11)), 1.0, 0.01);
}

TEST(FairQueue, TiersShareByTheirWeightsSoThatNoneStarves) {
  const auto served = serve_flooded({{.tenant = 1, .tier = Tier::kPriority, .tokens = 10},
                                     {.tenant = 1, .tier = Tier::kDefault, .tokens = 10},
                                     {.tenant = 1, .tier = Tier::kFlex, .tokens = 10},
                                     {.tenant = 1, .tier = Tier::kBatch, .tokens = 10}},
                                    85'000, {10, 10, 10, 10});
  EXPECT_NEAR(static_cast<double>(served.at(10)), 640'000, 100);
  EXPECT_NEAR(static_cast<double>(served.at(11)), 160'000, 100);
  EXPECT_NEAR(static_cast<double>(served.at(12)), 40'000, 100);
  EXPECT_NEAR(static_cast<double>(served.at(13)), 10'000, 100);
}

TEST(FairQueue, WhoWasIdleDoesNotSaveUpTurns) {
  FairQueue queue({.requests_max = 1, .newcomers = 0});
  std::uint64_t id = 1;
  ASSERT_EQ(queue.enter({.id = id, .tenant = 1, .tokens = 10}), Entry::kStarts);
  for (; id < 1000; ++id) {  // tenant 1 alone, for long
    ASSERT_EQ(queue.enter({.id = id + 1, .tenant = 1, .tokens = 10}), Entry::kWaits);
    ASSERT_EQ(queue.leave(id, 10), (FairQueue::Started{id + 1}));
  }
  for (int i = 0; i < 20; ++i) queue.enter({.id = 2000u + static_cast<unsigned>(i), .tenant = 2, .tokens = 10});
  for (int i = 0; i < 20; ++i) queue.enter({.id = 3000u + static_cast<unsigned>(i), .tenant = 1, .tokens = 10});
  int of_tenant_2 = 0;
  std::uint64_t running = id;
  for (int i = 0; i < 20; ++i) {
    running = queue.leave(running, 10).front();
    of_tenant_2 += running < 3000 ? 1 : 0;
  }
  EXPECT_NEAR(of_tenant_2, 10, 1);
}

TEST(FairQueue, TheLastPlacesAreForTenantsThatHoldNothing) {
  FairQueue queue({.requests_max = 8});
  std::uint64_t id = 0;
  for (int i = 0; i < 7; ++i) EXPECT_EQ(queue.enter({.id = ++id, .tenant = 1}), Entry::kStarts);
  EXPECT_EQ(queue.enter({.id = ++id, .tenant = 1}), Entry::kWaits);
  EXPECT_EQ(queue.enter({.id = ++id, .tenant = 2, .tier = Tier::kBatch}), Entry::kWaits);
  EXPECT_EQ(queue.enter({.id = ++id, .tenant = 2}), Entry::kStarts);
  EXPECT_EQ(queue.enter({.id = ++id, .tenant = 3}), Entry::kWaits);  // all places are taken
  const auto started = queue.leave(1, 1);
  EXPECT_EQ(started, (FairQueue::Started{id}));  // the newcomer, though others came first
  EXPECT_EQ(queue.running(), 8);
}

TEST(FairQueue, ALoadInTokensBindsAndAnOversizedRequestRunsAlone) {
  FairQueue queue({.requests_max = 8, .tokens_max = 1000, .newcomers = 0});
  EXPECT_EQ(queue.enter({.id = 1, .tenant = 1, .tokens = 600}), Entry::kStarts);
  EXPECT_EQ(queue.enter({.id = 2, .tenant = 2, .tokens = 500}), Entry::kWaits);
  EXPECT_EQ(queue.enter({.id = 3, .tenant = 3, .tokens = 400}), Entry::kStarts);
  EXPECT_EQ(queue.enter({.id = 4, .tenant = 4, .tokens = 5000}), Entry::kWaits);
  EXPECT_EQ(queue.leave(1, 600), (FairQueue::Started{2}));
  EXPECT_TRUE(queue.leave(2, 500).empty());
  EXPECT_EQ(queue.leave(3, 400), (FairQueue::Started{4}));
}

TEST(FairQueue, AFloodFillsAtMostHalfOfTheQueueAndOthersStillGetIn) {
  FairQueue queue({.requests_max = 1, .waiting_max = 100});
  std::uint64_t id = 0;
  int waits = 0, full = 0;
  for (int i = 0; i < 200; ++i) {
    const Entry entry = queue.enter({.id = ++id, .tenant = 1});
    waits += entry == Entry::kWaits ? 1 : 0;
    full += entry == Entry::kFull ? 1 : 0;
  }
  EXPECT_EQ(waits, 50);
  EXPECT_EQ(full, 149);
  EXPECT_EQ(queue.enter({.id = ++id, .tenant = 2}), Entry::kWaits);
}

TEST(FairQueue, WhoLeavesTheQueueIsNotStartedAndLaterOnesMoveUp) {
  FairQueue queue({.requests_max = 1});
  queue.enter({.id = 1, .tenant = 1});
  queue.enter({.id = 2, .tenant = 1});
  queue.enter({.id = 3, .tenant = 1});
  EXPECT_TRUE(queue.leave(2, 0).empty());
  EXPECT_EQ(queue.waiting(), 1u);
  EXPECT_EQ(queue.leave(1, 1), (FairQueue::Started{3}));
  EXPECT_TRUE(queue.leave(3, 1).empty());
  EXPECT_TRUE(queue.leave(3, 1).empty());  // once more changes nothing
  EXPECT_EQ(queue.running(), 0);
}

TEST(FairQueue, MoreReplicasStartWhoWaitsAndFewerLetThoseUnderWayFinish) {
  FairQueue queue({.requests_max = 1, .newcomers = 0});
  for (std::uint64_t id = 1; id <= 5; ++id) queue.enter({.id = id, .tenant = 1});
  EXPECT_EQ(queue.set_capacity(3, 0), (FairQueue::Started{2, 3}));
  EXPECT_TRUE(queue.set_capacity(1, 0).empty());
  EXPECT_TRUE(queue.leave(1, 1).empty());
  EXPECT_TRUE(queue.leave(2, 1).empty());
  EXPECT_EQ(queue.leave(3, 1), (FairQueue::Started{4}));
}

TEST(FairQueue, TenantsThatCameAndWentAreForgotten) {
  FairQueue queue({.requests_max = 4});
  std::uint64_t id = 0;
  for (std::int64_t tenant = 0; tenant < 10'000; ++tenant) {
    queue.enter({.id = ++id, .tenant = tenant, .tokens = 50});
    if (id > 2) queue.leave(id - 2, 50);
  }
  EXPECT_LE(queue.flows(), 10u);
}

// The twin: the same clocks in plain maps; who starts next is found by looking at everybody.
struct Twin {
  struct Clock {
    std::int64_t at = 0, weight = 1;
    int running = 0;
    std::vector<QueueItem> waiting;
  };
  int places;
  std::array<std::map<std::int64_t, Clock>, store::kTiers> flows;
  std::array<std::int64_t, store::kTiers> clock{}, present{};
  std::int64_t root = 0;
  int running = 0;

  int kept() const { return places < 2 ? 0 : std::max(1, places / 8); }
  bool room(std::size_t tier, const Clock& flow) const {
    if (running == 0) return true;
    const bool newcomer = tier <= 1 && flow.running == 0;
    return running < places - (newcomer ? 0 : kept());
  }
  void run(std::size_t tier, Clock& flow, const QueueItem& item) {
    present[tier] = std::max(present[tier], flow.at);
    root = std::max(root, clock[tier]);
    flow.at += item.tokens * 16'384 / flow.weight;
    clock[tier] += item.tokens * 16'384 / kTierWeights[tier];
    ++flow.running;
    ++running;
  }
  bool waits(std::size_t tier) const {
    return std::ranges::any_of(flows[tier], [](const auto& flow) { return !flow.second.waiting.empty(); });
  }
  void forget() {
    for (std::size_t tier = 0; tier < flows.size(); ++tier) {
      if (!waits(tier)) std::erase_if(flows[tier], [](const auto& flow) { return flow.second.running == 0; });
    }
  }
  bool enter(const QueueItem& item) {
    const auto tier = static_cast<std::size_t>(item.tier);
    const bool waited = waits(tier);
    Clock& flow = flows[tier][item.tenant];
    flow.weight = item.weight;
    if (flow.running == 0 && flow.waiting.empty()) flow.at = std::max(flow.at, present[tier]);
    if (!waited) clock[tier] = std::max(clock[tier], root);
    if (flow.waiting.empty() && room(tier, flow)) {
      run(tier, flow, item);
      forget();
      return true;
    }
    flow.waiting.push_back(item);
    return false;
  }
  std::optional<std::uint64_t> next() {
    std::size_t best_tier = 99;
    std::int64_t best_tenant = 0;
    for (std::size_t tier = 0; tier < flows.size(); ++tier) {
      bool found = false;
      std::int64_t tenant_of_tier = 0;
      for (auto& [tenant, flow] : flows[tier]) {
        if (flow.waiting.empty() || !room(tier, flow)) continue;
        if (!found || flow.at < flows[tier][tenant_of_tier].at) tenant_of_tier = tenant;
        found = true;
      }
      if (found && (best_tier == 99 || clock[tier] < clock[best_tier])) best_tier = tier, best_tenant = tenant_of_tier;
    }
    if (best_tier == 99) return std::nullopt;
    Clock& flow = flows[best_tier][best_tenant];
    const QueueItem item = flow.waiting.front();
    flow.waiting.erase(flow.waiting.begin());
    run(best_tier, flow, item);
    return item.id;
  }
  FairQueue::Started leave(const QueueItem& item, std::int64_t tokens) {
    const auto tier = static_cast<std::size_t>(item.tier);
    Clock& flow = flows[tier][item.tenant];
    flow.at += tokens * 16'384 / flow.weight - item.tokens * 16'384 / flow.weight;
    clock[tier] += tokens * 16'384 / kTierWeights[tier] - item.tokens * 16'384 / kTierWeights[tier];
    --flow.running;
    --running;
    FairQueue::Started started;
    while (const auto id = next()) started.push_back(*id);
    forget();
    return started;
  }
};

TEST(FairQueueProperty, AgreesWithATwinThatLooksAtEverybody) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    Prng prng(seed);
    const int places = static_cast<int>(prng.between(1, 12));
    FairQueue queue({.requests_max = places});
    Twin twin{.places = places, .flows = {}};
    std::map<std::uint64_t, QueueItem> all;
    std::vector<std::uint64_t> running;
    for (std::uint64_t step = 1; step <= 400; ++step) {
      if (!running.empty() && prng.below(2) == 0) {
        const std::size_t at = prng.below(running.size());
        const QueueItem item = all[running[at]];
        running.erase(running.begin() + static_cast<std::ptrdiff_t>(at));
        const std::int64_t tokens = prng.between(0, 2 * item.tokens);
        const auto started = queue.leave(item.id, tokens);
        ASSERT_EQ(started, twin.leave(item, tokens)) << "seed " << seed << " step " << step;
        running.insert(running.end(), started.begin(), started.end());
        continue;
      }
      const std::int64_t tenant = prng.between(1, 6);
      const QueueItem item{.id = step, .tenant = tenant, .weight = tenant, .tier = static_cast<Tier>(prng.below(4)),
                           .tokens = prng.between(1, 500)};
      all[step] = item;
      const bool starts = queue.enter(item) == Entry::kStarts;
      ASSERT_EQ(starts, twin.enter(item)) << "seed " << seed << " step " << step;
      if (starts) running.push_back(step);
    }
  }
}

}  // namespace
}  // namespace capstan::gateway
