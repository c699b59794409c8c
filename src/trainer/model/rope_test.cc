// Goal: frequencies as gpt-oss-20b has them, bounds not rounded. The expected values follow from its
// config.json.
#include "trainer/model/rope.h"

#include <gtest/gtest.h>

namespace capstan::trainer {
namespace {

ModelConfig gpt_oss() { return {.head_dim = 64, .rope_theta = 150000.0, .yarn_factor = 32.0}; }

TEST(Rope, FrequenciesAndConcentrationAreThoseOfGptOss) {
  const std::vector<double> frequencies = rope_frequencies(gpt_oss());
  EXPECT_NEAR(frequencies[8], 0.050813275, 1e-9);
  EXPECT_NEAR(frequencies[9], 0.031705696, 1e-9);
  EXPECT_NEAR(frequencies[12], 0.006794959, 1e-9);
  EXPECT_NEAR(frequencies[16], 4.5648392e-4, 1e-11);
  EXPECT_NEAR(frequencies[18], 3.8308812e-5, 1e-12);
  EXPECT_NEAR(rope_concentration(gpt_oss()), 1.3465735903, 1e-10);
}

TEST(Rope, TruncationRoundsTheBoundsOutwards) {
  ModelConfig config = gpt_oss();
  config.yarn_truncate = true;
  EXPECT_NE(rope_frequencies(config)[12], rope_frequencies(gpt_oss())[12]);
  EXPECT_EQ(rope_frequencies(config)[20], rope_frequencies(gpt_oss())[20]);
}

TEST(Rope, WithoutYarnFrequenciesArePlain) {
  ModelConfig config = gpt_oss();
  config.yarn_factor = 0.0;
  EXPECT_NEAR(rope_frequencies(config)[16], 0.0025819889, 1e-10);
  EXPECT_EQ(rope_concentration(config), 1.0);
  EXPECT_EQ(rope_table(config, 3).cosine.size(), 3u * 32);
}

}  // namespace
}  // namespace capstan::trainer
