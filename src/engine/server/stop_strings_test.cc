// Goal: text ends before the first stop sequence, however it is cut; what cannot become one is shown at once.
#include "engine/server/stop_strings.h"

#include <gtest/gtest.h>

#include "base/prng.h"

namespace capstan::engine {
namespace {

TEST(StopStrings, HoldsBackOnlyWhatMayBecomeAStop) {
  StopStrings stops({"END", "\n\n"});
  EXPECT_EQ(stops.push("abcE"), "abc");
  EXPECT_EQ(stops.push("N"), "");
  EXPECT_EQ(stops.push("x\n"), "ENx");
  EXPECT_EQ(stops.push("y"), "\ny");
  EXPECT_EQ(stops.push("E"), "");
  EXPECT_EQ(stops.finish(), "E");
  EXPECT_FALSE(stops.found());
}

TEST(StopStrings, NothingFollowsAStop) {
  StopStrings stops({"END"});
  EXPECT_EQ(stops.push("a END b"), "a ");
  EXPECT_TRUE(stops.found());
  EXPECT_EQ(stops.push("c"), "");
  EXPECT_EQ(stops.finish(), "");
}

TEST(StopStrings, AnyCutGivesTheTextBeforeTheFirstStop) {
  Prng random(1);
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (std::uint64_t i = random.below(30); i > 0; --i) text.push_back("abc"[random.below(3)]);
    const std::vector<std::string> list = {"aba", "cc", "bab"};
    std::size_t first = text.size();
    // The first to be complete wins, which a search for the smallest end finds.
    for (std::size_t end = 1; end <= text.size() && first == text.size(); ++end) {
      for (const std::string& stop : list) {
        if (std::string_view(text).substr(0, end).ends_with(stop)) first = std::min(first, end - stop.size());
      }
    }
    StopStrings stops(list);
    std::string shown;
    for (const char c : text) shown += stops.push(std::string_view(&c, 1));
    shown += stops.finish();
    EXPECT_EQ(shown, text.substr(0, first)) << text;
  }
}

}  // namespace
}  // namespace capstan::engine
