#include <gtest/gtest.h>

#include <filesystem>

#include "base/build_id.h"
#include "base/file.h"
#include "base/prng.h"
#include "base/result.h"
#include "base/sha256.h"
#include "base/text.h"

namespace capstan {
namespace {

Result<int> half(int value) {
  if (value % 2 != 0) return fail(Code::kInvalid, "{} is odd", value);
  return value / 2;
}

Result<int> quarter(int value) {
  CAPSTAN_TRY(const int once, half(value));
  return half(once);
}

// Goal: an error passes through CAPSTAN_TRY unchanged, a value is unwrapped.
TEST(ResultTest, TryReturnsTheErrorOrUnwrapsTheValue) {
  EXPECT_EQ(quarter(12).value(), 3);
  EXPECT_EQ(quarter(6).error().message, "3 is odd");
}

TEST(ResultTest, FullDiskIsExhausted) {
  EXPECT_EQ(fail_errno("cannot write x", ENOSPC).error().code, Code::kExhausted);
}

TEST(TextTest, NearestFindsATypoAndRefusesAStranger) {
  const std::string_view keys[] = {"replicas", "command", "port"};
  EXPECT_EQ(nearest("relicas", keys), "replicas");
  EXPECT_EQ(nearest("frobnicate", keys), std::nullopt);
}

TEST(TextTest, Utf8LengthRefusesOverlongAndSurrogates) {
  EXPECT_EQ(utf8_sequence_length("é"), 2u);
  EXPECT_EQ(utf8_sequence_length("\xC0\x80"), 0u);
  EXPECT_EQ(utf8_sequence_length("\xED\xA0\x80"), 0u);
  EXPECT_EQ(utf8_sequence_length("\xE2\x82"), 0u);
}

// Goal: a replaced file is whole, and no temporary file stays behind.
TEST(FileTest, AtomicWriteReplacesAndLeavesNothingElse) {
  const auto directory = std::filesystem::temp_directory_path() / ("capstan-" + random_hex(6));
  ASSERT_TRUE(make_directories(directory, 0700));
  ASSERT_TRUE(write_file_atomic(directory / "a", "one"));
  ASSERT_TRUE(write_file_atomic(directory / "a", "two", 0600));
  EXPECT_EQ(read_file(directory / "a").value(), "two");
  EXPECT_EQ(read_file(directory / "a", 2).error().code, Code::kExhausted);
  EXPECT_EQ(read_file(directory / "b").error().code, Code::kNotFound);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory), {}), 1);
  std::filesystem::remove_all(directory);
}

TEST(BuildIdTest, NamesTheRunningProgram) {
  EXPECT_EQ(build_id().size(), 12u);
  EXPECT_NE(build_id(), "unknown");
}

TEST(Sha256Test, KnownVector) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

// Goal: the sequence is fixed for ever (checkpoints and data order depend on it).
TEST(PrngTest, SequenceIsFixed) {
  Prng prng(0);
  EXPECT_EQ(prng.next(), 0xE220A8397B1DCDAFu);
  EXPECT_EQ(prng.next(), 0x6E789E6AA1B965F4u);
  for (int i = 0; i < 1000; ++i) EXPECT_LT(prng.below(7), 7u);
}

}  // namespace
}  // namespace capstan
