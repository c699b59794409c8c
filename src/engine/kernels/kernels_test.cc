// Goal: every kernel agrees with its scalar twin on every instruction set of this machine, at every shape of
// tail. Method: Highway is told to use one target after the other. Tolerances follow from the norms: a sum of
// n products in f32 is off by at most n * 2^-24 * sum |w x|; a tenth of that is never reached by the orders
// used here.
#include <gtest/gtest.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "base/prng.h"
#include "engine/kernels/attention.h"
#include "engine/kernels/elementwise.h"
#include "engine/kernels/matmul.h"
#include "hwy/targets.h"

namespace capstan::engine {
namespace {

std::vector<std::int64_t> targets() {
  hwy::SetSupportedTargetsForTest(0);
  std::vector<std::int64_t> list;
  for (std::int64_t rest = hwy::SupportedTargets() & HWY_TARGETS; rest != 0; rest &= rest - 1) {
    list.push_back(rest & -rest);
  }
  return list;
}

template <class Check>
void on_every_target(Check&& check) {
  const auto list = targets();
  ASSERT_FALSE(list.empty());
  for (std::int64_t target : list) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    check();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

float uniform(Prng& prng) { return static_cast<float>(static_cast<double>(prng.next() >> 11) * 0x1p-52 - 1); }

std::vector<float> uniforms(Prng& prng, std::size_t count, float spread = 1) {
  std::vector<float> values(count);
  for (float& v : values) v = spread * uniform(prng);
  return values;
}

struct StoredWeight {
  std::vector<std::uint8_t> data, scales;
  WeightView view;
};

StoredWeight random_weight(Prng& prng, WeightType type, bool input_major, int rows, int cols) {
  StoredWeight w;
  w.view = {.type = type, .input_major = input_major, .rows = rows, .cols = cols};
  const std::size_t count = static_cast<std::size_t>(rows) * cols;
  if (type == WeightType::kMxfp4) {
    for (std::size_t i = 0; i < count / 2; ++i) w.data.push_back(static_cast<std::uint8_t>(prng.next()));
    for (std::size_t i = 0; i < count / 32; ++i)
      w.scales.push_back(static_cast<std::uint8_t>(prng.between(120, 130)));
    w.view.scales = w.scales.data();
  } else {
    for (std::size_t i = 0; i < count; ++i) {
      const auto bits = std::bit_cast<std::uint32_t>(uniform(prng));
      // f16: sign, an exponent in 8..15, any mantissa.
      const auto f16 = static_cast<std::uint16_t>((prng.next() & 0x83ff) | (8 + prng.below(8)) << 10);
      const auto half = type == WeightType::kBf16 ? static_cast<std::uint16_t>(bits >> 16) : f16;
      const auto* from = type == WeightType::kF32 ? reinterpret_cast<const std::uint8_t*>(&bits)
                                                  : reinterpret_cast<const std::uint8_t*>(&half);
      w.data.insert(w.data.end(), from, from + bytes_per_element(type));
    }
  }
  w.view.data = w.data.data();
  return w;
}

struct Case {
  WeightType type;
  bool input_major;
  int rows, cols, tokens;
};

const Case kCases[] = {{WeightType::kMxfp4, false, 64, 96, 1},   {WeightType::kMxfp4, false, 45, 64, 7},
                       {WeightType::kMxfp4, false, 1, 32, 3},    {WeightType::kBf16, false, 70, 256, 1},
                       {WeightType::kBf16, false, 33, 51, 5},    {WeightType::kBf16, false, 5, 7, 2},
                       {WeightType::kBf16, true, 64, 40, 6},     {WeightType::kBf16, true, 51, 27, 1},
                       {WeightType::kBf16, true, 3, 5, 9},       {WeightType::kF16, false, 40, 65, 4},
                       {WeightType::kF16, true, 40, 65, 4},      {WeightType::kF32, false, 37, 100, 11},
                       {WeightType::kF32, true, 37, 100, 11},    {WeightType::kBf16, false, 9, 3, 13},
                       {WeightType::kMxfp4, false, 100, 2880, 2}};

TEST(Kernels, MatmulAgreesWithItsTwinOnEveryTarget) {
  on_every_target([] {
    Prng prng(1);
    ThreadPool pool(2);
    for (const Case& c : kCases) {
      SCOPED_TRACE(::testing::Message() << static_cast<int>(c.type) << " " << c.input_major << " " << c.rows
                                        << "x" << c.cols << " tokens " << c.tokens);
      const StoredWeight w = random_weight(prng, c.type, c.input_major, c.rows, c.cols);
      const auto x = uniforms(prng, static_cast<std::size_t>(c.tokens) * c.cols);
      const auto bias = uniforms(prng, c.rows);
      const auto start = uniforms(prng, static_cast<std::size_t>(c.tokens) * c.rows);
      for (const bool accumulate : {false, true}) {
        auto out = start, expected = start;
        MatmulTask task{.weight = w.view,
                        .bias = accumulate ? nullptr : bias.data(),
                        .x = x.data(),
                        .tokens = c.tokens,
                        .x_stride = static_cast<std::size_t>(c.cols),
                        .out = out.data(),
                        .out_stride = static_cast<std::size_t>(c.rows),
                        .accumulate = accumulate};
        matmul(std::span(&task, 1), pool);
        task.out = expected.data();
        matmul_scalar(task);
        for (std::size_t i = 0; i < out.size(); ++i) {
          double norm = 1;
          for (int j = 0; j < c.cols; ++j) {
            norm +=
                std::fabs(weight_at(w.view, static_cast<int>(i % c.rows), j) * x[i / c.rows * c.cols + j]);
          }
          ASSERT_NEAR(out[i], expected[i], norm * 1e-6) << "output " << i;
        }
      }
    }
  });
}

TEST(Kernels, AnOutputHasTheSameBitsForEveryNumberOfTokensAndThreads) {
  on_every_target([] {
    Prng prng(2);
    ThreadPool one(1), three(3);
    for (const Case& c : kCases) {
      const StoredWeight w = random_weight(prng, c.type, c.input_major, c.rows, c.cols);
      constexpr int kTokens = 11;
      const auto x = uniforms(prng, static_cast<std::size_t>(kTokens) * c.cols);
      std::vector<float> all(kTokens * c.rows), single(c.rows);
      const std::size_t cols = c.cols, rows = c.rows;
      MatmulTask task{.weight = w.view,
                      .x = x.data(),
                      .tokens = kTokens,
                      .x_stride = cols,
                      .out = all.data(),
                      .out_stride = rows};
      matmul(std::span(&task, 1), three);
      for (int t = 0; t < kTokens; ++t) {
        MatmulTask alone{.weight = w.view,
                         .x = &x[t * cols],
                         .tokens = 1,
                         .x_stride = cols,
                         .out = single.data(),
                         .out_stride = rows};
        matmul(std::span(&alone, 1), one);
        ASSERT_EQ(0, std::memcmp(single.data(), &all[t * rows], rows * sizeof(float))) << "token " << t;
      }
    }
  });
}

// Every nibble under every scale, subnormal and huge ones included: times one, the products are the values
// themselves.
TEST(Kernels, Mxfp4DecodesEveryValueExactly) {
  on_every_target([] {
    ThreadPool pool(1);
    for (int scale = 0; scale < 252; ++scale) {
      std::vector<std::uint8_t> data(16), scales{static_cast<std::uint8_t>(scale)};
      for (int i = 0; i < 16; ++i) data[i] = static_cast<std::uint8_t>(i | (15 - i) << 4);
      const WeightView w{
          .type = WeightType::kMxfp4, .rows = 1, .cols = 32, .data = data.data(), .scales = scales.data()};
      for (int i = 0; i < 32; ++i) {
        std::vector<float> x(32, 0.0f);
        x[i] = 1;
        float out = 99;
        const MatmulTask task{
            .weight = w, .x = x.data(), .tokens = 1, .x_stride = 32, .out = &out, .out_stride = 1};
        matmul(std::span(&task, 1), pool);
        ASSERT_EQ(out, weight_at(w, 0, i)) << "scale " << scale << " value " << i;
      }
    }
  });
}

float value_of(Half half) {
  const int exponent = half >> 10 & 31, mantissa = half & 1023;
  const float size = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                                   : std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
  return (half & 0x8000) != 0 ? -size : size;
}

// Goal: f16 pages are read exactly. Method: the same numbers as f32, which the test above trusts, must give the same bits.
TEST(Kernels, AttentionOverHalfPagesHasTheBitsOfTheSameNumbersInF32) {
  on_every_target([] {
    Prng prng(4);
    for (const int dim : {32, 64, 96}) {
      const auto q = uniforms(prng, 5 * dim, 3);
      std::vector<Half> keys(dim * kAttentionPage), values(keys.size());
      std::vector<float> exact_keys(keys.size()), exact_values(keys.size());
      for (auto [halves, floats] : {std::pair(&keys, &exact_keys), std::pair(&values, &exact_values)}) {
        to_half(uniforms(prng, static_cast<int>(keys.size())).data(), static_cast<int>(keys.size()), halves->data());
        for (std::size_t i = 0; i < keys.size(); ++i)
          (*floats)[i] = value_of((*halves)[i]);
      }
      std::vector<float> out[2];
      for (const bool half : {false, true}) {
        std::vector<float> accumulators(5 * dim);
        std::vector<AttentionQuery> queries(5);
        out[half].resize(5 * dim);
        for (int i = 0; i < 5; ++i) {
          queries[i].q = &q[i * dim];
          queries[i].accumulator = &accumulators[i * dim];
          start_attention(queries[i], dim, 0.5f);
          queries[i].begin = i;
          queries[i].end = 60 + i;
        }
        if (half) {
          attend_page(queries, dim, keys.data(), values.data());
        } else {
          attend_page(queries, dim, exact_keys.data(), exact_values.data());
        }
        for (int i = 0; i < 5; ++i) finish_attention(queries[i], dim, &out[half][i * dim]);
      }
      ASSERT_EQ(out[0], out[1]) << "dim " << dim;
    }
  });
}

TEST(Kernels, HalvesAreTheNearestAndLargeNumbersBecomeTheLargest) {
  on_every_target([] {
    std::vector<float> from(32);
    const std::vector<std::pair<float, Half>> known = {
        {0.0f, 0},          {1.0f, 0x3C00},     {-2.0f, 0xC000},  {65504.0f, 0x7BFF}, {1e9f, 0x7BFF},
        {-1e9f, 0xFBFF},    {1.0f / 3, 0x3555}, {0.1f, 0x2E66},   {65519.0f, 0x7BFF}, {1.00048828125f, 0x3C00},
        {1.00146484375f, 0x3C02},  // these two lie between two halves: the even one
        {0x1p-24f, 1},      {0x1.8p-24f, 2},    {0x1p-25f, 0},    {-0x1p-14f, 0x8400},
        {0x1.ffcp-15f, 0x400}, {0x1.ff8p-15f, 0x3FF}};
    for (std::size_t i = 0; i < known.size(); ++i) from[i] = known[i].first;
    std::vector<Half> to(32);
    to_half(from.data(), 32, to.data());
    for (std::size_t i = 0; i < known.size(); ++i) ASSERT_EQ(to[i], known[i].second) << known[i].first;
  });
}

TEST(Kernels, AttentionOverPagesAgreesWithItsTwin) {
  on_every_target([] {
    Prng prng(3);
    for (const int dim : {32, 64, 128}) {
      for (const int count : {1, 5, 64, 65, 200}) {
        const auto keys = uniforms(prng, count * dim), values = uniforms(prng, count * dim);
        for (const int number : {1, 3, 6}) {
          const auto q = uniforms(prng, number * dim, 3);
          std::vector<float> accumulators(number * dim), out(dim), expected(dim);
          std::vector<AttentionQuery> queries(number);
          for (int i = 0; i < number; ++i) {
            queries[i].q = &q[i * dim];
            queries[i].accumulator = &accumulators[i * dim];
            start_attention(queries[i], dim, static_cast<float>(i) - 1);
          }
          for (int page = 0; page * kAttentionPage < count; ++page) {
            std::vector<float> k(dim * kAttentionPage), v(dim * kAttentionPage);
            const int here = std::min(kAttentionPage, count - page * kAttentionPage);
            for (int j = 0; j < here; ++j) {
              for (int i = 0; i < dim; ++i) {
                k[i * kAttentionPage + j] = keys[(page * kAttentionPage + j) * dim + i];
                v[j * dim + i] = values[(page * kAttentionPage + j) * dim + i];
              }
            }
            // Query i does not see the first i keys. A score sums up to 128 products below 3: off by 1e-5 at
            // most.
            for (int i = 0; i < number; ++i) {
              queries[i].begin = page == 0 ? std::min(i, here) : 0;
              queries[i].end = here;
            }
            attend_page(queries, dim, k.data(), v.data());
          }
          for (int i = 0; i < number; ++i) {
            finish_attention(queries[i], dim, out.data());
            const int hidden = std::min(i, count);
            attention_scalar(&q[i * dim], keys.data() + hidden * dim, values.data() + hidden * dim,
                             count - hidden, dim, static_cast<float>(i) - 1, expected.data());
            for (int j = 0; j < dim; ++j)
              ASSERT_NEAR(out[j], expected[j], 1e-5) << "dim " << dim << " keys " << count;
          }
        }
      }
    }
  });
}

TEST(Kernels, ElementwiseKernelsAgreeWithTheirTwins) {
  on_every_target([] {
    Prng prng(4);
    for (const int count : {1, 5, 16, 27, 64, 100, 2880}) {
      auto x = uniforms(prng, 2 * count, 9);
      const auto weight = uniforms(prng, count), cosine = uniforms(prng, count), sine = uniforms(prng, count);
      std::vector<float> a(count), b(count);
      rms_norm(x.data(), weight.data(), 1e-5f, count, a.data());
      rms_norm_scalar(x.data(), weight.data(), 1e-5f, count, b.data());
      for (int i = 0; i < count; ++i) ASSERT_NEAR(a[i], b[i], 2e-6);
      clamped_swiglu(x.data(), 7, count, a.data());
      clamped_swiglu_scalar(x.data(), 7, count, b.data());
      for (int i = 0; i < count; ++i) ASSERT_NEAR(a[i], b[i], 2e-5);
      auto y = x;
      rotate_halves(x.data(), cosine.data(), sine.data(), count);
      rotate_halves_scalar(y.data(), cosine.data(), sine.data(), count);
      for (int i = 0; i < 2 * count; ++i) ASSERT_NEAR(x[i], y[i], 4e-6);
      a = weight;
      add_scaled(x.data(), 0.5f, count, a.data());
      for (int i = 0; i < count; ++i) ASSERT_NEAR(a[i], weight[i] + 0.5f * x[i], 1e-6);
    }
  });
}

TEST(Kernels, RoutingTakesTheLargestAndBreaksTiesByIndex) {
  const float logits[] = {1, 3, 2, 3, 3, -1};
  int experts[3];
  float weights[3];
  route_top_k(logits, 6, 2, experts, weights);
  EXPECT_EQ(experts[0], 1);
  EXPECT_EQ(experts[1], 3);
  EXPECT_FLOAT_EQ(weights[0], 0.5f);
  const float uneven[] = {0, std::log(3.0f), -5};
  route_top_k(uneven, 3, 2, experts, weights);
  EXPECT_EQ(experts[0], 0);
  EXPECT_NEAR(weights[0], 0.25f, 1e-6);
  EXPECT_NEAR(weights[1], 0.75f, 1e-6);
}

TEST(Kernels, F16CoversSubnormalsAndInfinity) {
  EXPECT_EQ(f32_from_f16(0x3c00), 1.0f);
  EXPECT_EQ(f32_from_f16(0xc000), -2.0f);
  EXPECT_EQ(f32_from_f16(0x0001), std::ldexp(1.0f, -24));
  EXPECT_EQ(f32_from_f16(0x7c00), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(f32_from_f16(0x7e00)));
}

TEST(ThreadPool, RunsEveryChunkExactlyOnceInManyShortLoops) {
  ThreadPool pool(4);
  for (int round = 0; round < 2000; ++round) {
    std::vector<int> counts(1 + round % 17, 0);
    pool.parallel_for(static_cast<int>(counts.size()), [&](int i) { ++counts[i]; });
    for (int count : counts) ASSERT_EQ(count, 1);
  }
}

TEST(ThreadPool, HelpersTakePart) {
  ThreadPool pool(3);
  std::mutex mutex;
  std::set<std::thread::id> seen;
  for (int round = 0; round < 500 && seen.size() < 2; ++round) {
    pool.parallel_for(6, [&](int) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      std::lock_guard lock(mutex);
      seen.insert(std::this_thread::get_id());
    });
  }
  EXPECT_GE(seen.size(), 2u);
}

}  // namespace
}  // namespace capstan::engine
