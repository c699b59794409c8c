// The parts of running tasks that need no sandboxes: results, the list of chunks, inputs, answers of batches.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "base/prng.h"
#include "worker/tasks/batch.h"
#include "worker/tasks/chunk_store.h"
#include "worker/tasks/results_file.h"
#include "worker/tasks/task_input.h"

namespace capstan::worker {
namespace {

namespace fs = std::filesystem;
using protocol::TaskEnd;

class TaskPartsTest : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(path_); }
  void TearDown() override { fs::remove_all(path_); }
  RankUser myself() const { return *resolve_user(::geteuid() == 0 ? "root" : "", ::geteuid()); }
  Places places() const { return {path_, ::geteuid(), {}, {}}; }
  std::shared_ptr<ResultsFile> results() {
    auto file = ResultsFile::open(places(), myself(), "a", "7-x");
    EXPECT_TRUE(file) << file.error().message;
    return *file;
  }
  const fs::path path_ = fs::temp_directory_path() / ("capstan-tasks-" + random_hex(6));
};

TEST_F(TaskPartsTest, WhatIsRecordedIsFoundAgainAndCounted) {
  TaskOutcome good{.index = 5};
  good.cpu_us = 1000;
  good.wall_us = 2'000'000;
  good.memory_peak_bytes = 3 << 20;
  good.out = "line \"1\"\n\xff";
  TaskOutcome bad{.index = 7, .end = TaskEnd::kMemory, .exit_code = 137, .signal = 9, .tries = 3};
  ASSERT_TRUE(results()->append(good.line() + bad.line()));
  const auto file = results();  // as a later worker would
  ASSERT_TRUE(file->sync());
  const auto found = file->recorded(0, 100);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->indices, (std::set<std::int64_t>{5, 7}));
  EXPECT_EQ(found->tally.succeeded(), 1);
  EXPECT_EQ(found->tally.failed(), 1);
  EXPECT_EQ(found->tally.retries, 2);
  EXPECT_EQ(found->tally.memory_mib_ms, 6000);
  EXPECT_EQ(found->tally.failure, "task 7 was killed at its memory limit");
  EXPECT_EQ(file->recorded(6, 1)->indices.size(), 0u);
  const auto json = Json::parse(good.line());
  ASSERT_TRUE(json) << "a byte that is no text must not spoil the line";
  EXPECT_EQ(json->get_bool("ok"), true);
}

// Goal: a crash may cut the last line anywhere; what was whole stays, and the next line is not spoilt.
TEST_F(TaskPartsTest, ATornLineCountsForNothingAndSpoilsNothing) {
  const std::string whole = TaskOutcome{.index = 1}.line(), torn = TaskOutcome{.index = 2}.line();
  for (std::size_t cut = 0; cut < torn.size(); ++cut) {
    fs::remove_all(path_ / "jobs");
    ASSERT_TRUE(results()->append(whole + torn.substr(0, cut)));
    ASSERT_TRUE(results()->append(TaskOutcome{.index = 3}.line()));
    const auto found = results()->recorded(0, 10);
    ASSERT_TRUE(found);
    // Without its newline alone, the line is whole.
    const std::set<std::int64_t> expected =
        cut + 1 == torn.size() ? std::set<std::int64_t>{1, 2, 3} : std::set<std::int64_t>{1, 3};
    ASSERT_EQ(found->indices, expected) << cut;
  }
}

TEST_F(TaskPartsTest, ResultsAreNotWrittenThroughALink) {
  fs::create_directories(path_ / "jobs/a");
  fs::create_symlink("/etc/passwd", path_ / "jobs/a/results-7-x.jsonl");
  EXPECT_FALSE(ResultsFile::open(places(), myself(), "a", "7-x"));
}

Json effect_of(std::int64_t job, std::int64_t chunk) {
  return Json::object({{"id", 1},
                       {"type", "start_rank"},
                       {"job", job},
                       {"attempt", 1},
                       {"rank", chunk},
                       {"name", "a"},
                       {"kind", "tasks"},
                       {"command", Json::array({"x"})},
                       {"resources", Json::object({{"milli_cpus", 1000}, {"memory_bytes", 0}})},
                       {"chunk", Json::object({{"first", chunk * 10},
                                               {"count", 10},
                                               {"retries", 0},
                                               {"backoff_ms", 1},
                                               {"sandbox", Json::object()}})}});
}

