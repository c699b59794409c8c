// Goal: what a session used arrives as it was sent.
#include "agents/sessions/usage_json.h"

#include <gtest/gtest.h>

namespace capstan::agents {
namespace {

TEST(UsageJson, ARecordComesBackWholeAndABrokenOneIsRefused) {
  const store::ComputeRecord sent{.id = "sandbox/1/0",
                                  .time_ms = 1,
                                  .kind = "sandbox",
                                  .name = "1",
                                  .key = 2,
                                  .project = 3,
                                  .organisation = 4,
                                  .sum = {.runs = 5,
                                          .wall_ms = 6,
                                          .cpu_us = 7,
                                          .memory_mib_ms = 8,
                                          .memory_peak_bytes = 9,
                                          .bytes_in = 10,
                                          .bytes_out = 11}};
  const Json json = to_json(sent);
  const auto back = compute_record_of(json);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(to_json(*back).dump(), json.dump());
  EXPECT_EQ(back->sum.bytes_out, 11);
  EXPECT_EQ(back->organisation, 4);
  EXPECT_EQ(json.members().size(), 14u);
  Json broken = json;
  broken["cpu_us"] = "many";
  EXPECT_EQ(compute_record_of(broken).error().code, Code::kCorrupt);
  broken = json;
  broken["id"] = "";
  EXPECT_EQ(compute_record_of(broken).error().code, Code::kCorrupt);
}

}  // namespace
}  // namespace capstan::agents
