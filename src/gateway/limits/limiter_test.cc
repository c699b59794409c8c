// Goal: the limiter agrees with a twin that keeps every request and adds them all up, is never over, refuses
// nothing that fits after settlement, and stays exact with 10,000 requests from many threads.
#include "gateway/limits/limiter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <thread>

#include "base/prng.h"

namespace capstan::gateway {
namespace {

using store::LimitRule;
using store::Subject;
using store::Unit;
using store::Window;

constexpr std::int64_t kNow = 1'764'200'000'000;  // in November 2025
std::int64_t nothing_before(const LimitRule&, Span) { return 0; }

LimitRule rule(std::int64_t id, Unit unit, Window window, std::int64_t amount) {
  return {.id = id, .window = window, .unit = unit, .amount = amount};
}

TEST(Window, IsTheMinuteDayOrMonthInUtc) {
  const std::int64_t moment = 1'709'164'799'999;  // 2024-02-28T23:59:59.999Z
  EXPECT_EQ(window_of(Window::kMinute, moment), (Span{1'709'164'740'000, 1'709'164'800'000}));
  EXPECT_EQ(window_of(Window::kDay, moment), (Span{1'709'078'400'000, 1'709'164'800'000}));
  EXPECT_EQ(window_of(Window::kMonth, moment), (Span{1'706'745'600'000, 1'709'251'200'000}));  // 29 days
  EXPECT_EQ(window_of(Window::kMonth, moment + 86'400'001), (Span{1'709'251'200'000, 1'711'929'600'000}));
}

TEST(Limiter, ASettlementReplacesItsReservationAndOnlyOnce) {
  Limiter limiter;
  limiter.set_rules({rule(1, Unit::kTokens, Window::kMinute, 100)}, kNow, nothing_before);
  auto first = limiter.reserve({}, {1, 10, 80, 0}, kNow);
  ASSERT_TRUE(first.has_value());
  const auto refused = limiter.reserve({}, {1, 10, 1, 0}, kNow);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().reserved, 90);
  EXPECT_EQ(refused.error().wanted, 11);
  EXPECT_EQ(refused.error().retry_after_ms, 1'000);  // only what is under way stands in the way
  limiter.settle(*first, {1, 10, 5, 0});
  limiter.settle(*first, {1, 10, 5, 0});
  EXPECT_EQ(limiter.state_of(1, kNow), (std::pair<std::int64_t, std::int64_t>{15, 0}));
  EXPECT_TRUE(limiter.reserve({}, {1, 5, 80, 0}, kNow).has_value());
}

TEST(Limiter, ARequestThatAloneIsPastTheLimitIsToldNeverAndAFullWindowWhenItEnds) {
  Limiter limiter;
  limiter.set_rules({rule(1, Unit::kTokens, Window::kMinute, 100)}, kNow, nothing_before);
  EXPECT_EQ(limiter.reserve({}, {1, 101, 0, 0}, kNow).error().retry_after_ms, 0);
  auto all = limiter.reserve({}, {1, 100, 0, 0}, kNow);
  limiter.settle(*all, {1, 100, 0, 0});
  const std::int64_t end = window_of(Window::kMinute, kNow).end_ms;
  EXPECT_EQ(limiter.reserve({}, {1, 1, 0, 0}, kNow).error().retry_after_ms, end - kNow);
  EXPECT_TRUE(limiter.reserve({}, {1, 100, 0, 0}, end).has_value());
}

TEST(Limiter, WhatWasReservedInAWindowThatHasPassedDoesNotCountInTheNext) {
  Limiter limiter;
  limiter.set_rules({rule(1, Unit::kRequests, Window::kMinute, 1)}, kNow, nothing_before);
  auto old = limiter.reserve({}, {1, 0, 0, 0}, kNow);
  const std::int64_t later = kNow + 60'000;
  auto next = limiter.reserve({}, {1, 0, 0, 0}, later);
  ASSERT_TRUE(next.has_value());
  limiter.settle(*old, {1, 0, 0, 0});
  EXPECT_EQ(limiter.state_of(1, later), (std::pair<std::int64_t, std::int64_t>{0, 1}));
}

TEST(Limiter, ARefusalByOneLimitLeavesNothingInTheOthers) {
  Limiter limiter;
  limiter.set_rules({rule(1, Unit::kRequests, Window::kDay, 10), rule(2, Unit::kNanoDollars, Window::kMonth, 5)}, kNow,
                    nothing_before);
  EXPECT_EQ(limiter.reserve({}, {1, 0, 0, 6}, kNow).error().rule.id, 2);
  EXPECT_EQ(limiter.state_of(1, kNow).second, 0);
}

TEST(Limiter, LimitsCountForTheirSubjectAndModelOnly) {
  Limiter limiter;
  LimitRule key = rule(1, Unit::kRequests, Window::kConcurrent, 1);
  key.subject = Subject::kKey, key.subject_id = 7;
  LimitRule model = rule(2, Unit::kRequests, Window::kMinute, 2);
  model.model = "big";
  LimitRule organisation = rule(3, Unit::kRequests, Window::kMinute, 3);
  organisation.subject = Subject::kOrganisation, organisation.subject_id = 1;
  limiter.set_rules({key, model, organisation}, kNow, nothing_before);
  auto a = limiter.reserve({1, 1, 7, "big"}, {1, 0, 0, 0}, kNow);
  ASSERT_TRUE(a.has_value());
  EXPECT_EQ(limiter.reserve({1, 1, 7, "small"}, {1, 0, 0, 0}, kNow).error().rule.id, 1);
  auto b = limiter.reserve({1, 1, 8, "big"}, {1, 0, 0, 0}, kNow);
  ASSERT_TRUE(b.has_value());
  EXPECT_EQ(limiter.reserve({2, 2, 9, "big"}, {1, 0, 0, 0}, kNow).error().rule.id, 2);
  auto c = limiter.reserve({1, 1, 8, "small"}, {1, 0, 0, 0}, kNow);
  ASSERT_TRUE(c.has_value());
  EXPECT_EQ(limiter.reserve({1, 3, 10, "small"}, {1, 0, 0, 0}, kNow).error().rule.id, 3);
  limiter.settle(*a, {1, 0, 0, 0});
  EXPECT_EQ(limiter.state_of(1, kNow).second, 0);  // at once: a place is free again, nothing is used up
  EXPECT_EQ(limiter.state_of(2, kNow).first, 1);
}

TEST(Limiter, ANewRuleBeginsWithWhatWasUsedAndAKnownOneKeepsItsCounts) {
  Limiter limiter;
  limiter.set_rules({rule(1, Unit::kTokens, Window::kDay, 100)}, kNow, [](const LimitRule&, Span) { return 60; });
  auto one = limiter.reserve({}, {1, 30, 0, 0}, kNow);
  ASSERT_TRUE(one.has_value());
  limiter.set_rules({rule(1, Unit::kTokens, Window::kDay, 95), rule(2, Unit::kTokens, Window::kMonth, 1000)}, kNow,
                    [](const LimitRule& r, Span) { return r.id == 2 ? 500 : 0; });
  EXPECT_EQ(limiter.state_of(1, kNow), (std::pair<std::int64_t, std::int64_t>{60, 30}));
  EXPECT_EQ(limiter.state_of(2, kNow), (std::pair<std::int64_t, std::int64_t>{500, 0}));
  EXPECT_FALSE(limiter.reserve({}, {1, 6, 0, 0}, kNow).has_value());
  limiter.settle(*one, {1, 1, 0, 0});
  EXPECT_TRUE(limiter.reserve({}, {1, 34, 0, 0}, kNow).has_value());
  limiter.set_rules({}, kNow, nothing_before);
  EXPECT_TRUE(limiter.reserve({}, {1, 1'000'000, 0, 0}, kNow).has_value());
}

TEST(Limiter, WhatCostsNothingPassesABudgetThatIsUsedUp) {
  Limiter limiter;
  limiter.set_rules({rule(1, Unit::kNanoDollars, Window::kMonth, 5)}, kNow, [](const LimitRule&, Span) { return 9; });
  EXPECT_FALSE(limiter.reserve({}, {1, 1, 1, 1}, kNow).has_value());
  EXPECT_TRUE(limiter.reserve({}, {1, 1, 1, 0}, kNow).has_value());
}

// The twin: a list of all requests; each question adds everything up.
struct Twin {
  struct Taken {
    Payer payer;
    Amounts estimate, actual;
    std::int64_t at_ms = 0;
    bool settled = false;
  };
  std::vector<LimitRule> rules;
  std::deque<Taken> taken;

