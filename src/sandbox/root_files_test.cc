// Goal: files inside are reached, and nothing outside is, whatever the program inside prepared: links, pipes,
// devices, trees that are too large. Needs no privileges: a directory stands for a sandbox's root.
#include "sandbox/root_files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "base/file.h"
#include "sandbox/wire.h"

namespace capstan::sandbox {
namespace {

namespace fs = std::filesystem;

class RootFilesTest : public testing::Test {
 protected:
  RootFilesTest() : top_(fs::temp_directory_path() / ("capstan-root-" + random_hex(4))) {
    fs::create_directories(top_ / "root/work");
    EXPECT_TRUE(write_file_atomic(top_ / "secret", "secret"));
    root_.reset(::open((top_ / "root").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  }
  ~RootFilesTest() override { fs::remove_all(top_); }
  int root() const { return root_.get(); }

  fs::path top_;
  Fd root_;
  const std::uint32_t self_ = ::geteuid();
};

TEST_F(RootFilesTest, FilesAreWrittenReadListedRenamedAndRemoved) {
  ASSERT_TRUE(write_inside(root(), "/work/a/b/c.txt", "hello", self_));
  EXPECT_EQ(read_inside(root(), "/work/a/b/c.txt", 100).value(), "hello");
  ASSERT_TRUE(write_inside(root(), "/work/a/b/c.txt", "bye", self_));
  EXPECT_EQ(read_inside(root(), "/work/a/b/c.txt", 100).value(), "bye");
  ASSERT_TRUE(rename_inside(root(), "/work/a/b/c.txt", "/work/a/d.txt"));
  const auto list = list_inside(root(), "/work/a");
  ASSERT_EQ(list->size(), 2u);
  EXPECT_EQ((*list)[0].type, 'd');
  EXPECT_EQ((*list)[1].name, "d.txt");
  EXPECT_EQ((*list)[1].bytes, 3);
  EXPECT_EQ(stat_inside(root(), "/work/a/d.txt")->type, 'f');
  ASSERT_TRUE(remove_inside(root(), "/work/a"));
  EXPECT_EQ(stat_inside(root(), "/work/a").error().code, Code::kNotFound);
}

TEST_F(RootFilesTest, NoLinkLeadsOut) {
  fs::create_symlink(top_ / "secret", top_ / "root/work/absolute");
  fs::create_symlink("../../secret", top_ / "root/work/relative");
  fs::create_directory_symlink(top_, top_ / "root/work/dir");
  for (const char* path : {"/work/absolute", "/work/relative", "/work/dir/secret"}) {
    EXPECT_EQ(read_inside(root(), path, 100).error().code, Code::kDenied) << path;
    EXPECT_FALSE(write_inside(root(), path, "x", self_)) << path;
  }
  EXPECT_EQ(read_inside(root(), "/../../../secret", 100).error().code, Code::kNotFound);
  EXPECT_FALSE(remove_inside(root(), "/work/dir/secret"));
  ASSERT_TRUE(remove_inside(root(), "/work/dir"));
  EXPECT_EQ(read_file(top_ / "secret").value(), "secret");
  EXPECT_EQ(read_inside(root(), "relative", 10).error().code, Code::kInvalid);
}

TEST_F(RootFilesTest, APipeNeitherBlocksNorCounts) {
  ASSERT_EQ(::mkfifo((top_ / "root/work/pipe").c_str(), 0644), 0);
  EXPECT_EQ(read_inside(root(), "/work/pipe", 100).error().code, Code::kDenied);
  EXPECT_FALSE(write_inside(root(), "/work/pipe", "x", self_));
}

TEST_F(RootFilesTest, ResultsAreCopiedWithoutWhatIsNoFile) {
  ASSERT_TRUE(write_inside(root(), "/work/out/deep/a", "aaa", self_));
  ASSERT_TRUE(write_inside(root(), "/work/out/b", "bb", self_));
  fs::create_symlink(top_ / "secret", top_ / "root/work/out/link");
  ASSERT_EQ(::mkfifo((top_ / "root/work/out/pipe").c_str(), 0644), 0);
  const auto report = copy_out(root(), "/work/out", (top_ / "copy").string());
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->bytes, 5);
  EXPECT_EQ(report->skipped, 2);
  EXPECT_EQ(read_file(top_ / "copy/deep/a").value(), "aaa");
  EXPECT_FALSE(fs::exists(top_ / "copy/link"));
}

TEST_F(RootFilesTest, ASparseOrLargeResultMeetsTheLimit) {
  ASSERT_TRUE(write_inside(root(), "/work/out/a", "a", self_));
  ASSERT_EQ(::truncate((top_ / "root/work/out/a").c_str(), std::int64_t{1} << 40), 0);
  EXPECT_EQ(copy_out(root(), "/work/out", (top_ / "copy").string(), {.bytes_max = 1 << 20}).error().code,
            Code::kExhausted);
  EXPECT_EQ(read_inside(root(), "/work/out/a", 1 << 20).error().code, Code::kExhausted);
  EXPECT_EQ(list_inside(root(), "/work", 0).error().code, Code::kExhausted);
}

// Goal: a directory that is swapped for a link to outside while it is copied gives nothing from outside.
TEST_F(RootFilesTest, ASwapOfADirectoryForALinkDuringTheCopyGainsNothing) {
  fs::create_directories(top_ / "root/work/out");
  fs::create_directories(top_ / "outside");
  ASSERT_TRUE(write_file_atomic(top_ / "outside/secret", "secret"));
  fs::create_directories(top_ / "root/work/real");
  fs::create_directory_symlink(top_ / "outside", top_ / "root/work/evil");
  std::jthread swapper([&](const std::stop_token& stop) {
    const auto at = top_ / "root/work/out/x";
    while (!stop.stop_requested()) {
      ::rename((top_ / "root/work/real").c_str(), at.c_str());
      ::rename(at.c_str(), (top_ / "root/work/real").c_str());
      ::rename((top_ / "root/work/evil").c_str(), at.c_str());
      ::rename(at.c_str(), (top_ / "root/work/evil").c_str());
    }
  });
  for (int i = 0; i < 300; ++i) {
    const auto target = top_ / ("copy" + std::to_string(i));
    (void)copy_out(root(), "/work/out", target.string());
    EXPECT_FALSE(fs::exists(target / "x/secret"));
  }
}

}  // namespace
}  // namespace capstan::sandbox
