// Goal: what was saved comes back; what cannot be read is kept for people and never stops a session host.
#include "agents/sessions/usage_file.h"

#include <gtest/gtest.h>

#include "base/file.h"

namespace capstan::agents {
namespace {

TEST(UsageFile, WhatWasSavedComesBackAndADamagedFileIsSetAside) {
  const auto path = std::filesystem::temp_directory_path() / ("usage-file-" + random_hex(6));
  UsageFile file(path);
  EXPECT_TRUE(file.load().empty());
  const store::ComputeRecord one{
      .id = "sandbox/1/0", .kind = "sandbox", .name = "a/b", .project = 3, .sum = {.runs = 1, .cpu_us = 7}};
  file.save(std::vector{one});
  const auto back = UsageFile(path).load();
  ASSERT_EQ(back.size(), 1u);
  EXPECT_EQ(back[0].id, one.id);
  EXPECT_EQ(back[0].project, 3);
  EXPECT_EQ(back[0].sum.cpu_us, 7);
  const auto written = std::filesystem::last_write_time(path);
  file.save(std::vector{one});
  EXPECT_EQ(std::filesystem::last_write_time(path), written) << "nothing changed";
  file.save({});
  EXPECT_TRUE(UsageFile(path).load().empty());
  ASSERT_TRUE(write_file_atomic(path, "{\"records\":[{\"id\":\"x\"}]}", 0600));
  EXPECT_TRUE(UsageFile(path).load().empty());
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_TRUE(std::filesystem::remove(path.string() + ".damaged"));
}

}  // namespace
}  // namespace capstan::agents
