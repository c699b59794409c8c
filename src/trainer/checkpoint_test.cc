// Goal: a checkpoint comes back bit by bit, on any number of ranks; a damaged or unfinished one is never
// used. Method: write, damage one thing at a time, load. Ranks are threads of this process.
#include "trainer/checkpoint.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <thread>

#include "base/file.h"
#include "base/prng.h"
#include "trainer/rendezvous.h"

namespace capstan::trainer {
namespace {

namespace fs = std::filesystem;

TrainState state_at(std::uint64_t step, std::size_t count = 1003) {
  TrainState state;
  state.step = step;
  state.next_sample = step * 7;
  state.tokens = step * 100;
  state.skipped = 2;
  state.skipped_in_a_row = 1;
  state.optimizer.updates = step - 2;
  Prng prng(step);
  for (std::vector<float>* part : {&state.parameters, &state.optimizer.first, &state.optimizer.second}) {
    for (std::size_t i = 0; i < count; ++i)
      part->push_back(static_cast<float>(prng.between(-9999, 9999)) / 7);
  }
  return state;
}

void expect_equal(const TrainState& a, const TrainState& b) {
  EXPECT_EQ(a.step, b.step);
  EXPECT_EQ(a.next_sample, b.next_sample);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.skipped, b.skipped);
  EXPECT_EQ(a.skipped_in_a_row, b.skipped_in_a_row);
  EXPECT_EQ(a.optimizer.updates, b.optimizer.updates);
  EXPECT_EQ(a.parameters, b.parameters);
  EXPECT_EQ(a.optimizer.first, b.optimizer.first);
  EXPECT_EQ(a.optimizer.second, b.optimizer.second);
}

void run_ranks(int ranks, const std::function<void(Gang&)>& body) {
  const std::uint16_t port = RendezvousServer::start({"127.0.0.1", 0, "probe"}, 1).value()->port();
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([=, &body] {
      auto gang = join_gang({.rank = rank,
                             .size = ranks,
                             .local_rank = rank,
                             .master_address = "127.0.0.1",
                             .master_port = port,
                             .run = "test",
                             .timeout_ms = 10'000});
      ASSERT_TRUE(gang) << gang.error().message;
      body(**gang);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

class CheckpointTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("capstan-checkpoint-" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    alone_ = join_gang({}).value();
    config_ = Json::object({{"steps", 10}, {"rate", 0.1}});
  }
  void TearDown() override { fs::remove_all(folder_); }

  void save(std::uint64_t step) { ASSERT_TRUE(save_checkpoint(folder_, state_at(step), config_, *alone_)); }
  fs::path file(std::uint64_t step, std::string_view name) const {
    return folder_ / checkpoint_name(step) / name;
  }
  std::uint64_t newest_step() {
    auto loaded = load_newest_checkpoint(folder_, *alone_);
    return loaded && *loaded ? (*loaded)->state.step : 0;
  }
  void flip_byte(const fs::path& path, std::size_t at) {
    std::string bytes = read_file(path).value();
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    ASSERT_TRUE(write_file_atomic(path, bytes));
  }

  fs::path folder_;
  std::unique_ptr<Gang> alone_;
  Json config_;
};

constexpr std::string_view kShard = "shard-00000-of-00001.bin";

TEST_F(CheckpointTest, ComesBackBitByBit) {
  save(5);
  const auto loaded = load_newest_checkpoint(folder_, *alone_);
  ASSERT_TRUE(loaded && *loaded);
  expect_equal((*loaded)->state, state_at(5));
  EXPECT_EQ((*loaded)->manifest.config, config_);
  EXPECT_FALSE(fs::exists(folder_ / (checkpoint_name(5) + ".tmp")));
}

TEST_F(CheckpointTest, WhatThreeRanksWroteTwoRanksAndOneRankLoad) {
  run_ranks(3, [&](Gang& gang) { EXPECT_TRUE(save_checkpoint(folder_, state_at(8), config_, gang)); });
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_ / checkpoint_name(8)), fs::directory_iterator()), 4);
  run_ranks(2, [&](Gang& gang) {
    const auto loaded = load_newest_checkpoint(folder_, gang);
    ASSERT_TRUE(loaded && *loaded);
    expect_equal((*loaded)->state, state_at(8));
    EXPECT_EQ((*loaded)->manifest.world_size, 3);
  });
  EXPECT_EQ(newest_step(), 8u);
}

TEST_F(CheckpointTest, ADamagedOneIsPassedOverForTheOlder) {
  struct Damage {
    std::string_view name;
    std::function<void(const fs::path& checkpoint)> apply;
  };
  const Damage damages[] = {
      {"flipped byte in a shard", [&](const fs::path& c) { flip_byte(c / kShard, 5000); }},
      {"flipped byte in a shard's header", [&](const fs::path& c) { flip_byte(c / kShard, 9); }},
      {"shard cut short", [](const fs::path& c) { fs::resize_file(c / kShard, 100); }},
      {"shard too long", [](const fs::path& c) { fs::resize_file(c / kShard, 20'000); }},
      {"shard missing", [](const fs::path& c) { fs::remove(c / kShard); }},
      {"flipped digit in the manifest",
       [](const fs::path& c) {
         std::string text = read_file(c / "manifest.json").value();
         text[text.find("\"next_sample\": ") + 15] ^= 1;
         ASSERT_TRUE(write_file_atomic(c / "manifest.json", text));
       }},
      {"manifest cut short", [](const fs::path& c) { fs::resize_file(c / "manifest.json", 50); }},
      {"manifest empty", [](const fs::path& c) { fs::resize_file(c / "manifest.json", 0); }},
      {"manifest missing", [](const fs::path& c) { fs::remove(c / "manifest.json"); }},
  };
  for (const Damage& damage : damages) {
    fs::remove_all(folder_);
    save(5);
    save(6);
    ASSERT_EQ(newest_step(), 6u);
    damage.apply(folder_ / checkpoint_name(6));
    EXPECT_EQ(newest_step(), 5u) << damage.name;
  }
}

TEST_F(CheckpointTest, ATornWriteLeavesTheOlderOneAndIsCleanedUp) {
  save(5);
  // What a rank leaves that is killed before the rename: some shard, no manifest, the name with .tmp.
  const fs::path torn = folder_ / (checkpoint_name(6) + ".tmp");
  fs::create_directories(torn);
  ASSERT_TRUE(write_file_atomic(torn / kShard, "half a shard"));
  EXPECT_EQ(newest_step(), 5u);
  prune_checkpoints(folder_, 3);
  EXPECT_FALSE(fs::exists(torn));
  save(6);
  EXPECT_EQ(newest_step(), 6u);
}

TEST_F(CheckpointTest, WhenAllAreDamagedItIsAnErrorAndNotANewStart) {
  save(5);
  flip_byte(folder_ / checkpoint_name(5) / kShard, 777);
  EXPECT_EQ(load_newest_checkpoint(folder_, *alone_).error().code, Code::kCorrupt);
}

TEST_F(CheckpointTest, AnEmptyOrAbsentFolderIsNoCheckpoint) {
  EXPECT_FALSE(load_newest_checkpoint(folder_, *alone_).value().has_value());
}

TEST_F(CheckpointTest, ADamagedOneIsReplacedWhenItsStepIsReachedAgain) {
  save(5);
  save(6);
  flip_byte(folder_ / checkpoint_name(6) / kShard, 777);
  save(6);
  EXPECT_EQ(newest_step(), 6u);
}

TEST_F(CheckpointTest, TheFormatIsTheOneOfTheGoldenFiles) {
  // testdata/checkpoint-v1 was written by version 1 of the format. Later versions must still read it; a
  // change that makes this test fail needs a new version number, and a new golden folder beside this one.
  const fs::path golden = "src/trainer/testdata/checkpoint-v1/step-000000003";
  const auto loaded = load_checkpoint(golden);
  ASSERT_TRUE(loaded) << loaded.error().message;
  expect_equal(loaded->state, state_at(3, 5));
  ASSERT_TRUE(save_checkpoint(folder_, state_at(3, 5), config_, *alone_));
  for (const std::string_view name : {std::string_view("manifest.json"), kShard}) {
    EXPECT_EQ(read_file(file(3, name)).value(), read_file(golden / name).value()) << name;
  }
}

TEST_F(CheckpointTest, KeepsTheNewest) {
  for (std::uint64_t step = 3; step <= 7; ++step) save(step);
  prune_checkpoints(folder_, 2);
  EXPECT_EQ(list_checkpoints(folder_), (std::vector<std::uint64_t>{6, 7}));
}

TEST_F(CheckpointTest, ARankThatCannotWriteFailsItOnAllRanksAndNothingAppears) {
  // Rank 1's shard name is taken by a folder, so its open fails whoever runs the test.
  fs::create_directories(folder_ / (checkpoint_name(9) + ".tmp") / "shard-00001-of-00002.bin");
  run_ranks(2, [&](Gang& gang) {
    const Result<void> saved = save_checkpoint(folder_, state_at(9), config_, gang);
    ASSERT_FALSE(saved);
    EXPECT_NE(saved.error().code, Code::kUnavailable);  // the gang is fine: the run goes on
    EXPECT_TRUE(gang.barrier());
  });
  EXPECT_TRUE(list_checkpoints(folder_).empty());
}

}  // namespace
}  // namespace capstan::trainer
