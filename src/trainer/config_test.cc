// Goal: every mistake in a configuration is found and said with its place and what would be right; a
// configuration survives being written and read. Method: the cases of testdata/config_errors.txt, and round
// trips.
#include "trainer/config.h"

#include <gtest/gtest.h>

#include <sstream>

#include "base/file.h"
#include "base/text.h"

namespace capstan::trainer {
namespace {

std::vector<std::string> split_at_lines(const std::string& text, std::string_view separator) {
  std::vector<std::string> parts(1);
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line == separator) {
      parts.emplace_back();
    } else {
      parts.back() += line + "\n";
    }
  }
  return parts;
}

Result<TrainConfig> parse(std::string_view text, std::vector<std::string> overrides = {}) {
  return parse_train_config(text, "train.yaml", "/data", overrides);
}

TEST(ConfigTest, MistakesAreNamedWithTheirPlaceAndWhatWouldBeRight) {
  const std::string text = read_file("src/trainer/testdata/config_errors.txt").value();
  int line = 1;
  for (const std::string& one : split_at_lines(text.substr(text.find('\n') + 1), "====")) {
    const std::vector<std::string> halves = split_at_lines(one, "----");
    ASSERT_EQ(halves.size(), 2u) << one;
    const Result<TrainConfig> parsed = parse(halves[0]);
    ASSERT_FALSE(parsed) << "accepted:\n" << halves[0];
    EXPECT_EQ(parsed.error().message + "\n", halves[1]) << "case " << line;
    EXPECT_EQ(parsed.error().code, Code::kInvalid);
    line += 1;
  }
}

TEST(ConfigTest, WhatIsWrittenIsReadBackTheSame) {
  const TrainConfig config = parse(R"(
model: {layers: 3, hidden: 96, rope_theta: 12345.5, yarn_factor: 4, yarn_truncate: true}
precision: f32
data: {kind: abacus, seed: 77, mixture: {addition: 2, subtraction: 0.25}}
seed: 5
steps: 123
batch_tokens: 4096
aux_loss: 0.03
optimizer: {learning_rate: 3.3e-4, warmup_steps: 7, betas: [0.8, 0.999], epsilon: 1.0e-9, clip_norm: 0.5}
checkpoint: {every_steps: 11, keep: 2}
evaluate: {every_steps: 13, samples: 9}
export: {dtype: mxfp4, at_checkpoints: true, eos_token_id: 260}
)")
                                 .value();
  const TrainConfig again = parse(to_yaml(config)).value();
  EXPECT_EQ(to_json(again), to_json(config));
  EXPECT_EQ(to_json(config_from_json(to_json(config)).value()), to_json(config));
  EXPECT_EQ(again.model.layers, 3);
  EXPECT_EQ(again.data.mixture.size(), 2u);
  EXPECT_DOUBLE_EQ(again.optimizer.beta2, 0.999);
  EXPECT_EQ(again.export_type, ExportType::kMxfp4);
}

TEST(ConfigTest, OverridesReplaceAndAddAndNameThemselvesWhenWrong) {
  const TrainConfig config = parse("data: {kind: abacus}\nsteps: 200\n",
                                   {"steps=300", "model.layers=2", "optimizer.betas=[0.5, 0.6]"})
                                 .value();
  EXPECT_EQ(config.steps, 300u);
  EXPECT_EQ(config.model.layers, 2);
  EXPECT_DOUBLE_EQ(config.optimizer.beta1, 0.5);
  EXPECT_EQ(parse("data: {kind: abacus}", {"steps=x"}).error().message,
            "--set steps=x: steps must be an integer from 1 to 1099511627776, not 'x'");
  EXPECT_EQ(parse("data: {kind: abacus}", {"steps"}).error().message,
            "--set steps: must be key=value, for example --set steps=100");
  EXPECT_EQ(parse("data: {kind: abacus}", {"steps.more=1"}).error().message,
            "--set steps.more=1: steps must be an integer from 1 to 1099511627776, not 'a mapping'");
}

TEST(ConfigTest, ARelativePathStartsAtTheFilesFolder) {
  EXPECT_EQ(parse("data: {kind: jsonl, path: a/b.jsonl}")->data.path, "/data/a/b.jsonl");
  EXPECT_EQ(parse("data: {kind: jsonl, path: /x.jsonl}")->data.path, "/x.jsonl");
}

TEST(ConfigTest, DifferencesAreNamedByTheirKeys) {
  const Json a = to_json(parse("data: {kind: abacus}").value());
  const Json b = to_json(parse("data: {kind: abacus, mixture: {addition: 1}}\nmodel: {layers: 9}").value());
  EXPECT_EQ(differing_keys(a, b), (std::vector<std::string>{"model.layers", "data.mixture"}));
  EXPECT_TRUE(differing_keys(a, a).empty());
}

TEST(ConfigTest, TheExampleIsValid) { EXPECT_TRUE(load_config("examples/abacus/train.yaml", {})); }

}  // namespace
}  // namespace capstan::trainer
