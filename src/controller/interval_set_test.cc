// Goal: a set of ranges agrees with a set of the numbers themselves, whatever is put in and taken out, with many blocks and
// with one.
#include "controller/interval_set.h"

#include <gtest/gtest.h>

#include <set>

#include "base/prng.h"

namespace capstan::controller {
namespace {

std::vector<Range> ranges_of(const std::set<std::int64_t>& numbers) {
  std::vector<Range> out;
  for (const std::int64_t number : numbers) {
    if (!out.empty() && out.back().end == number) {
      ++out.back().end;
    } else {
      out.push_back({number, number + 1});
    }
  }
  return out;
}

void compare(std::uint64_t seed, std::int64_t numbers_max, std::int64_t length_max, int steps) {
  Prng prng(seed);
  IntervalSet set;
  std::set<std::int64_t> twin;
  for (int step = 0; step < steps; ++step) {
    const std::int64_t begin = prng.between(0, numbers_max), end = begin + prng.between(0, length_max);
    const bool insert = prng.below(3) > 0;
    if (insert) {
      set.insert(begin, end);
    } else {
      set.erase(begin, end);
    }
    for (std::int64_t number = begin; number < end; ++number) {
      if (insert) {
        twin.insert(number);
      } else {
        twin.erase(number);
      }
    }
    ASSERT_EQ(set.size(), static_cast<std::int64_t>(twin.size())) << step;
    ASSERT_EQ(set.contains(begin), twin.contains(begin)) << step;
    ASSERT_EQ(set.contains(end), twin.contains(end)) << step;
    if (step % 100 == 0) {
      ASSERT_EQ(set.ranges(), ranges_of(twin)) << step;
    }
  }
  ASSERT_EQ(set.ranges(), ranges_of(twin));
}

TEST(IntervalSet, AgreesWithASetOfNumbers) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    compare(seed, 60, 9, 2'000);            // one block, everything touches
    compare(100 + seed, 20'000, 2, 5'000);  // many blocks of single numbers
    compare(200 + seed, 20'000, 2'000, 300);  // long ranges that swallow blocks
  }
}

TEST(IntervalSet, EqualSetsAreEqualHoweverTheyCameAbout) {
  IntervalSet up, down;
  for (std::int64_t i = 0; i < 1'000; ++i) {
    up.insert(2 * i, 2 * i + 1);
    down.insert(2 * (999 - i), 2 * (999 - i) + 1);
  }
  EXPECT_EQ(up, down);
  down.erase(4, 5);
  EXPECT_FALSE(up == down);
  EXPECT_EQ(up.first(3), (std::vector<Range>{{0, 1}, {2, 3}, {4, 5}}));
}

}  // namespace
}  // namespace capstan::controller
