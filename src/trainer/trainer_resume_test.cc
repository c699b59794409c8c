// Goal: kill -9 of a rank ends the whole gang quickly, and the gang that is started again continues so
// exactly that its curve and its model equal those of a run that nobody disturbed, byte for byte. Method:
// each rank is a forked child that trains a tiny model on loopback; a child sends itself the signal when it
// draws a certain sample, so the moment does not depend on the machine's load. Files are compared.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>

#include "base/file.h"
#include "base/log.h"
#include "trainer/checkpoint.h"
#include "trainer/jsonl_source.h"
#include "trainer/out_lock.h"
#include "trainer/rendezvous.h"
#include "trainer/trainer.h"

namespace capstan::trainer {
namespace {

namespace fs = std::filesystem;

std::atomic<bool> stop_requested{false};

constexpr std::string_view kConfig = R"(
model: {layers: 2, hidden: 32, intermediate: 32, heads: 2, kv_heads: 1, head_dim: 16, experts: 4, vocab: 256,
        sliding_window: 8, context_max: 64}
precision: f32
data: {kind: jsonl, path: data.jsonl, held_out: 8}
steps: 40
batch_tokens: 200
optimizer: {learning_rate: 3.0e-3, warmup_steps: 4}
checkpoint: {every_steps: 7, keep: 2}
evaluate: {every_steps: 10, samples: 4}
log_every_steps: 100
)";

// What one rank does to itself in the middle of a run: about 14 samples make a step.
struct Mishap {
  int rank = -1;
  int signal = 0;
  std::uint64_t sample = 300;
};

class MishapSource : public DataSource {
 public:
  MishapSource(const DataSource& inner, int signal, std::uint64_t at)
      : inner_(inner), signal_(signal), at_(at) {}
  Sample sample(std::uint64_t index) const override {
    if (index == at_ && signal_ != 0) ::raise(signal_);
    return inner_.sample(index);
  }
  std::unique_ptr<DataSource> held_out() const override { return inner_.held_out(); }
  std::int32_t vocabulary_size() const override { return inner_.vocabulary_size(); }

