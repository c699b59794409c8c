// Goal: packed products agree bit for bit between instruction sets and with their scalar twin, in every
// batch; packing keeps MXFP4 exactly and rounds the rest by no more than half a step.
#include "engine/kernels/packed.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/prng.h"

namespace capstan::engine {
namespace {

struct Aligned {
  explicit Aligned(std::size_t size) : raw(size + 64) {}
  std::uint8_t* data() { return raw.data() + (64 - reinterpret_cast<std::uintptr_t>(raw.data()) % 64) % 64; }
  std::vector<std::uint8_t> raw;
};

float uniform(Prng& prng) { return static_cast<float>(prng.below(20'001)) / 10'000.0f - 1.0f; }

struct Kind {
  PackedType type;
  ActivationBits inputs = ActivationBits::k15;
};

struct Case {
  Case(Kind kind, int rows, int cols, int tokens, std::uint64_t seed)
      : prng(seed), type(kind.type), inputs(kind.inputs), packed(packed_bytes(type, rows, cols)) {
    const auto count = static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols);
    if (type == PackedType::kMxfp4) {
      for (std::size_t i = 0; i < count / 2; ++i) bytes.push_back(static_cast<std::uint8_t>(prng.below(256)));
      for (std::size_t i = 0; i < count / 32; ++i)
        scales.push_back(static_cast<std::uint8_t>(prng.between(118, 130)));
      stored = {.type = WeightType::kMxfp4,
                .rows = rows,
                .cols = cols,
                .data = bytes.data(),
                .scales = scales.data()};
    } else {
      for (std::size_t i = 0; i < count; ++i) numbers.push_back(uniform(prng));
      stored = {.type = WeightType::kF32,
                .rows = rows,
                .cols = cols,
                .data = reinterpret_cast<const std::uint8_t*>(numbers.data())};
    }
    pack_panels(stored, type, 0, panels(rows), packed.data());
    weight = {type, rows, cols, packed.data()};
    for (int i = 0; i < tokens * cols; ++i) x.push_back(uniform(prng));
    for (int i = 0; i < rows; ++i) bias.push_back(uniform(prng));
  }
  std::vector<float> product(int first, int tokens, ThreadPool& pool) {
    const int cols = weight.cols, all = static_cast<int>(x.size()) / cols;
    q.reset(tokens, cols, inputs);
    for (int i = 0; i < tokens; ++i) q.set_row(i, x.data() + static_cast<std::ptrdiff_t>(first + i) * cols);
    EXPECT_LE(first + tokens, all);
    std::vector<float> out(static_cast<std::size_t>(tokens) * static_cast<std::size_t>(weight.rows), 1.0f);
    const PackedTask task{.weight = weight,
                          .bias = bias.data(),
                          .x = &q,
                          .tokens = tokens,
                          .out = out.data(),
                          .out_stride = static_cast<std::size_t>(weight.rows)};
    packed_matmul(std::span(&task, 1), pool);
    return out;
  }

  Prng prng;
  PackedType type;
  ActivationBits inputs;
  std::vector<std::uint8_t> bytes, scales;
  std::vector<float> numbers, x, bias;
  WeightView stored;
  Aligned packed;
  PackedMatrix weight;
  QuantizedRows q;
};

class PackedTest : public testing::TestWithParam<Kind> {
 protected:
  ~PackedTest() override { (void)use_isa("auto"); }
  ThreadPool pool_{2};
};

TEST_P(PackedTest, KeepsOrRoundsTheWeights) {
  Case one(GetParam(), 37, 96, 1, 7);
  for (int row = 0; row < 37; ++row) {
    for (int block = 0; block < 3; ++block) {
      float most = 0;
      for (int i = 0; i < 32; ++i)
        most = std::max(most, std::abs(weight_at(one.stored, row, block * 32 + i)));
      const float largest = one.type == PackedType::kInt4    ? 7
                            : one.type == PackedType::kInt8  ? 127
                            : one.type == PackedType::kInt10 ? 508
                                                             : 2032;
      const float step = one.type == PackedType::kMxfp4 ? 0 : most / largest;
      for (int col = block * 32; col < block * 32 + 32; ++col)
        ASSERT_NEAR(packed_at(one.weight, row, col), weight_at(one.stored, row, col),
                    step * 0.51f + most * 0.001f * (step > 0));
    }
  }
}

TEST_P(PackedTest, EveryInstructionSetGivesTheTwinsBits) {
  for (const auto& [rows, cols, tokens] :
       {std::tuple(16, 32, 1), std::tuple(45, 160, 31), std::tuple(64, 2'880, 3), std::tuple(7, 64, 16),
        std::tuple(33, 96, 71), std::tuple(150, 320, 70), std::tuple(20, 128, 77), std::tuple(150, 96, 135),
        std::tuple(17, 64, 269), std::tuple(16, 128, 4), std::tuple(16, 64, 6)}) {
    Case one(GetParam(), rows, cols, tokens, static_cast<std::uint64_t>(rows));
    ASSERT_TRUE(use_isa("scalar"));
    const auto twin = one.product(0, tokens, pool_);
    for (const Isa isa : {Isa::kAvx2, Isa::kAvx512Vnni, Isa::kAmx}) {
      if (!use_isa(isa_name(isa))) continue;
      const auto out = one.product(0, tokens, pool_);
      ASSERT_EQ(out, twin) << isa_name(isa) << " " << rows << "x" << cols << " tokens " << tokens;
      // A token alone has the bits that it has among others.
      const auto last = one.product(tokens - 1, 1, pool_);
      ASSERT_TRUE(std::equal(last.begin(), last.end(), out.end() - rows));
    }
  }
}

// Goal: no way to cut tokens into tiles, and no place in the inputs where they begin, shows in the bits.
TEST_P(PackedTest, EveryNumberOfTokensFromEveryTileGivesTheTwinsBits) {
  constexpr int kRows = 23, kTokens = 33 + 16;
  Case one(GetParam(), kRows, 96, kTokens, 11);
  ASSERT_TRUE(use_isa("scalar"));
  const auto twin = one.product(0, kTokens, pool_);
  for (const Isa isa : {Isa::kAvx2, Isa::kAvx512Vnni, Isa::kAmx}) {
    if (!use_isa(isa_name(isa))) continue;
    (void)one.product(0, kTokens, pool_);  // leaves the inputs in this set's form
    for (const int first : {0, 16}) {
      for (int tokens = 1; tokens <= 33; ++tokens) {
        std::vector<float> out(static_cast<std::size_t>(tokens) * kRows, 3.0f), expected(out);
        const PackedTask task{.weight = one.weight,
                              .bias = one.bias.data(),
                              .x = &one.q,
                              .first = first,
                              .tokens = tokens,
                              .out = out.data(),
                              .out_stride = kRows,
                              .accumulate = true};
        packed_matmul(std::span(&task, 1), pool_);
        for (std::size_t i = 0; i < out.size(); ++i) expected[i] += twin[i + static_cast<std::size_t>(first) * kRows];
        ASSERT_EQ(out, expected) << isa_name(isa) << " tokens " << tokens << " from " << first;
      }
    }
  }
}

// Goal: sums of 31 bits, of either sign, neither saturate nor wrap.
TEST_P(PackedTest, TheLargestNumbersGiveTheTwinsBits) {
  for (const float weight : {1.0f, -1.0f}) {
    for (const float input : {1.0f, -1.0f}) {
      Case one(GetParam(), 16, 64, 17, 5);
      std::ranges::fill(one.numbers, weight);
      std::ranges::fill(one.bytes, weight > 0 ? std::uint8_t{0x77} : std::uint8_t{0xFF});
      std::ranges::fill(one.x, input);
      std::ranges::fill(one.bias, 0.0f);
      pack_panels(one.stored, one.type, 0, 1, one.packed.data());
      ASSERT_TRUE(use_isa("scalar"));
      const auto twin = one.product(0, 17, pool_);
      const float exact = 32 * input * (packed_at(one.weight, 3, 0) + packed_at(one.weight, 3, 32));
      ASSERT_NEAR(twin[3], exact, 1e-5f * std::abs(exact));
      for (const Isa isa : {Isa::kAvx2, Isa::kAvx512Vnni, Isa::kAmx}) {
        if (!use_isa(isa_name(isa))) continue;
        for (const int tokens : {1, 2, 7, 17}) {
          const auto out = one.product(0, tokens, pool_);
          ASSERT_TRUE(std::equal(out.begin(), out.end(), twin.begin())) << isa_name(isa) << " tokens " << tokens;
        }
      }
    }
  }
}

TEST_P(PackedTest, ComesNearTheProductOfWhatWasStored) {
  Case one(GetParam(), 32, 640, 5, 3);
  const auto out = one.product(0, 5, pool_);
  for (int t = 0; t < 5; ++t) {
    for (int row = 0; row < 32; ++row) {
      double exact = one.bias[static_cast<std::size_t>(row)], size = 0;
      for (int c = 0; c < 640; ++c) {
        const double term =
            static_cast<double>(packed_at(one.weight, row, c)) * one.x[static_cast<std::size_t>(t * 640 + c)];
        exact += term;
        size += term * term;
      }
      const double rounding = one.inputs == ActivationBits::k8 ? 2e-2 : 2e-4;
      ASSERT_NEAR(out[static_cast<std::size_t>(t * 32 + row)], exact, rounding * std::sqrt(size) + 1e-4);
    }
  }
}

// Goal: the largest sums that 8-bit inputs can make, of either sign, are exact although they pass through 16 bits.
TEST(PackedBytes, TheLargestSumsAreExact) {
  for (const int nibble : {7, 15, 0, 8}) {
    for (const float sign : {1.0f, -1.0f}) {
      Case one({PackedType::kMxfp4, ActivationBits::k8}, 16, 64, 6, 1);
      for (auto& byte : one.bytes) byte = static_cast<std::uint8_t>(nibble * 17);
      std::ranges::fill(one.scales, std::uint8_t{127});
      std::ranges::fill(one.x, sign);
      std::ranges::fill(one.bias, 0.0f);
      pack_panels(one.stored, PackedType::kMxfp4, 0, 1, one.packed.data());
      ThreadPool pool(1);
      for (const std::string_view isa : {"scalar", "avx2", "avx512-vnni", "amx"}) {
        if (!use_isa(isa)) continue;
        for (const int tokens : {1, 6}) {
          for (const float value : one.product(0, tokens, pool))
            ASSERT_NEAR(value, 64 * sign * packed_at(one.weight, 0, 0), 1e-3) << isa << " nibble " << nibble;
        }
      }
      (void)use_isa("auto");
    }
  }
}

// What is not MXFP4 is rounded to it: no scale and no numbers of the format are nearer to a block as a whole.
TEST(Packing, NumbersAreRoundedToMxfp4) {
  constexpr int kRows = 5, kCols = 96;
  constexpr float kGrid[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  Prng prng(3);
  std::vector<float> numbers;
  for (int i = 0; i < kRows * kCols; ++i)
    numbers.push_back(i / 32 == 4 ? 0 : std::ldexp(uniform(prng) * uniform(prng), static_cast<int>(prng.below(3)) - 7));
  const WeightView view{.type = WeightType::kF32,
                        .rows = kRows,
                        .cols = kCols,
                        .data = reinterpret_cast<const std::uint8_t*>(numbers.data())};
  Aligned bytes(packed_bytes(PackedType::kMxfp4, kRows, kCols));
  pack_panels(view, PackedType::kMxfp4, 0, 1, bytes.data());
  const PackedMatrix packed{PackedType::kMxfp4, kRows, kCols, bytes.data()};
  double lost = 0, all = 0;
  for (int row = 0; row < kRows; ++row) {
    for (int block = 0; block < kCols / 32; ++block) {
      const float* values = &numbers[static_cast<std::size_t>(row * kCols + block * 32)];
      float best = INFINITY, loss = 0;
      for (int exponent = -20; exponent <= 2; ++exponent) {
        float sum = 0;
        for (int i = 0; i < 32; ++i) {
          float nearest = INFINITY;
          for (const float size : kGrid)
            nearest = std::min(nearest, std::fabs(std::fabs(values[i]) - std::ldexp(size, exponent)));
          sum += nearest * nearest;
        }
        best = std::min(best, sum);
      }
      for (int i = 0; i < 32; ++i) {
        const float off = packed_at(packed, row, block * 32 + i) - values[i];
        loss += off * off;
        all += values[i] * values[i];
      }
      EXPECT_LE(loss, best * 1.0001f) << row << " " << block;
      lost += loss;
    }
  }
  EXPECT_LT(std::sqrt(lost / all), 0.15);
}

INSTANTIATE_TEST_SUITE_P(Types, PackedTest,
                         testing::Values(Kind{PackedType::kMxfp4}, Kind{PackedType::kMxfp4, ActivationBits::k8},
                                         Kind{PackedType::kInt4}, Kind{PackedType::kInt8}, Kind{PackedType::kInt10},
                                         Kind{PackedType::kInt12}),
                         [](const auto& kind) {
                           return std::string(packed_type_name(kind.param.type)) +
                                  (kind.param.inputs == ActivationBits::k8 ? "_inputs_of_8_bits" : "");
                         });

TEST(Isa, UnknownOnesAreRefused) {
  EXPECT_FALSE(use_isa("sse9"));
  EXPECT_TRUE(use_isa("auto"));
  EXPECT_EQ(current_isa(), best_isa());
}

}  // namespace
}  // namespace capstan::engine
