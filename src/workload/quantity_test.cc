#include "workload/quantity.h"

#include <gtest/gtest.h>

namespace capstan::workload {
namespace {

TEST(QuantityTest, ReadsWhatPeopleWrite) {
  EXPECT_EQ(parse_milli_cpus("2"), 2000);
  EXPECT_EQ(parse_milli_cpus("0.5"), 500);
  EXPECT_EQ(parse_milli_cpus("250m"), 250);
  EXPECT_EQ(parse_milli_gpus("8"), 8000);
  EXPECT_EQ(parse_milli_gpus("0.25"), 250);
  EXPECT_EQ(parse_bytes("1.5GiB"), 1610612736);
  EXPECT_EQ(parse_bytes("2 MB"), 2000000);
  EXPECT_EQ(parse_bytes("128Gi"), 128ll << 30);
  EXPECT_EQ(parse_bytes("4096"), 4096);
  EXPECT_EQ(parse_duration_ms("1h30m"), 5400000);
  EXPECT_EQ(parse_duration_ms("500ms"), 500);
  EXPECT_EQ(parse_duration_ms("90"), 90000);
  EXPECT_EQ(parse_duration_ms("1.5s"), 1500);
}

TEST(QuantityTest, RefusesWhatIsNoQuantity) {
  for (const char* text : {"", "x", "-1", "1.2345", "1e3", "2 cpus", "."})
    EXPECT_FALSE(parse_milli_cpus(text)) << text;
  for (const char* text : {"", "1.5", "0.0001", "500m", "-1", "one"})
    EXPECT_FALSE(parse_milli_gpus(text)) << text;
  for (const char* text : {"", "1.5", "1GBs", "99999999999999TiB", "-1MiB"})
    EXPECT_FALSE(parse_bytes(text)) << text;
  for (const char* text : {"", "1x", "1h 30m", "m", "5m3", "99999999999999d"})
    EXPECT_FALSE(parse_duration_ms(text)) << text;
}

// Goal: what is printed in a diff reads back as the same quantity.
TEST(QuantityTest, FormatsReadBackEqual) {
  for (const std::int64_t value : {0ll, 1ll, 999ll, 1000ll, 1500ll, 61'000ll, 5'400'000ll, 90'061'001ll}) {
    EXPECT_EQ(parse_duration_ms(format_duration_ms(value)), value);
    EXPECT_EQ(parse_milli_cpus(format_milli_cpus(value)), value);
    EXPECT_EQ(parse_bytes(format_bytes(value << 10)), value << 10);
  }
}

}  // namespace
}  // namespace capstan::workload
