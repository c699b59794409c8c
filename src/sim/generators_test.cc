// Goal: draws have the shapes they promise, arrivals come in order, follow the day and depend on nothing but the seed. Method:
// exact moments of the distributions against sums of many draws, and a table of the logarithm by another way.
#include "sim/generators.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "sim/random_draws.h"

namespace capstan::sim {
namespace {

constexpr std::int64_t kHourMs = 3'600'000;
constexpr std::int64_t kDayMs = 24 * kHourMs;

std::vector<Arrival> all_of(std::unique_ptr<ArrivalSource> source) {
  std::vector<Arrival> out;
  while (auto arrival = source->next()) {
    if (!out.empty()) {
      EXPECT_LE(out.back().time_ms, arrival->time_ms);
    }
    out.push_back(*std::move(arrival));
  }
  return out;
}

std::string text_of(const std::vector<Arrival>& arrivals) {
  std::string out;
  for (const Arrival& one : arrivals) {
    out += fmt::format("{} {} {} {}x{} {} {} {}\n", one.time_ms, one.spec.name, one.spec.tenant, one.spec.ranks,
                       one.spec.resources.gpus, one.spec.count, one.spec.replicas, one.behaviour.work_ms);
  }
  return out;
}

WorkTemplate pattern(std::string kind) {
  WorkTemplate out;
  out.kind = std::move(kind);
  return out;
}

TEST(Exponential, HasItsMeanItsQuantilesAndItsTail) {
  Prng prng(1);
  constexpr int kDraws = 400'000;
  constexpr std::int64_t kMean = 1'000'000;
  std::vector<std::int64_t> values;
  __int128 sum = 0;
  for (int i = 0; i < kDraws; ++i) {
    values.push_back(exponential(prng, kMean));
    sum += values.back();
  }
  std::sort(values.begin(), values.end());
  EXPECT_NEAR(static_cast<double>(static_cast<std::int64_t>(sum / kDraws)), 1e6, 6e3) << "four standard errors are 6,300";
  for (const double share : {0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999}) {
    const double exact = -std::log(1 - share) * 1e6;
    const double error = std::sqrt(share / (1 - share) / kDraws) * 1e6;  // of a quantile: sqrt(p(1-p)/n) / density
    EXPECT_NEAR(static_cast<double>(values[static_cast<std::size_t>(share * kDraws)]), exact, 5 * error) << share;
  }
  EXPECT_EQ(exponential(prng, 0), 0);
}

TEST(ByDoublings, EachDoublingIsAsLikelyAsTheNext) {
  Prng prng(2);
  std::map<int, int> counts;
  constexpr int kDraws = 60'000;
  for (int i = 0; i < kDraws; ++i) {
    const std::int64_t value = by_doublings(prng, 10, 639);  // 10-19, 20-39, … 320-639
    ASSERT_GE(value, 10);
    ASSERT_LE(value, 639);
    int doubling = 0;
    while (10 << (doubling + 1) <= value) ++doubling;
    ++counts[doubling];
  }
  ASSERT_EQ(counts.size(), 6u);
  for (const auto& [doubling, count] : counts) EXPECT_NEAR(count, kDraws / 6, 400) << doubling;
  EXPECT_EQ(by_doublings(prng, 7, 7), 7);
  std::set<std::int64_t> small;
  for (int i = 0; i < 200; ++i) small.insert(by_doublings(prng, 1, 3));
  EXPECT_THAT(small, testing::ElementsAre(1, 2, 3));
}

TEST(DailyCurve, GoesStraightFromHourToHour) {
  DailyCurve curve = kFlat;
  curve[1] = 500;
  EXPECT_EQ(share_of_day(curve, 0), 1000);
  EXPECT_EQ(share_of_day(curve, kHourMs / 2), 750);
  EXPECT_EQ(share_of_day(curve, kHourMs), 500);
  EXPECT_EQ(share_of_day(curve, 5 * kDayMs + kHourMs), 500);
  EXPECT_EQ(share_of_day(curve, kDayMs - 1), 1000) << "the last hour goes to the first";
}

TEST(FineTunes, AreAPoissonProcessWithTheSizesOfTheTable) {
  FineTunes jobs{.pattern = pattern("tune"), .mean_gap_ms = 10'000};
  jobs.tenants = {"a", "b"};
  const auto arrivals = all_of(generate(jobs, {0, 5 * kDayMs}, 42));
  const double expected = 5.0 * kDayMs / 10'000;
  EXPECT_NEAR(static_cast<double>(arrivals.size()), expected, 5 * std::sqrt(expected));
  std::map<std::int64_t, int> sizes;
  std::map<std::string, int> tenants;
  std::set<std::string> names;
  std::vector<std::int64_t> ones;
  for (const Arrival& one : arrivals) {
    const std::int64_t gpus = one.spec.ranks * one.spec.resources.gpus;
    ++sizes[gpus];
    ++tenants[one.spec.tenant];
    names.insert(one.spec.name);
    if (gpus == 1) ones.push_back(one.behaviour.work_ms);
  }
  EXPECT_EQ(names.size(), arrivals.size());
  EXPECT_NEAR(sizes[1] / expected, 50188.0 / 52838, 0.01);
  EXPECT_GT(sizes[8], 0);
  EXPECT_NEAR(tenants["a"] / expected, 0.5, 0.02);
  std::sort(ones.begin(), ones.end());
  EXPECT_NEAR(static_cast<double>(ones[ones.size() / 2]), 1'477'000, 40'000) << "the median of Philly's one-GPU jobs";
  EXPECT_NEAR(static_cast<double>(ones[ones.size() * 9 / 10]), 7'231'000, 700'000);
}

TEST(FineTunes, FollowTheDay) {
  FineTunes jobs{.pattern = pattern("tune"), .mean_gap_ms = 5'000, .curve = kOfficeHours};
  std::array<double, 24> hours{};
  for (const Arrival& one : all_of(generate(jobs, {0, 10 * kDayMs}, 1)))
    ++hours[static_cast<std::size_t>(one.time_ms / kHourMs % 24)];
  const double busiest = 10.0 * kHourMs / 5'000;
  for (std::size_t hour = 0; hour < 24; ++hour) {
    const double share = static_cast<double>(kOfficeHours[hour] + kOfficeHours[(hour + 1) % 24]) / 2000;
    EXPECT_NEAR(hours[hour], busiest * share, 5 * std::sqrt(busiest * share)) << hour;
  }
}

TEST(FineTunes, TheSeedAloneDecides) {
  const FineTunes jobs{.pattern = pattern("tune"), .mean_gap_ms = 60'000};
  const std::string once = text_of(all_of(generate(jobs, {0, kDayMs}, 7)));
  EXPECT_EQ(once, text_of(all_of(generate(jobs, {0, kDayMs}, 7))));
  EXPECT_NE(once, text_of(all_of(generate(jobs, {0, kDayMs}, 8))));
  // The same on every machine: the first arrivals of seed 7, written down.
  EXPECT_EQ(once.substr(0, once.find('\n', once.find('\n') + 1) + 1),
            "13733 tune-0 default 1x1 1 1 1486064\n156480 tune-1 default 1x1 1 1 32813\n");
}

TEST(FrontierRuns, HoldTheirGangOneAfterTheOther) {
  FrontierRuns runs{.pattern = pattern("frontier"), .count = 3, .ranks = 2048, .work_ms = 90 * kDayMs, .gap_ms = 30 * kDayMs};
  runs.pattern.gpus_per_rank = 4;
  runs.pattern.spec.placement.segment = 16;
  const auto arrivals = all_of(generate(runs, {kDayMs, 60 * kDayMs}, 1));
  ASSERT_EQ(arrivals.size(), 2u) << "the third would come after the end";
  EXPECT_EQ(arrivals[0].time_ms, kDayMs);
  EXPECT_EQ(arrivals[1].time_ms, 31 * kDayMs);
  EXPECT_EQ(arrivals[1].spec.ranks, 2048);
  EXPECT_EQ(arrivals[1].spec.resources.gpus, 4);
  EXPECT_EQ(arrivals[1].spec.placement.segment, 16);
  EXPECT_EQ(arrivals[1].behaviour.work_ms, 90 * kDayMs);
}

TEST(InferenceServices, ChangeTheirReplicasOverTheDay) {
  InferenceServices services{.pattern = pattern("chat"), .count = 2, .gpus = 16, .replicas_min = 2, .replicas_max = 42};
  services.noise_milli = 0;
  const auto arrivals = all_of(generate(services, {0, 2 * kDayMs, true}, 3));
  std::map<std::string, std::vector<const Arrival*>> by_name;
  for (const Arrival& one : arrivals) by_name[one.spec.name].push_back(&one);
  ASSERT_EQ(by_name.size(), 2u);
  for (const auto& [name, list] : by_name) {
    std::int64_t low = 1'000, high = 0;
    for (std::size_t i = 0; i < list.size(); ++i) {
      EXPECT_EQ(list[i]->spec.kind, workload::Kind::kService);
      EXPECT_EQ(list[i]->spec.resources.gpus, 16) << "a replica is one rank, however many GPUs a host has";
      EXPECT_EQ(list[i]->behaviour.withdrawn_after_ms, i == 0 ? 2 * kDayMs : 0);
      low = std::min(low, list[i]->spec.replicas);
      high = std::max(high, list[i]->spec.replicas);
      if (i == 0) continue;
      workload::Spec same = list[i]->spec;
      same.replicas = list[i - 1]->spec.replicas;
      EXPECT_EQ(same, list[i - 1]->spec) << "nothing else changes, so nothing restarts";
      EXPECT_NE(list[i]->spec.replicas, list[i - 1]->spec.replicas) << "only changes are applied";
    }
    EXPECT_NEAR(static_cast<double>(low), 2 + 40 * 0.16, 1);
    EXPECT_NEAR(static_cast<double>(high), 42, 1);
  }
}

TEST(AgentBursts, OverlapInOrder) {
  AgentBursts bursts{
      .pattern = pattern("agents"), .mean_gap_ms = 30'000, .arrays_min = 2, .arrays_max = 9, .within_ms = 120'000};
  const auto arrivals = all_of(generate(bursts, {0, kDayMs}, 5));
  const double expected = static_cast<double>(kDayMs) / 30'000 * 5.5;
  EXPECT_NEAR(static_cast<double>(arrivals.size()), expected, expected * 0.1);
  std::set<std::string> names;
  for (const Arrival& one : arrivals) {
    names.insert(one.spec.name);
    EXPECT_EQ(one.spec.kind, workload::Kind::kTasks);
    EXPECT_GE(one.spec.count, 10);
    EXPECT_LE(one.spec.count, 1'000);
    EXPECT_GE(one.behaviour.work_ms, 5'000);
    EXPECT_LE(one.behaviour.work_ms, 600'000);
    EXPECT_LT(one.time_ms, kDayMs);
  }
  EXPECT_EQ(names.size(), arrivals.size());
}

}  // namespace
}  // namespace capstan::sim
