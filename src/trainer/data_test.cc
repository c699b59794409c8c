// Goal: which samples a step sees, and who gets them, is a pure function; the jsonl reader accepts what its
// header says and names the line of what it refuses. Method: properties over generated streams, files in a
// temporary folder.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <set>

#include "base/file.h"
#include "base/prng.h"
#include "trainer/jsonl_source.h"
#include "trainer/packing.h"

namespace capstan::trainer {
namespace {

// Sample i: 2 to 60 tokens, the first of which is i, so that a test can tell which sample it holds.
class NumberedSource : public DataSource {
 public:
  Sample sample(std::uint64_t index) const override {
    const std::size_t length = 2 + Prng::at(5, index) % 59;
    Sample sample{std::vector<std::int32_t>(length, static_cast<std::int32_t>(index)),
                  std::vector<std::uint8_t>(length, 1)};
    return sample;
  }
  std::int32_t vocabulary_size() const override { return 1 << 20; }
};

std::vector<int> indices_of(const StepPlan& plan) {
  std::vector<int> indices;
  for (const Sample& sample : plan.samples) indices.push_back(sample.tokens[0]);
  return indices;
}

TEST(PackingTest, TheSamplesOfAStepDoNotDependOnTheNumberOfRanks) {
  const NumberedSource source;
  std::uint64_t next = 0;
  for (int step = 0; step < 30; ++step) {
    const StepPlan whole = plan_step(source, next, {.tokens_max = 500});
    for (const int ranks : {2, 3, 7}) {
      std::vector<int> all;
      for (int rank = 0; rank < ranks; ++rank) {
        const StepPlan part = plan_step(source, next, {.tokens_max = 500, .ranks = ranks, .rank = rank});
        EXPECT_EQ(part.next_sample, whole.next_sample);
        EXPECT_EQ(part.tokens, whole.tokens);
        EXPECT_EQ(part.targets, whole.targets);
        const std::vector<int> mine = indices_of(part);
        EXPECT_TRUE(std::is_sorted(mine.begin(), mine.end()));
        all.insert(all.end(), mine.begin(), mine.end());
      }
      std::sort(all.begin(), all.end());
      EXPECT_EQ(all, indices_of(whole));  // each sample once, none lost
    }
    next = whole.next_sample;
  }
}

TEST(PackingTest, AStepIsFullButNeverOverItsBudget) {
  const NumberedSource source;
  std::uint64_t next = 0;
  for (int step = 0; step < 50; ++step) {
    const StepPlan plan = plan_step(source, next, {.tokens_max = 300});
    EXPECT_LE(plan.tokens, 300u);
    EXPECT_GT(plan.tokens + source.sample(plan.next_sample).tokens.size(), 300u);
    next = plan.next_sample;
  }
}

TEST(PackingTest, ASampleLongerThanTheBudgetMakesAStepOfItsOwn) {
  const NumberedSource source;
  const StepPlan plan = plan_step(source, 4, {.tokens_max = 1});
  EXPECT_EQ(plan.next_sample, 5u);
  EXPECT_EQ(plan.samples.size(), 1u);
}

TEST(PackingTest, RanksAreBalancedToWithinOneSample) {
  const std::vector<std::size_t> lengths = {9, 8, 7, 6, 5, 5, 4, 3, 2, 1};
  const std::vector<int> owner = balance(lengths, 3);
  std::vector<std::size_t> load(3);
  for (std::size_t i = 0; i < lengths.size(); ++i) load[static_cast<std::size_t>(owner[i])] += lengths[i];
  EXPECT_LE(*std::max_element(load.begin(), load.end()) - *std::min_element(load.begin(), load.end()), 1u);
  EXPECT_EQ(balance(lengths, 1), std::vector<int>(10, 0));
}

TEST(PackingTest, TheFirstTokenNeverCounts) {
  EXPECT_EQ(target_count({.tokens = {1, 2, 3}, .is_target = {1, 0, 1}}), 1u);
}

TEST(PermutationTest, EveryEpochShowsEverySampleOnceInItsOwnOrder) {
  for (const std::uint64_t count : {1u, 2u, 3u, 17u, 64u, 1000u}) {
    std::set<std::uint64_t> seen;
    for (std::uint64_t i = 0; i < count; ++i) seen.insert(permuted(i, count, 99));
    EXPECT_EQ(seen.size(), count);
    EXPECT_LT(*seen.rbegin(), count);
  }
  std::vector<std::uint64_t> first, second;
  for (std::uint64_t i = 0; i < 100; ++i) {
    first.push_back(permuted(i, 100, 1));
    second.push_back(permuted(i, 100, 2));
  }
  EXPECT_NE(first, second);
}

class JsonlTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("capstan-jsonl-" + std::to_string(::getpid()));
    ASSERT_TRUE(make_directories(folder_));
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  Result<std::unique_ptr<DataSource>> open(std::string_view text) {
    const std::filesystem::path path = folder_ / "data.jsonl";
    EXPECT_TRUE(write_file_atomic(path, text));
    DataConfig config;
    config.path = path;
    config.tokens_max = 8;
    return JsonlSource::open(config);
  }
  std::string refusal(std::string_view text) {
    const auto opened = open(text);
    if (opened) return "(accepted)";
    const std::string& message = opened.error().message;
    return message.starts_with(folder_.string()) ? message.substr(folder_.string().size() + 1) : message;
  }
  std::filesystem::path folder_;
};

TEST_F(JsonlTest, ReadsTokensTargetsAndTextAndCutsLongText) {
  const auto source = open("{\"tokens\":[5,6,300],\"targets\":[1,0,1]}\n\n{\"text\":\"abcdefghijk\"}\n");
  ASSERT_TRUE(source);
  EXPECT_EQ((*source)->vocabulary_size(), 301);
  std::multiset<std::size_t> lengths;
  for (std::uint64_t i = 0; i < 3; ++i) {
    const Sample sample = (*source)->sample(i);
    lengths.insert(sample.tokens.size());
    EXPECT_EQ(sample.is_target[0], 0);
    if (sample.tokens[0] == 5) {
      EXPECT_EQ(sample.is_target, (std::vector<std::uint8_t>{0, 0, 1}));
    }
  }
  EXPECT_EQ(lengths, (std::multiset<std::size_t>{3, 3, 8}));
}

TEST_F(JsonlTest, HeldOutSamplesAreTheFilesLastAndNeverInTheStream) {
  EXPECT_TRUE(
      write_file_atomic(folder_ / "five.jsonl",
                        "{\"text\":\"aa\"}\n{\"text\":\"bb\"}\n{\"text\":\"cc\"}\n{\"text\":\"dd\"}\n"));
  DataConfig config;
  config.path = folder_ / "five.jsonl";
  config.held_out = 2;
  const auto source = JsonlSource::open(config).value();
  std::set<std::int32_t> trained;
  for (std::uint64_t i = 0; i < 20; ++i) trained.insert(source->sample(i).tokens[0]);
  EXPECT_EQ(trained, (std::set<std::int32_t>{'a', 'b'}));
  EXPECT_EQ(source->held_out()->sample(0).tokens[0], 'c');
  EXPECT_EQ(source->held_out()->sample(1).tokens[0], 'd');
  config.held_out = 4;
  EXPECT_TRUE(JsonlSource::open(config).error().message.ends_with(
      "data.held_out = 4 leaves none of the 4 samples to train on"));
}

TEST_F(JsonlTest, NamesTheLineOfWhatItRefuses) {
  EXPECT_EQ(refusal("{\"text\":\"ab\"}\n{\"tokens\":[1,-2]}\n"),
            "data.jsonl:2: a token must be an integer from 0 to 1048575, not -2");
  EXPECT_EQ(refusal("{\"tokens\":[1,2],\"targets\":[1]}"),
            "data.jsonl:1: \"targets\" must be a list as long as \"tokens\" (2)");
  EXPECT_EQ(refusal("{\"token\":[1,2]}"),
            "data.jsonl:1: unknown key 'token'; a line has \"tokens\" and \"targets\", or \"text\"");
  EXPECT_EQ(refusal("[1]"), "data.jsonl:1: a line must be a JSON object, not array");
  EXPECT_EQ(refusal("{\"tokens\":[1,2,3,4,5,6,7,8,9]}"),
            "data.jsonl:1: 9 tokens are more than data.tokens_max = 8");
  EXPECT_EQ(refusal("\n \n"), "data.jsonl: the file holds no samples");
  EXPECT_TRUE(refusal("{\"text\":\"ab\"}\n{\"text\"").starts_with("data.jsonl:2: "));
}

TEST_F(JsonlTest, AMissingFileIsNotFound) {
  DataConfig config;
  config.path = folder_ / "absent.jsonl";
  EXPECT_EQ(JsonlSource::open(config).error().code, Code::kNotFound);
}

}  // namespace
}  // namespace capstan::trainer
