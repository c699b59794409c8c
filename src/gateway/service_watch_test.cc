// Goal: percentiles agree with sorting all of them, and what is older than the window is forgotten.
#include "gateway/service_watch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/prng.h"

namespace capstan::gateway {
namespace {

TEST(ServiceWatch, PercentilesAgreeWithSortingWithinABucket) {
  Prng prng(3);
  for (int round = 0; round < 50; ++round) {
    DurationCounts counts;
    std::vector<std::int64_t> all;
    const std::uint64_t most = 10ULL << prng.below(22);
    for (int i = 0; i < 500; ++i) {
      all.push_back(static_cast<std::int64_t>(prng.below(most)));
      counts.add(all.back());
    }
    std::ranges::sort(all);
    for (const std::int64_t percent : {1, 50, 95, 99, 100}) {
      const std::int64_t exact = all[static_cast<std::size_t>((500 * percent + 99) / 100 - 1)];
      EXPECT_GE(counts.percentile_ms(percent), exact);
      EXPECT_LE(counts.percentile_ms(percent), exact + exact / 8);
    }
  }
  EXPECT_EQ(DurationCounts().percentile_ms(95), 0);
}

TEST(ServiceWatch, ForgetsWhatIsOlderThanItsWindowAndKeepsWhoIsUnderWay) {
  ServiceWatch watch;
  watch.arrived("a", 500, true);
  watch.arrived("a", 900, false);
  watch.first_token("a", 1'000, 700);
  watch.left("a", 2'000, false, 40);
  auto load = watch.load("a", 5'000);
  EXPECT_EQ(load.requests, 2);
  EXPECT_EQ(load.samples, 1);
  EXPECT_EQ(load.under_way, 1);
  EXPECT_EQ(load.waiting, 1);
  EXPECT_NEAR(load.ttft_p95_ms, 700, 88);
  EXPECT_NEAR(load.tpot_p95_ms, 40, 5);
  watch.found_replica("a");
  load = watch.load("a", 1'000 + kWatchWindowMs + 1'000);
  EXPECT_EQ(load.requests, 0);
  EXPECT_EQ(load.ttft_p95_ms, 0);
  EXPECT_EQ(load.under_way, 1);
  EXPECT_EQ(load.waiting, 0);
  EXPECT_EQ(watch.load("b", 0).under_way, 0);
}

TEST(ServiceWatch, AServiceTooManyIsNotWatchedAndDoesNoHarm) {
  ServiceWatch watch;
  for (std::size_t i = 0; i <= kWatchedServicesMax; ++i) watch.arrived("s" + std::to_string(i), 0, false);
  EXPECT_EQ(watch.load("s0", 0).under_way, 1);
  const std::string extra = "s" + std::to_string(kWatchedServicesMax);
  watch.first_token(extra, 0, 5);
  watch.left(extra, 0, false, -1);
  EXPECT_EQ(watch.load(extra, 0).under_way, 0);
}

}  // namespace
}  // namespace capstan::gateway