  std::int64_t sum(const LimitRule& rule, std::int64_t now_ms) const {
    std::int64_t total = 0;
    for (const Taken& one : taken) {
      const bool subject = rule.subject == Subject::kEveryone ||
                           (rule.subject == Subject::kOrganisation && one.payer.organisation == rule.subject_id) ||
                           (rule.subject == Subject::kProject && one.payer.project == rule.subject_id) ||
                           (rule.subject == Subject::kKey && one.payer.key == rule.subject_id);
      if (!subject || (!rule.model.empty() && rule.model != one.payer.model)) continue;
      if (rule.window == Window::kConcurrent) {
        total += one.settled ? 0 : one.estimate.of(rule.unit);
      } else if (window_of(rule.window, one.at_ms) == window_of(rule.window, now_ms)) {
        total += (one.settled ? one.actual : one.estimate).of(rule.unit);
      }
    }
    return total;
  }
  bool admits(const Amounts& estimate, std::int64_t now_ms, const Payer& payer) {
    taken.push_back({payer, estimate, {}, now_ms, false});
    const bool fits = std::ranges::all_of(rules, [&](const LimitRule& rule) {
      Twin alone{{}, {taken.back()}};
      const std::int64_t wanted = alone.sum(rule, now_ms);
      return wanted == 0 || sum(rule, now_ms) <= rule.amount;
    });
    if (!fits) taken.pop_back();
    return fits;
  }
};

TEST(LimiterProperty, AgreesWithATwinThatAddsEverythingUp) {
  const std::array<std::string_view, 2> models{"a", "b"};
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    Prng prng(seed);
    Twin twin;
    for (std::int64_t id = 1; id <= 6; ++id) {
      LimitRule one = rule(id, static_cast<Unit>(prng.below(5)), static_cast<Window>(prng.below(4)), 0);
      if (one.window == Window::kConcurrent) one.unit = Unit::kRequests;
      one.subject = static_cast<Subject>(prng.below(4));
      if (one.subject != Subject::kEveryone) one.subject_id = prng.between(1, 2);
      if (prng.below(3) == 0) one.model = models[prng.below(2)];
      one.amount = one.unit == Unit::kRequests ? prng.between(0, 12) : prng.between(0, 400);
      twin.rules.push_back(one);
    }
    Limiter limiter;
    limiter.set_rules(twin.rules, kNow, nothing_before);
    std::vector<std::pair<Limiter::Reservation, std::size_t>> open;
    std::int64_t now_ms = kNow;
    for (int step = 0; step < 300; ++step) {
      now_ms += static_cast<std::int64_t>(prng.below(100) == 0 ? 86'400'000 : prng.below(4'000));
      if (!open.empty() && prng.below(2) == 0) {
        const std::size_t at = prng.below(open.size());
        auto& one = twin.taken[open[at].second];
        one.settled = true;
        if (prng.below(4) != 0)  // else it is released
          one.actual = {1, prng.between(0, one.estimate.input_tokens), prng.between(0, one.estimate.output_tokens),
                        prng.between(0, one.estimate.nano_dollars)};
        limiter.settle(open[at].first, one.actual);
        open.erase(open.begin() + static_cast<std::ptrdiff_t>(at));
        continue;
      }
      const Payer payer{prng.between(1, 2), prng.between(1, 2), prng.between(1, 2), models[prng.below(2)]};
      const Amounts estimate{1, prng.between(0, 40), prng.between(0, 40), prng.between(0, 60)};
      auto reserved = limiter.reserve(payer, estimate, now_ms);
      ASSERT_EQ(reserved.has_value(), twin.admits(estimate, now_ms, payer)) << "seed " << seed << " step " << step;
      if (reserved) open.emplace_back(std::move(*reserved), twin.taken.size() - 1);
      for (const LimitRule& one : twin.rules) {
        const auto [used, held] = limiter.state_of(one.id, now_ms);
        ASSERT_EQ(used + held, twin.sum(one, now_ms)) << "seed " << seed << " step " << step << " rule " << one.id;
        ASSERT_LE(used + held, one.amount);
      }
    }
  }
}

TEST(LimiterProperty, TenThousandRequestsOfManyThreadsAreNeverOverAndWhatFitsAfterSettlementIsAdmitted) {
  constexpr int kThreads = 16, kEach = 625;
  constexpr std::int64_t kTokens = 100'000;
  Limiter limiter;
  limiter.set_rules({rule(1, Unit::kTokens, Window::kMonth, kTokens), rule(2, Unit::kRequests, Window::kConcurrent, 40)},
                    kNow, nothing_before);
  std::atomic<std::int64_t> used = 0;
  std::atomic<int> admitted = 0, refused = 0, over = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      Prng prng(static_cast<std::uint64_t>(t));
      std::vector<std::pair<Limiter::Reservation, Amounts>> open;
      const auto settle_one = [&] {
        const Amounts& estimate = open.front().second;
        const Amounts actual{1, estimate.input_tokens, prng.between(0, estimate.output_tokens), 0};
        used += actual.of(Unit::kTokens);
        limiter.settle(open.front().first, actual);
        open.erase(open.begin());
      };
      for (int i = 0; i < kEach; ++i) {
        const Amounts estimate{1, prng.between(1, 30), prng.between(1, 60), 0};
        auto reserved = limiter.reserve({}, estimate, kNow);
        if (reserved) {
          ++admitted;
          open.emplace_back(std::move(*reserved), estimate);
        } else {
          ++refused;
        }
        const auto [settled, held] = limiter.state_of(1, kNow);
        if (settled + held > kTokens || limiter.state_of(2, kNow).second > 40) ++over;
        if (open.size() >= 4) settle_one();
      }
      while (!open.empty()) settle_one();
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(over, 0);
  EXPECT_EQ(admitted + refused, kThreads * kEach);
  EXPECT_LE(used, kTokens);
  EXPECT_EQ(limiter.state_of(1, kNow), (std::pair<std::int64_t, std::int64_t>{used, 0}));
  // Exactly what is left is admitted, and not one token more.
  EXPECT_FALSE(limiter.reserve({}, {1, kTokens - used + 1, 0, 0}, kNow).has_value());
  EXPECT_TRUE(limiter.reserve({}, {1, kTokens - used, 0, 0}, kNow).has_value());
}

}  // namespace
}  // namespace capstan::gateway