TEST_F(TaskPartsTest, ALaterWorkerFindsTheChunksThatWereNotForgotten) {
  const auto data = DataDirectory::open(path_);
  ASSERT_TRUE(data) << data.error().message;
  {
    auto store = ChunkStore::open(*data);
    ASSERT_TRUE(store) << store.error().message;
    for (std::int64_t chunk = 0; chunk < 10'000; ++chunk) {
      const Json effect = effect_of(1, chunk);
      ASSERT_TRUE((*store)->claim(*ChunkSpec::from_json(effect), effect));
      if (chunk >= 2) (*store)->forget({1, 1, chunk});
    }
    (*store)->ended({1, 1, 1}, Json::object({{"exit_code", 0}}));
  }
  EXPECT_LT(fs::file_size(path_ / "worker/chunks"), 300'000u)
      << "the list is rewritten when most of it is past";
  std::ofstream(path_ / "worker/chunks", std::ios::app) << "+ 9-1-";  // torn
  const auto store = ChunkStore::open(*data);
  ASSERT_TRUE(store);
  const auto chunks = (*store)->chunks();
  ASSERT_EQ(chunks.size(), 2u);
  EXPECT_EQ(chunks[0].spec.first, 0);
  EXPECT_FALSE(chunks[0].exit);
  EXPECT_EQ(chunks[1].spec.first, 10);
  EXPECT_EQ(chunks[1].exit->get_int("exit_code"), 0);
  EXPECT_EQ(ArraySpec::from_json(*(*store)->array(1))->name, "a");
  EXPECT_FALSE((*store)->array(2));
}

TEST_F(TaskPartsTest, LineIIsTheInputOfTaskI) {
  Prng random(1);
  std::vector<std::string> lines;
  std::ofstream file(path_ / "lines");
  for (int i = 0; i < 5'000; ++i) {
    lines.push_back(fmt::format("{}{}", i, std::string(random.below(200), 'x')));
    file << lines.back() << (i < 4'999 ? "\n" : "");
  }
  file.close();
  TaskInput input((path_ / "lines").string(), myself());
  for (int i = 0; i < 500; ++i) {
    const auto index = static_cast<std::int64_t>(random.below(5'000));
    ASSERT_EQ(input.bytes(index).value_or("?"), lines[static_cast<std::size_t>(index)]);
  }
  EXPECT_EQ(input.bytes(4'999).value_or("?"), lines.back());
  const auto beyond = input.bytes(5'000);
  ASSERT_FALSE(beyond);
  EXPECT_NE(beyond.error().message.find("line 5001"), std::string::npos) << beyond.error().message;
}

TEST_F(TaskPartsTest, AFilePerTaskMustBeARegularFile) {
  std::ofstream(path_ / "in-3") << "three";
  fs::create_symlink("/etc/passwd", path_ / "in-4");
  ASSERT_EQ(::mkfifo((path_ / "in-5").c_str(), 0644), 0);
  TaskInput input((path_ / "in-{index}").string(), myself());
  EXPECT_EQ(input.bytes(3).value_or("?"), "three");
  for (const std::int64_t index : {2, 4, 5}) EXPECT_FALSE(input.bytes(index)) << index;
}

TEST(BatchAnswersTest, AnswersMayComeInAnyPieces) {
  const std::string text =
      "R 4 0 0 10 20 30 3 2 5\nabcde"
      "R 5 1 0 1 2 3 0 0 9\n"
      "R 9 137 9 1 1 1 1 0 1\nz";
  for (std::size_t size = 1; size < text.size(); ++size) {
    BatchAnswers answers({4, 5, 9}, 100);
    for (std::size_t at = 0; at < text.size(); at += size)
      answers.write(std::string_view(text).substr(at, size));
    const auto outcomes = answers.take(0);
    ASSERT_EQ(outcomes.size(), 3u);
    EXPECT_EQ(outcomes[0].out, "abc");
    EXPECT_EQ(outcomes[0].err, "de");
    EXPECT_TRUE(outcomes[0].good());
    EXPECT_EQ(outcomes[1].end, TaskEnd::kExit);
    EXPECT_TRUE(outcomes[1].truncated);
    EXPECT_EQ(outcomes[2].end, TaskEnd::kSignal);
    EXPECT_EQ(outcomes[2].signal, 9);
  }
}

TEST(BatchAnswersTest, WhatIsNoAnswerBreaksTheBatch) {
  for (const std::string text :
       {"hello\n", "R 5 0 0 0 0 0 0 0 0\n", "R 4 0 0 0 0 0 101 0 101\n", "R 4 0 0 0 0 0 -1 0 0\n",
        "R 4 0 0 0 0 0 0 0\n", "R 4 999 0 0 0 0 0 0 0\n", "R 4 0 0 0 0 0 2 0 1\n"}) {
    BatchAnswers answers({4, 5}, 100);
    answers.write(text);
    EXPECT_TRUE(answers.broken()) << text;
    EXPECT_EQ(answers.take(0).size(), 0u);
  }
  BatchAnswers endless({4}, 100);
  endless.write(std::string(1'000, 'R'));
  EXPECT_TRUE(endless.broken());
}

TEST(ChunkSpecTest, TheIndexStandsWhereItIsWanted) {
  EXPECT_EQ(with_index("a{index}b{index}", 12), "a12b12");
  EXPECT_EQ(with_index("{inde}{ index}", 1), "{inde}{ index}");
}

}  // namespace
}  // namespace capstan::worker
