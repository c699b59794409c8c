#include "cli/table.h"

#include <gtest/gtest.h>

namespace capstan::cli {
namespace {

TEST(TableTest, ColumnsAlignAndLinesHaveNoTrailingBlanks) {
  Table table({"NAME", "STATE", "REASON"});
  table.add({"a", "running", ""});
  table.add({"größer", "failed", "exit 1"});
  EXPECT_EQ(table.text(), "NAME    STATE    REASON\na       running\ngrößer  failed   exit 1\n");
}

TEST(TableTest, AgesAreShort) {
  EXPECT_EQ(format_age(-5), "0s");
  EXPECT_EQ(format_age(119'000), "119s");
  EXPECT_EQ(format_age(3 * 3600 * 1000), "3h");
  EXPECT_EQ(format_age(50ll * 3600 * 1000), "2d");
}

}  // namespace
}  // namespace capstan::cli
