// Goal: the program keeps its promises to whoever starts it: exit codes, the torchrun environment, its
// folder. Method: the real binary as a child process, on a tiny model.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"

namespace capstan {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kConfig = R"(
model: {layers: 2, hidden: 32, intermediate: 32, heads: 2, kv_heads: 1, head_dim: 16, experts: 4, vocab: 256}
precision: f32
data: {kind: jsonl, path: data.jsonl}
steps: 12
batch_tokens: 100
checkpoint: {every_steps: 5}
log_every_steps: 5
)";

class CapstanTrainTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("capstan-train-" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    ASSERT_TRUE(make_directories(folder_));
    ASSERT_TRUE(write_file_atomic(folder_ / "train.yaml", kConfig));
    ASSERT_TRUE(
        write_file_atomic(folder_ / "data.jsonl", "{\"text\":\"one two\"}\n{\"text\":\"three four\"}\n"));
  }
  void TearDown() override { fs::remove_all(folder_); }

  // Starts the program in the folder; its output goes to the file `log`.
  pid_t start(const std::vector<std::string>& arguments, const std::vector<std::string>& environment,
              const std::string& log) {
    const pid_t child = ::fork();
    if (child != 0) return child;
    if (::chdir(folder_.c_str()) != 0) ::_exit(126);
    if (std::freopen(log.c_str(), "w", stdout) == nullptr || ::dup2(1, 2) < 0) ::_exit(126);
    std::vector<char*> argv = {const_cast<char*>("capstan-train")};
    for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    std::vector<char*> envp;
    for (const std::string& entry : environment) envp.push_back(const_cast<char*>(entry.c_str()));
    envp.push_back(nullptr);
    ::execve(CAPSTAN_TRAIN, argv.data(), envp.data());
    ::_exit(127);
  }
  static int wait_for(pid_t child) {
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  int run(const std::vector<std::string>& arguments, const std::vector<std::string>& environment = {}) {
    return wait_for(start(arguments, environment, "log"));
  }
  std::string content(const fs::path& path) { return read_file(folder_ / path).value_or("(missing)"); }

  fs::path folder_;
};

TEST_F(CapstanTrainTest, TrainsToTheEndAndExportsACheckpointToo) {
  ASSERT_EQ(run({"--config", "train.yaml", "--out", "out"}), 0) << content("log");
  EXPECT_NE(content("log").find("step     10/12"), std::string::npos) << content("log");
  EXPECT_NE(content("log").find("training is complete"), std::string::npos);
  EXPECT_TRUE(fs::exists(folder_ / "out/model/model.safetensors"));
  ASSERT_EQ(
      run({"export", "--checkpoint", "out/checkpoints/step-000000012", "--out", "model", "--dtype", "mxfp4"}),
      0);
  const Json config = Json::parse(content("model/config.json")).value();
  EXPECT_EQ(config.find("quantization_config")->get_string("quant_method"), "mxfp4");
  // The complete configuration that it leaves can start the same run again.
  ASSERT_EQ(run({"--config", "out/config.yaml", "--out", "again"}), 0) << content("log");
  EXPECT_EQ(content("again/metrics.jsonl"), content("out/metrics.jsonl"));
}

TEST_F(CapstanTrainTest, TheFolderIsTheJobsUnlessOutIsGiven) {
  ASSERT_EQ(run({"--config", "train.yaml"}, {"CAPSTAN_JOB_DIR=" + (folder_ / "job").string()}), 0);
  EXPECT_TRUE(fs::exists(folder_ / "job/model/config.json"));
}

TEST_F(CapstanTrainTest, AWrongConfigurationOrCommandLineExitsWithTwoAndSaysWhere) {
  EXPECT_EQ(run({"--config", "train.yaml", "--set", "stepz=3"}), 2);
  EXPECT_EQ(content("log"), "capstan-train: --set stepz=3: unknown key 'stepz'; did you mean 'steps'?\n");
  EXPECT_EQ(run({}), 2);
  EXPECT_EQ(run({"--config", "train.yaml"}, {"WORLD_SIZE=2", "RANK=5"}), 2);
  EXPECT_EQ(run({"--config", "absent.yaml"}), 1);
}

TEST_F(CapstanTrainTest, ASignalEndsItWithSeventyFiveAndTheSameCommandContinues) {
  const pid_t child = start({"--config", "train.yaml", "--out", "out", "--set", "steps=1000000"}, {}, "log");
  while (content("out/metrics.jsonl").find("\"step\":3,") == std::string::npos) ::usleep(2000);
  ::kill(child, SIGTERM);
  EXPECT_EQ(wait_for(child), 75) << content("log");
  EXPECT_NE(content("log").find("stopped by a signal after a checkpoint"), std::string::npos);
  EXPECT_EQ(run({"--config", "train.yaml", "--out", "out", "--set", "steps=1"}), 0);
  EXPECT_NE(content("log").find("resumed from the checkpoint of step"), std::string::npos) << content("log");
}

TEST_F(CapstanTrainTest, TwoRanksMeetByTheTorchrunEnvironment) {
  // The port is below the ephemeral range and derived from the pid, so that parallel tests do not collide.
  const std::string port = "MASTER_PORT=" + std::to_string(15000 + ::getpid() % 10000);
  const std::vector<std::string> arguments = {"--config", "train.yaml", "--out", "out"};
  std::vector<pid_t> ranks;
  for (const char* rank : {"0", "1"}) {
    ranks.push_back(
        start(arguments,
              {std::string("RANK=") + rank, std::string("LOCAL_RANK=") + rank, "WORLD_SIZE=2",
               "MASTER_ADDR=localhost", port, "TORCHELASTIC_RUN_ID=7", "TORCHELASTIC_RESTART_COUNT=1"},
              std::string("log") + rank));
  }
  EXPECT_EQ(wait_for(ranks[0]), 0) << content("log0");
  EXPECT_EQ(wait_for(ranks[1]), 0) << content("log1");
  EXPECT_NE(content("log0").find("2 ranks"), std::string::npos);
  EXPECT_EQ(content("log1"), "");  // one rank speaks
  EXPECT_TRUE(fs::exists(folder_ / "out/checkpoints/step-000000012/shard-00001-of-00002.bin"));
}

}  // namespace
}  // namespace capstan
