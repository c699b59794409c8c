// Goal: the autoscaler as a table of what it sees and what it asks for, and in a closed loop with a service
// of known capacity, where it must find the size that is enough and stay there.
#include "routing/autoscale.h"

#include <gtest/gtest.h>

namespace capstan::routing {
namespace {

constexpr std::int64_t kSecond = 1'000;
constexpr AutoscalePolicy kPolicy{.min = 1, .max = 8, .ttft_ms = 2'000, .tpot_ms = 50, .calm_ms = 60'000};

// Steps once a second until it asks for something, at most `seconds`; -1 if it does not.
std::int64_t replicas_within(Autoscaler& scaler, std::int64_t& now_ms, std::int64_t seconds,
                             const ServiceLoad& load) {
  for (std::int64_t i = 0; i < seconds; ++i) {
    now_ms += kSecond;
    if (const auto step = scaler.step(now_ms, load)) return step->replicas;
  }
  return -1;
}

TEST(Autoscale, AMissedObjectiveAsksForAsManyTimesMoreAndAtMostTwice) {
  for (const auto& [ttft_ms, expected] :
       {std::pair<std::int64_t, std::int64_t>{2'600, 6}, {60'000, 8}, {2'000, -1}}) {
    Autoscaler scaler(kPolicy);
    std::int64_t now_ms = 0;
    EXPECT_EQ(
        replicas_within(scaler, now_ms, 30,
                        {.wanted = 4, .ready = 4, .requests = 50, .samples = 50, .under_way = 9, .ttft_p95_ms = ttft_ms}),
        expected)
        << ttft_ms;
  }
}

TEST(Autoscale, TheObjectivePerTokenCountsAsWell) {
  Autoscaler scaler(kPolicy);
  std::int64_t now_ms = 0;
  EXPECT_EQ(
      replicas_within(
          scaler, now_ms, 30,
          {.wanted = 2, .ready = 2, .requests = 50, .samples = 50, .under_way = 1, .ttft_p95_ms = 10, .tpot_p95_ms = 75}),
      3);
}

TEST(Autoscale, ItWaitsForWhatItAskedForBeforeItAsksAgain) {
  Autoscaler scaler(kPolicy);
  std::int64_t now_ms = 0;
  ServiceLoad load{.wanted = 2, .ready = 2, .requests = 50, .samples = 50, .under_way = 9, .ttft_p95_ms = 9'000};
  EXPECT_EQ(replicas_within(scaler, now_ms, 30, load), 4);
  load.wanted = 4;  // two of them still load
  EXPECT_EQ(replicas_within(scaler, now_ms, 600, load), -1);
  load.ready = 4;
  EXPECT_EQ(replicas_within(scaler, now_ms, kSettleMs / kSecond, load), -1);
  EXPECT_EQ(replicas_within(scaler, now_ms, 2, load), 8);
  load.wanted = load.ready = 8;
  EXPECT_EQ(replicas_within(scaler, now_ms, 600, load), -1) << "the maximum";
}

TEST(Autoscale, AFewSlowRequestsAreNoReason) {
  Autoscaler scaler(kPolicy);
  std::int64_t now_ms = 0;
  EXPECT_EQ(replicas_within(scaler, now_ms, 59,
                            {.wanted = 1, .ready = 1, .requests = 2, .samples = 2, .under_way = 1, .ttft_p95_ms = 9'000}),
            -1);
}

TEST(Autoscale, CalmShrinksOneAtATimeAndNeverBelowTheMinimum) {
  Autoscaler scaler(kPolicy);
  std::int64_t now_ms = 0;
  ServiceLoad load{
      .wanted = 3, .ready = 3, .requests = 20, .samples = 20, .under_way = 1, .ttft_p95_ms = 900, .tpot_p95_ms = 20};
  EXPECT_EQ(replicas_within(scaler, now_ms, 60, load), -1);
  EXPECT_EQ(replicas_within(scaler, now_ms, 2, load), 2);
  load.wanted = load.ready = 2;
  EXPECT_EQ(replicas_within(scaler, now_ms, 61, load), 1);
  load.wanted = load.ready = 1;
  EXPECT_EQ(replicas_within(scaler, now_ms, 600, load), -1);
}

TEST(Autoscale, WithAMinimumOfNoneItGoesWhenNobodyComesAndReturnsForTheFirstWhoDoes) {
  Autoscaler scaler({.min = 0, .max = 2, .ttft_ms = 2'000, .calm_ms = 60'000});
  std::int64_t now_ms = 0;
  EXPECT_EQ(replicas_within(scaler, now_ms, 600,
                            {.wanted = 1, .ready = 1, .requests = 1, .samples = 1, .under_way = 0, .ttft_p95_ms = 10}),
            -1)
      << "somebody comes now and then";
  EXPECT_EQ(replicas_within(scaler, now_ms, 62, {.wanted = 1, .ready = 1}), 0);
  EXPECT_EQ(replicas_within(scaler, now_ms, 600, {}), -1);
  EXPECT_EQ(replicas_within(scaler, now_ms, 1, {.under_way = 1, .waiting = 1}), 1);
}

TEST(Autoscale, NewBoundsAreFollowedAtOnce) {
  Autoscaler scaler(kPolicy);
  std::int64_t now_ms = 0;
  EXPECT_EQ(replicas_within(scaler, now_ms, 1, {.wanted = 9, .ready = 9}), 8);
  scaler.set_policy({.min = 3, .max = 4, .ttft_ms = 2'000});
  EXPECT_EQ(replicas_within(scaler, now_ms, 1, {.wanted = 1, .ready = 1}), 3);
}

// A service whose p95 is `busy` / replicas of the objective: too few miss it, enough meet it.
TEST(Autoscale, InAClosedLoopItFindsTheSizeThatIsEnoughAndRarelyTriesLess) {
  Autoscaler scaler({.min = 1, .max = 64, .ttft_ms = 2'000, .calm_ms = 60'000});
  std::int64_t wanted = 1, changes_late = 0, now_ms = 0;
  const auto ttft_ms = [](std::int64_t replicas) {
    return 2'000 * 10 / replicas;
  };  // 10 are enough, 20 are calm
  for (int second = 0; second < 6 * 3'600; ++second) {
    now_ms += kSecond;
    const auto step = scaler.step(now_ms, {.wanted = wanted,
                                           .ready = wanted,
                                           .requests = 100, .samples = 100,
                                           .under_way = 20,
                                           .ttft_p95_ms = ttft_ms(wanted)});
    if (!step) continue;
    if (second > 3'600) ++changes_late;
    wanted = step->replicas;
  }
  EXPECT_GE(wanted, 10);
  EXPECT_LT(wanted, 20);
  EXPECT_EQ(changes_late, 0) << "between missing and calm it stays";
}

}  // namespace
}  // namespace capstan::routing
