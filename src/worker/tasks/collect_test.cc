// Goal: what is collected takes the place of what a worker left that was killed while it collected, and is
// the user's. Method: that leftover, made by hand: a tree of root's in the user's directory. As root; else
// skipped.
#include "worker/tasks/collect.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.h"
#include "worker/descriptor.h"

namespace capstan::worker {
namespace {

namespace fs = std::filesystem;

TEST(CollectTest, WhatAKilledWorkerLeftHalfCopiedIsReplaced) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root collects for others";
  const RankUser nobody = *resolve_user("nobody", 0);
  const fs::path scratch = fs::temp_directory_path() / ("capstan-collect-" + random_hex(4));
  fs::create_directories(scratch / "box/work/out/in");
  fs::create_directories(scratch / "collected/0/7/in");
  ASSERT_TRUE(write_file_atomic(scratch / "box/work/out/in/f", "whole"));
  ASSERT_TRUE(write_file_atomic(scratch / "collected/0/7/in/f", "ha"));
  for (const char* made : {"collected", "collected/0"})
    ASSERT_EQ(::chown((scratch / made).c_str(), nobody.uid, nobody.gid), 0);
  const Descriptor box(::open((scratch / "box").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  const auto report = collect(box.get(), "/work/out", scratch / "collected", "0", "7", nobody, {});
  EXPECT_TRUE(report) << report.error().message;
  EXPECT_EQ(read_file(scratch / "collected/0/7/in/f").value_or("?"), "whole");
  for (const auto& entry : fs::recursive_directory_iterator(scratch / "collected")) {
    struct stat status {};
    ASSERT_EQ(::lstat(entry.path().c_str(), &status), 0);
    EXPECT_EQ(status.st_uid, nobody.uid) << entry.path();
  }
  fs::remove_all(scratch);
}

}  // namespace
}  // namespace capstan::worker
