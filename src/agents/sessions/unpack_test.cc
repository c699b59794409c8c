// Goal: an archive becomes a root, and a hostile one becomes an error: nothing outside the root is made, changed or linked.
// Method: archives written here entry by entry, beside a file that must stay as it is.
#include "agents/sessions/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "agents/sessions/image_roots.h"
#include "base/file.h"

namespace capstan::agents {
namespace {

namespace fs = std::filesystem;

struct Entry {
  std::string name;
  unsigned type = AE_IFREG;
  std::string content = {};   // a file's bytes; a link's target
  bool hard = false;
  int mode = 0644;
  std::int64_t says = -1;     // a size other than the content's; the archive then ends here
};

class Unpack : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(top_ / "in");
    ASSERT_TRUE(write_file_atomic(top_ / "outside", "untouched"));
  }
  void TearDown() override {
    std::error_code ignored;
    fs::remove_all(top_, ignored);
  }
  fs::path write(const std::vector<Entry>& entries, int filter = ARCHIVE_FILTER_NONE, const std::string& name = "a.tar") {
    const fs::path path = top_ / name;
    archive* to = ::archive_write_new();
    ::archive_write_set_format_gnutar(to);
    ::archive_write_add_filter(to, filter);
    ::archive_write_set_bytes_per_block(to, 0);
    EXPECT_EQ(::archive_write_open_filename(to, path.c_str()), ARCHIVE_OK);
    for (const Entry& one : entries) {
      archive_entry* entry = ::archive_entry_new();
      ::archive_entry_set_pathname(entry, one.name.c_str());
      ::archive_entry_set_filetype(entry, one.type);
      ::archive_entry_set_perm(entry, static_cast<__LA_MODE_T>(one.mode));
      ::archive_entry_set_mtime(entry, 1'000'000'000, 0);
      const bool file = one.type == AE_IFREG && !one.hard;
      ::archive_entry_set_size(entry, file ? (one.says < 0 ? std::ssize(one.content) : one.says) : 0);
      if (one.hard)
        ::archive_entry_set_hardlink(entry, one.content.c_str());
      else if (one.type == AE_IFLNK)
        ::archive_entry_set_symlink(entry, one.content.c_str());
      EXPECT_GE(::archive_write_header(to, entry), ARCHIVE_WARN) << ::archive_error_string(to);
      if (file) ::archive_write_data(to, one.content.data(), one.content.size());
      ::archive_entry_free(entry);
      if (one.says >= 0) ::archive_write_fail(to);  // or it would write as many bytes
    }
    ::archive_write_free(to);
    return path;
  }
  Result<void> unpack(const std::vector<Entry>& entries, UnpackLimits limits = {}) {
    fs::remove_all(root_);
    return unpack_root(write(entries), root_, limits);
  }
  void expect_refused(const std::vector<Entry>& entries, const std::string& why, UnpackLimits limits = {}) {
    const auto done = unpack(entries, limits);
    ASSERT_FALSE(done) << why;
    EXPECT_NE(done.error().message.find(why), std::string::npos) << done.error().message;
    EXPECT_EQ(*read_file(top_ / "outside"), "untouched");
    EXPECT_EQ(fs::hard_link_count(top_ / "outside"), 1u);
    for (const auto& entry : fs::directory_iterator(top_)) {
      const std::string name = entry.path().filename();
      EXPECT_TRUE(name == "in" || name == "outside" || name == "a.tar") << name << " was made outside";
    }
  }

  const fs::path top_ = fs::temp_directory_path() / ("capstan-unpack-" + random_hex(6));
  const fs::path root_ = top_ / "in/root";
};

TEST_F(Unpack, FilesLinksModesAndTimesArriveFromEachCompression) {
  const std::vector<Entry> entries = {{"./", AE_IFDIR, {}, false, 0755},
                                      {"usr/lib/", AE_IFDIR, {}, false, 0750},
                                      {"lib", AE_IFLNK, "usr/lib"},
                                      {"lib/through-the-link", AE_IFREG, "text", false, 0755},
                                      {"usr/bin/set-user", AE_IFREG, "", false, 04755},
                                      {"usr/bin/again", AE_IFREG, "usr/lib/through-the-link", true},
                                      {"usr/bin/absolute", AE_IFLNK, "/usr/bin/again"},
                                      {"usr/bin/up", AE_IFLNK, "../lib/through-the-link"},
                                      {"n\xc3\xa4me", AE_IFREG, "utf-8"},
                                      {"usr/lib/through-the-link.bak", AE_IFREG, "first"},
                                      {"usr/lib/through-the-link.bak", AE_IFREG, "second"}};
  for (const int filter : {ARCHIVE_FILTER_NONE, ARCHIVE_FILTER_GZIP, ARCHIVE_FILTER_ZSTD}) {
    fs::remove_all(root_);
    const auto done = unpack_root(write(entries, filter), root_, {});
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_EQ(*read_file(root_ / "usr/lib/through-the-link"), "text");
    EXPECT_EQ(fs::hard_link_count(root_ / "usr/bin/again"), 2u);
    EXPECT_EQ(fs::read_symlink(root_ / "usr/bin/absolute"), "/usr/bin/again");
    EXPECT_EQ(*read_file(root_ / "n\xc3\xa4me"), "utf-8");
    EXPECT_EQ(*read_file(root_ / "usr/lib/through-the-link.bak"), "second");
    struct stat found {};
    ASSERT_EQ(::stat((root_ / "usr/bin/set-user").c_str(), &found), 0);
    EXPECT_EQ(found.st_mode & 07777, 0755u);
    EXPECT_EQ(found.st_mtim.tv_sec, 1'000'000'000);
    EXPECT_TRUE(fs::is_directory(root_ / "proc") && fs::is_directory(root_ / "work"));
    EXPECT_EQ(fs::read_symlink(root_ / "home/user"), "/work");
  }
}

TEST_F(Unpack, NamesAndLinksThatLeaveAreRefused) {
  expect_refused({{"/etc/evil"}}, "absolute name");
  expect_refused({{"../outside", AE_IFREG, "evil"}}, "leads out");
  expect_refused({{"a/../../outside", AE_IFREG, "evil"}}, "leads out");
  expect_refused({{"a", AE_IFLNK, "../../outside"}}, "leads out");
  expect_refused({{"d/a", AE_IFLNK, "x/../../../outside"}}, "leads out");
  expect_refused({{"a", AE_IFREG, "../outside", true}}, "leads out");
  expect_refused({{"a", AE_IFREG, "/etc/passwd", true}}, "absolute name");
  expect_refused({{"a", AE_IFREG, "missing", true}}, "no file before it");
}

// Absolute links are the sandbox's own: what is written through them lands in the root, or nowhere.
TEST_F(Unpack, WritingThroughALinkStaysInTheRoot) {
  expect_refused({{"door", AE_IFLNK, top_.string()}, {"door/outside", AE_IFREG, "evil"}}, "leads nowhere");
  const auto done = unpack({{"door", AE_IFLNK, "/" }, {"door/outside", AE_IFREG, "mine"}, {"x/door", AE_IFLNK, "/x"},
                            {"outside", AE_IFLNK, top_ / "outside"}, {"outside", AE_IFREG, "over the link"}});
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(*read_file(root_ / "outside"), "over the link");
  EXPECT_EQ(*read_file(top_ / "outside"), "untouched");
  expect_refused({{"secret", AE_IFLNK, top_ / "outside"}, {"copy", AE_IFREG, "secret/x", true}}, "no directory");
}

TEST_F(Unpack, DevicesPipesAndDirectoriesInThePlaceOfFilesAreRefused) {
  expect_refused({{"dev/null", AE_IFCHR}}, "device");
  expect_refused({{"dev/sda", AE_IFBLK}}, "device");
  expect_refused({{"pipe", AE_IFIFO}}, "device, pipe");
  expect_refused({{"a", AE_IFREG, "x"}, {"a/b", AE_IFREG, "y"}}, "no directory");
  expect_refused({{"a/b", AE_IFREG, "x"}, {"a", AE_IFREG, "y"}}, "cannot replace");
  expect_refused({{"a", AE_IFREG, "x"}, {"a", AE_IFDIR}}, "file and a directory");
  expect_refused({{"proc", AE_IFLNK, "/etc"}}, "'proc' is no directory");
}

TEST_F(Unpack, BoundsOnBytesAndEntriesAndDepthHold) {
  expect_refused({{"a", AE_IFREG, std::string(600, 'x')}, {"b", AE_IFREG, std::string(600, 'x')}}, "more than 1000 bytes",
                 {.bytes_max = 1000});
  expect_refused({{"a", AE_IFREG, "", false, 0644, std::int64_t{1} << 50}}, "bytes unpacked");
  expect_refused({{"a"}, {"b"}, {"c"}}, "more than 2 entries", {.entries_max = 2});
  std::string deep;
  for (int i = 0; i < 70; ++i) deep += "d/";
  expect_refused({{deep + "f"}}, "directories deep");
}

TEST_F(Unpack, WhatIsNoWholeArchiveIsRefused) {
  const fs::path path = write({{"a", AE_IFREG, std::string(100'000, 'x')}});
  fs::resize_file(path, 50'000);
  const auto torn = unpack_root(path, root_, {});
  ASSERT_FALSE(torn);
  EXPECT_EQ(torn.error().code, Code::kInvalid);
  ASSERT_TRUE(write_file_atomic(path, "no archive at all"));
  EXPECT_FALSE(unpack_root(path, root_, {}));
  EXPECT_EQ(unpack_root(top_ / "missing", root_, {}).error().code, Code::kNotFound);
}

TEST_F(Unpack, ARootIsUnpackedOncePerContentAndRemovedWhenNothingNamesIt) {
  const fs::path store = top_ / "roots";
  const std::string first = write({{"f", AE_IFREG, "1"}}, ARCHIVE_FILTER_NONE, "1.tar");
  const std::string same = write({{"f", AE_IFREG, "1"}}, ARCHIVE_FILTER_NONE, "same.tar");
  fs::path directory;
  {
    ImageRoots roots(store);
    directory = *roots.find(first);
    EXPECT_EQ(*roots.find(same), directory);
    ASSERT_TRUE(write_file_atomic(directory / "mark", ""));
    EXPECT_EQ(*roots.find(first), directory);
    fs::remove(first);
    write({{"f", AE_IFREG, "2"}}, ARCHIVE_FILTER_NONE, "1.tar");
    const auto second = roots.find(first);
    ASSERT_TRUE(second);
    EXPECT_NE(*second, directory);
    EXPECT_EQ(*read_file(*second / "f"), "2");
    const std::string bad = write({{"../f"}}, ARCHIVE_FILTER_NONE, "bad.tar");
    EXPECT_FALSE(roots.find(bad));
    EXPECT_FALSE(roots.find(bad));
  }
  ImageRoots again(store);
  again.keep_only({same, "/no/such.tar"});
  EXPECT_EQ(*again.find(same), directory);
  EXPECT_TRUE(fs::exists(directory / "mark"));  // not unpacked again
  std::size_t left = 0;
  for (const auto& entry : fs::directory_iterator(store)) left += entry.is_directory() ? 1 : 0;
  EXPECT_EQ(left, 1u);
}

}  // namespace
}  // namespace capstan::agents
