// Goal: the quantiser picks the best block there is, and the writer's file is a valid safetensors file.
// Method: twins that try every code and every scale; the file is parsed again byte by byte.
#include "trainer/mxfp4.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

#include "base/file.h"
#include "base/json.h"
#include "base/prng.h"
#include "trainer/safetensors_writer.h"

namespace capstan::trainer {
namespace {

using Values = std::array<float, kMxfp4BlockValues>;

double squared_error(const Values& a, const Values& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    sum += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
  return sum;
}

// The least error that any scale and any codes can reach.
double best_possible_error(const Values& values) {
  double best = std::numeric_limits<double>::infinity();
  for (int scale = 0; scale <= 254; ++scale) {
    double sum = 0;
    for (const float value : values) {
      double least = std::numeric_limits<double>::infinity();
      for (const float magnitude : kE2m1Values) {
        const double difference = std::fabs(value) - std::ldexp(static_cast<double>(magnitude), scale - 127);
        least = std::min(least, difference * difference);
      }
      sum += least;
    }
    best = std::min(best, sum);
  }
  return best;
}

TEST(Mxfp4Test, NoOtherScaleOrCodeGivesASmallerError) {
  Prng prng(11);
  for (int round = 0; round < 200; ++round) {
    Values values{};
    const int spread = static_cast<int>(prng.below(12));
    const int magnitude = static_cast<int>(prng.between(-40, 20));
    for (float& value : values) {
      const double unit = static_cast<double>(prng.between(-1'000'000, 1'000'000)) / 1e6;
      value = static_cast<float>(std::ldexp(unit, magnitude - static_cast<int>(prng.below(spread + 1))));
    }
    const double error = squared_error(values, dequantize_mxfp4(quantize_mxfp4(values)));
    EXPECT_LE(error, best_possible_error(values) * (1 + 1e-9)) << round;
  }
}

TEST(Mxfp4Test, OneLargeValueAmongSmallOnesIsClippedWhenThatIsBetter) {
  Values values{};
  values.fill(1.25f);
  values[7] = 4.0f;
  const double error = squared_error(values, dequantize_mxfp4(quantize_mxfp4(values)));
  EXPECT_LE(error, best_possible_error(values) * (1 + 1e-9));
}

TEST(Mxfp4Test, RepresentableValuesComeBackExactlyWithTheLowNibbleFirst) {
  Values values{};
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = (i >= 16 ? -1.0f : 1.0f) * kE2m1Values[i % 8] * 0.125f;
  }
  const Mxfp4Block block = quantize_mxfp4(values);
  EXPECT_EQ(block.scale, 124);
  EXPECT_EQ(block.nibbles[0], 0x10);  // values 0 and 1: code 0 low, code 1 high
  EXPECT_EQ(block.nibbles[3], 0x76);
  EXPECT_EQ(block.nibbles[8], 0x90);  // -0 is stored as 0
  EXPECT_EQ(dequantize_mxfp4(block), values);
}

TEST(Mxfp4Test, TiesGoToTheEvenCodeAndLargeValuesSaturate) {
  EXPECT_EQ(nearest_e2m1(0.25f), 0);
  EXPECT_EQ(nearest_e2m1(0.75f), 2);
  EXPECT_EQ(nearest_e2m1(1.25f), 2);
  EXPECT_EQ(nearest_e2m1(1.75f), 4);
  EXPECT_EQ(nearest_e2m1(2.5f), 4);
  EXPECT_EQ(nearest_e2m1(3.5f), 6);
  EXPECT_EQ(nearest_e2m1(5.0f), 6);
  EXPECT_EQ(nearest_e2m1(100.0f), 7);
  EXPECT_EQ(nearest_e2m1(-100.0f), 15);
  EXPECT_EQ(nearest_e2m1(-0.1f), 0);
}

TEST(Mxfp4Test, ZeroAndTinyBlocksAreZeroOrFinite) {
  Values zeros{};
  EXPECT_EQ(dequantize_mxfp4(quantize_mxfp4(zeros)), zeros);
  Values tiny{};
  tiny[0] = std::numeric_limits<float>::denorm_min();
  for (const float value : dequantize_mxfp4(quantize_mxfp4(tiny))) EXPECT_TRUE(std::isfinite(value));
  Values huge{};
  huge.fill(std::numeric_limits<float>::max());
  for (const float value : dequantize_mxfp4(quantize_mxfp4(huge))) EXPECT_TRUE(std::isfinite(value));
}

TEST(SafetensorsTest, TheFileHoldsHeaderAndDataAsTheFormatSays) {
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("capstan-" + std::to_string(::getpid()) + ".safetensors");
  const std::vector<SafetensorsEntry> entries = {{"a",
                                                  TensorType::kU8,
                                                  {3},
                                                  [] {
                                                    return std::vector<std::uint8_t>{1, 2, 3};
                                                  }},
                                                 {"b.c", TensorType::kBf16, {2, 1}, [] {
                                                    return std::vector<std::uint8_t>{4, 5, 6, 7};
                                                  }}};
  ASSERT_TRUE(write_safetensors(path, entries));
  const std::string bytes = read_file(path).value();
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  EXPECT_EQ(length % 8, 0u);
  const Json header = Json::parse(std::string_view(bytes).substr(8, length)).value();
  EXPECT_EQ(header.find("a")->dump(), R"({"dtype":"U8","shape":[3],"data_offsets":[0,3]})");
  EXPECT_EQ(header.find("b.c")->dump(), R"({"dtype":"BF16","shape":[2,1],"data_offsets":[3,7]})");
  EXPECT_EQ(bytes.substr(8 + length), std::string("\1\2\3\4\5\6\7"));
  std::filesystem::remove(path);
}

TEST(SafetensorsTest, Bf16RoundsToNearestTiesToEven) {
  EXPECT_EQ(bf16_of(1.0f), 0x3F80);
  EXPECT_EQ(bf16_of(std::bit_cast<float>(0x3F808000u)), 0x3F80);
  EXPECT_EQ(bf16_of(std::bit_cast<float>(0x3F818000u)), 0x3F82);
  EXPECT_EQ(bf16_of(std::bit_cast<float>(0x3F808001u)), 0x3F81);
  EXPECT_EQ(bf16_of(-2.0f), 0xC000);
  EXPECT_EQ(bf16_of(std::numeric_limits<float>::infinity()), 0x7F80);
  EXPECT_NE(bf16_of(std::numeric_limits<float>::quiet_NaN()) & 0x7F, 0);
}

}  // namespace
}  // namespace capstan::trainer
