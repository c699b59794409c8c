// Goal: the kernels of every instruction set that this CPU has compute the formulas.
// Method: each table against f64 on random data; widths that are no multiple of a vector or of a piece.
#include "trainer/model/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/prng.h"

namespace capstan::trainer {
namespace {

std::vector<const Kernels<float>*> tables() {
  std::vector<const Kernels<float>*> out{&baseline::table<float>()};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) out.push_back(&avx2::table<float>());
#endif
  if (&kernels<float>() != out.back()) out.push_back(&kernels<float>());
  return out;
}

std::vector<float> random_values(std::size_t count, double scale, std::uint64_t seed) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    values[i] =
        static_cast<float>(scale * (static_cast<double>(Prng::at(seed, i) >> 11) / 4503599627370496.0 - 1.0));
  }
  return values;
}

// RMSNorm's gradient by its formula; 1100 columns are three pieces.
TEST(Kernels, NormBackwardOfAWideRowIsTheFormula) {
  constexpr int kWidth = 1100, kRows = 3;
  const auto x = random_values(kRows * kWidth, 2.0, 1), g = random_values(kRows * kWidth, 1.0, 2),
             weight = random_values(kWidth, 1.0, 3), before = random_values(kRows * kWidth, 1.0, 4);
  for (const Kernels<float>* table : tables()) {
    std::vector<float> normed(x.size()), inverse(kRows), dx = before, dweight(kWidth, 0.0f), cast(x.size());
    table->norm(x.data(), nullptr, weight.data(), 1e-5f, kRows, kWidth, normed.data(), inverse.data());
    table->norm_backward(g.data(), nullptr, nullptr, 0, x.data(), nullptr, inverse.data(), weight.data(),
                         kRows, kWidth, dx.data(), dweight.data(), cast.data(), nullptr);
    EXPECT_EQ(cast, dx);
    std::vector<double> expected_dweight(kWidth, 0.0);
    for (int r = 0; r < kRows; ++r) {
      double squares = 0.0, dot = 0.0;
      for (int i = 0; i < kWidth; ++i) {
        const int at = r * kWidth + i;
        squares += double{x[at]} * x[at], dot += double{g[at]} * weight[i] * x[at];
      }
      const double scale = 1.0 / std::sqrt(squares / kWidth + 1e-5);
      for (int i = 0; i < kWidth; ++i) {
        const int at = r * kWidth + i;
        const double step = scale * (double{g[at]} * weight[i] - x[at] * scale * scale * dot / kWidth);
        ASSERT_NEAR(dx[at], before[at] + step, 2e-6) << at;
        ASSERT_NEAR(normed[at], x[at] * scale * weight[i], 2e-6) << at;
        expected_dweight[i] += double{g[at]} * x[at] * scale;
      }
    }
    for (int i = 0; i < kWidth; ++i) ASSERT_NEAR(dweight[i], expected_dweight[i], 1e-5) << i;
  }
}

TEST(Kernels, SwigluIsTheFormulaFarBeyondItsLimits) {
  constexpr int kWidth = 37, kRows = 5;
  const auto in = random_values(kRows * kWidth * 2, 60.0, 5);
  for (const Kernels<float>* table : tables()) {
    std::vector<float> out(kRows * kWidth);
    table->swiglu(in.data(), kRows, kWidth, 7.0f, out.data());
    for (int i = 0; i < kRows * kWidth; ++i) {
      const double gate = std::min<double>(in[2 * i], 7.0), up = std::clamp<double>(in[2 * i + 1], -7.0, 7.0);
      const double expected = gate / (1.0 + std::exp(-1.702 * gate)) * (up + 1.0);
      ASSERT_NEAR(out[i], expected, 1e-6 * std::abs(expected) + 1e-14) << gate << " " << up;
    }
  }
}

TEST(Kernels, SoftmaxSeesItsWindowAndItsSinkOnly) {
  constexpr int kRows = 20, kColumns = 64;
  const auto scores = random_values(kRows * kColumns, 30.0, 6);
  const ScoreBlock block{kRows, kColumns, kColumns, 41, 32, 15, 0.5f};
  for (const Kernels<float>* table : tables()) {
    std::vector<float> p(scores.size(), 9.0f), lse(kRows);
    table->softmax(block, scores.data(), 0.7f, p.data(), lse.data(), 1);
    for (int r = 0; r < kRows; ++r) {
      auto seen = [&](int j) { return 32 + j <= 41 + r && 32 + j > 41 + r - 15; };
      double sum = std::exp(0.7f);
      for (int j = 0; j < kColumns; ++j) sum += seen(j) ? std::exp(0.5 * scores[r * kColumns + j]) : 0.0;
      EXPECT_NEAR(lse[r], std::log(sum), 2e-6);
      for (int j = 0; j < kColumns; ++j) {
        const double expected = seen(j) ? std::exp(0.5 * scores[r * kColumns + j]) / sum : 0.0;
        ASSERT_NEAR(p[r * kColumns + j], expected, 2e-6) << r << " " << j;
      }
    }
  }
}

TEST(Kernels, CrossEntropyIsTheFormulaAlsoForLargeLogits) {
  constexpr int kRows = 4, kWidth = 83;
  const auto logits = random_values(kRows * kWidth, 80.0, 7);
  const std::vector<std::int32_t> target{0, 82, 40, 17};
  for (const Kernels<float>* table : tables()) {
    double loss = 0.0, expected_loss = 0.0;
    std::int64_t correct = 0;
    std::vector<float> gradient(logits.size());
    table->cross_entropy(logits.data(), target.data(), kRows, kWidth, 0.25f, gradient.data(), &loss,
                         &correct);
    for (int r = 0; r < kRows; ++r) {
      double sum = 0.0;
      for (int i = 0; i < kWidth; ++i) sum += std::exp(double{logits[r * kWidth + i]});
      expected_loss += std::log(sum) - logits[r * kWidth + target[r]];
      for (int i = 0; i < kWidth; ++i) {
        const double expected = 0.25 * (std::exp(double{logits[r * kWidth + i]}) / sum - (i == target[r]));
        ASSERT_NEAR(gradient[r * kWidth + i], expected, 1e-6) << r << " " << i;
      }
    }
    EXPECT_NEAR(loss, expected_loss, 1e-5 * expected_loss);
  }
}

// The Bf16 table must be the f32 table between roundings.
TEST(Kernels, Bf16SwigluRoundsTheF32Result) {
  constexpr int kCount = 61;
  const auto values = random_values(2 * kCount, 5.0, 8);
  std::vector<Bf16> in(values.size()), out(kCount), expected(kCount);
  std::vector<float> rounded(values.size()), exact(kCount);
  const Kernels<Bf16>& table = kernels<Bf16>();
  table.cast(values.data(), in.data(), values.size());
  for (std::size_t i = 0; i < in.size(); ++i) {
    rounded[i] = __builtin_bit_cast(float, static_cast<std::uint32_t>(in[i].bits) << 16);
    EXPECT_NEAR(rounded[i], values[i], std::abs(values[i]) / 256);
  }
  table.swiglu(in.data(), 1, kCount, 7.0f, out.data());
  kernels<float>().swiglu(rounded.data(), 1, kCount, 7.0f, exact.data());
  for (int i = 0; i < kCount; ++i) {
    const float got = __builtin_bit_cast(float, static_cast<std::uint32_t>(out[i].bits) << 16);
    EXPECT_NEAR(got, exact[i], std::abs(exact[i]) / 256) << i;
  }
}

}  // namespace
}  // namespace capstan::trainer