 private:
  const DataSource& inner_;
  int signal_;
  std::uint64_t at_;
};

struct Launch {
  int ranks = 1;
  std::string out;
  std::vector<std::string> overrides = {};
  Mishap mishap = {};
  std::vector<std::string> overrides_of_last_rank = {};
};

int rank_main(int rank, std::uint16_t port, const fs::path& folder, const Launch& launch) {
  log_configure("test", LogLevel::kError);
  if (std::freopen("/dev/null", "w", stdout) == nullptr) return 99;
  std::vector<std::string> overrides = launch.overrides;
  if (rank == launch.ranks - 1) {
    overrides.insert(overrides.end(), launch.overrides_of_last_rank.begin(),
                     launch.overrides_of_last_rank.end());
  }
  const auto config = parse_train_config(kConfig, "train.yaml", folder, overrides);
  if (!config) return 98;
  const auto source = JsonlSource::open(config->data);
  if (!source) return 97;
  const auto gang = join_gang({.rank = rank,
                               .size = launch.ranks,
                               .local_rank = rank,
                               .master_address = "127.0.0.1",
                               .master_port = port,
                               .run = "test",
                               .timeout_ms = 20'000});
  if (!gang) return 96;
  ::signal(SIGTERM, [](int) { stop_requested = true; });
  const MishapSource watched(**source, rank == launch.mishap.rank ? launch.mishap.signal : 0,
                             launch.mishap.sample);
  const auto end =
      run_training(*config, watched, **gang, {.out = folder / launch.out, .stop = &stop_requested});
  if (!end) return end.error().code == Code::kUnavailable ? 1 : 95;
  return *end == RunEnd::kStopped ? 75 : 0;
}

class ResumeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("capstan-resume-" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    ASSERT_TRUE(make_directories(folder_));
    std::string lines;
    for (int i = 0; i < 60; ++i) lines += fmt::format("{{\"text\":\"{} + {} = {}\"}}\n", i, 7 * i, 8 * i);
    ASSERT_TRUE(write_file_atomic(folder_ / "data.jsonl", lines));
  }
  void TearDown() override { fs::remove_all(folder_); }

  // Starts all ranks and waits for them: exit codes, or -signal of a rank that was killed.
  std::vector<int> run(const Launch& launch) {
    const std::uint16_t port = RendezvousServer::start({"127.0.0.1", 0, "probe"}, 1).value()->port();
    std::vector<pid_t> children;
    for (int rank = 0; rank < launch.ranks; ++rank) {
      const pid_t child = ::fork();
      if (child == 0) ::_exit(rank_main(rank, port, folder_, launch));
      children.push_back(child);
    }
    std::vector<int> codes;
    for (const pid_t child : children) {
      int status = 0;
      ::waitpid(child, &status, 0);
      codes.push_back(WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
    }
    return codes;
  }
  std::string content(const std::string& path) { return read_file(folder_ / path).value_or("(missing)"); }
  std::size_t lines_of(const std::string& out) {
    const std::string text = content(out + "/metrics.jsonl");
    return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
  }
  void expect_same_run(const std::string& a, const std::string& b) {
    EXPECT_EQ(content(a + "/metrics.jsonl"), content(b + "/metrics.jsonl"));
    EXPECT_EQ(content(a + "/model/model.safetensors"), content(b + "/model/model.safetensors"));
    EXPECT_EQ(lines_of(a), 44u);  // 40 steps, 4 evaluations
  }

  fs::path folder_;
};

TEST_F(ResumeTest, AfterKillOfEitherRankTheResumedCurveEqualsAnUndisturbedOne) {
  ASSERT_EQ(run({.ranks = 2, .out = "whole"}), (std::vector<int>{0, 0}));
  for (const int victim : {1, 0}) {
    const std::string out = "killed" + std::to_string(victim);
    const auto start = std::chrono::steady_clock::now();
    const std::vector<int> codes =
        run({.ranks = 2, .out = out, .mishap = {.rank = victim, .signal = SIGKILL}});
    EXPECT_EQ(codes[static_cast<std::size_t>(victim)], -SIGKILL);
    EXPECT_EQ(codes[static_cast<std::size_t>(1 - victim)],
              1);  // the survivor ends too: a launcher starts both again
    EXPECT_LT(std::chrono::steady_clock::now() - start,
              std::chrono::seconds(15));  // the gang's timeout is 20 s
    EXPECT_LT(lines_of(out), 40u);
    EXPECT_GE(list_checkpoints(folder_ / out / "checkpoints").size(), 1u);
    ASSERT_EQ(run({.ranks = 2, .out = out}), (std::vector<int>{0, 0}));
    expect_same_run("whole", out);
  }
}

TEST_F(ResumeTest, TheSameHoldsWithBf16Products) {
  const std::vector<std::string> bf16 = {"precision=bf16"};
  ASSERT_EQ(run({.ranks = 2, .out = "whole", .overrides = bf16}), (std::vector<int>{0, 0}));
  run({.ranks = 2, .out = "killed", .overrides = bf16, .mishap = {.rank = 1, .signal = SIGKILL}});
  ASSERT_EQ(run({.ranks = 2, .out = "killed", .overrides = bf16}), (std::vector<int>{0, 0}));
  expect_same_run("whole", "killed");
}

TEST_F(ResumeTest, ADamagedNewestCheckpointCostsStepsButNotExactness) {
  ASSERT_EQ(run({.out = "whole"}), (std::vector<int>{0}));
  ASSERT_EQ(run({.out = "damaged", .mishap = {.rank = 0, .signal = SIGKILL}}), (std::vector<int>{-SIGKILL}));
  const fs::path checkpoints = folder_ / "damaged" / "checkpoints";
  const std::vector<std::uint64_t> steps = list_checkpoints(checkpoints);
  ASSERT_GE(steps.size(), 2u);
  fs::resize_file(checkpoints / checkpoint_name(steps.back()) / "shard-00000-of-00001.bin", 4000);
  ASSERT_EQ(run({.out = "damaged"}), (std::vector<int>{0}));
  expect_same_run("whole", "damaged");
}

TEST_F(ResumeTest, ASignalEndsTheGangAfterACheckpointAndTheNextRunContinuesExactly) {
  ASSERT_EQ(run({.ranks = 2, .out = "whole"}), (std::vector<int>{0, 0}));
  // One rank gets the signal, and both leave at the same step.
  EXPECT_EQ(run({.ranks = 2, .out = "stopped", .mishap = {.rank = 1, .signal = SIGTERM}}),
            (std::vector<int>{75, 75}));
  EXPECT_FALSE(list_checkpoints(folder_ / "stopped" / "checkpoints").empty());
  ASSERT_EQ(run({.ranks = 2, .out = "stopped"}), (std::vector<int>{0, 0}));
  expect_same_run("whole", "stopped");
}

TEST_F(ResumeTest, ASignalWhoseCheckpointCannotBeWrittenIsAFailureAndNotAStop) {
  ASSERT_TRUE(make_directories(folder_ / "full"));
  ASSERT_TRUE(write_file_atomic(folder_ / "full" / "checkpoints", "a file where the folder should be"));
  EXPECT_EQ(run({.out = "full", .mishap = {.rank = 0, .signal = SIGTERM}}), (std::vector<int>{95}));
}

TEST_F(ResumeTest, AnotherNumberOfRanksContinuesTheSameRun) {
  ASSERT_EQ(run({.ranks = 2, .out = "resized", .overrides = {"steps=14"}}), (std::vector<int>{0, 0}));
  ASSERT_EQ(run({.ranks = 1, .out = "resized"}), (std::vector<int>{0}));
  EXPECT_EQ(lines_of("resized"), 45u);  // 40 steps, evaluations at 10, 14 (the first run's last), 20, 30, 40
}

TEST_F(ResumeTest, RanksWithDifferentConfigurationsRefuseToStart) {
  EXPECT_EQ(run({.ranks = 2, .out = "mixed", .overrides_of_last_rank = {"seed=2"}}),
            (std::vector<int>{95, 95}));
  EXPECT_FALSE(fs::exists(folder_ / "mixed" / "metrics.jsonl"));
}

TEST_F(ResumeTest, ASecondRunInTheSameFolderIsRefused) {
  ASSERT_TRUE(make_directories(folder_ / "shared"));
  const auto lock = OutLock::take(folder_ / "shared");
  ASSERT_TRUE(lock);
  EXPECT_EQ(run({.out = "shared"}), (std::vector<int>{95}));
  EXPECT_TRUE(OutLock::take(folder_ / "shared")
                  .error()
                  .message.ends_with(fmt::format("(pid {}); choose another --out", ::getpid())));
}

TEST_F(ResumeTest, AnotherModelShapeIsRefusedInsteadOfContinued) {
  ASSERT_EQ(run({.out = "shape", .overrides = {"steps=7"}}), (std::vector<int>{0}));
  EXPECT_EQ(run({.out = "shape", .overrides = {"model.layers=3"}}), (std::vector<int>{95}));
}

TEST_F(ResumeTest, GradientsThatAreNotFiniteAreSkippedAndEndTheRunAfterTwentyInARow) {
  // So large a rate and decay make the parameters grow until products overflow; nothing is finite from then
  // on. The twentieth bad step ends the run and is not recorded: nineteen are.
  const std::vector<std::string> wild = {"optimizer.learning_rate=10",
                                         "optimizer.weight_decay=10",
                                         "optimizer.warmup_steps=0",
                                         "optimizer.clip_norm=0",
                                         "steps=1000",
                                         "checkpoint.every_steps=0",
                                         "evaluate.every_steps=0"};
  EXPECT_EQ(run({.out = "wild", .overrides = wild}), (std::vector<int>{95}));
  EXPECT_NE(content("wild/metrics.jsonl").find("\"skipped\":19"), std::string::npos);
}

}  // namespace
}  // namespace capstan::trainer
