// Goal: integer arithmetic stays near the float64 twin, has the same bits in every batch and on every
// instruction set; packed weights are made once, found again, and made anew when they are not what the
// checkpoint asks for.
#include "engine/model/packed_store.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "base/file.h"
#include "engine/model/model.h"
#include "engine/testing/random_checkpoint.h"

namespace capstan::engine {
namespace {

namespace fs = std::filesystem;
using testing::CheckpointOptions;
using testing::RandomCheckpoint;
using testing::TemporaryDirectory;

std::unique_ptr<Model> load(const fs::path& directory, PackedType dense = PackedType::kInt10, int threads = 2,
                            int* packed = nullptr) {
  ModelOptions how{.threads = threads, .arithmetic = Arithmetic::kInteger};
  how.pack.dense = dense;
  how.progress = [packed](std::uint64_t, std::uint64_t) { packed == nullptr ? 0 : ++*packed; };
  auto model = Model::load(directory, std::move(how));
  if (!model) {
    ADD_FAILURE() << model.error().message;
    std::abort();
  }
  return std::move(*model);
}

std::vector<float> logits_of(Model& model, const std::vector<TokenId>& tokens, std::size_t chunk) {
  KvCache kv(model.config(), model.kv_type());
  std::vector<float> all;
  for (std::size_t done = 0; done < tokens.size(); done += chunk) {
    const auto logits = model.forward(std::span(tokens).subspan(done, std::min(chunk, tokens.size() - done)),
                                      kv, LogitsOf::kAll);
    EXPECT_TRUE(logits.has_value());
    all.insert(all.end(), logits->values.begin(), logits->values.end());
  }
  return all;
}

double rms(const std::vector<float>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

std::vector<fs::path> packed_files(const fs::path& directory) {
  std::vector<fs::path> out;
  for (const auto& file : fs::directory_iterator(directory)) {
    if (file.path().filename().string().starts_with(".packed-")) out.push_back(file.path());
  }
  return out;
}

TEST(PackedStore, IntegersComeNearTheTwinTheFinerTheNearer) {
  const RandomCheckpoint checkpoint(CheckpointOptions{.seed = 21});
  TemporaryDirectory directory;
  checkpoint.write(directory.path());
  const auto tokens = checkpoint.random_tokens(60, 5);
  const auto exact = checkpoint.logits(tokens);
  double size = 0;
  for (const double value : exact) size += value * value;
  size = std::sqrt(size / static_cast<double>(exact.size()));
  const double fine = rms(logits_of(*load(directory.path()), tokens, 60), exact);
  const double coarse = rms(logits_of(*load(directory.path(), PackedType::kInt8), tokens, 60), exact);
  const double crude = rms(logits_of(*load(directory.path(), PackedType::kInt4), tokens, 60), exact);
  EXPECT_LT(fine, 0.02 * size);
  EXPECT_LT(coarse, 0.05 * size);
  EXPECT_LT(fine, coarse);
  EXPECT_LT(coarse, crude);
  EXPECT_EQ(load(directory.path())->arithmetic(), "int10");
}

TEST(PackedStore, BitsDoNotDependOnChunksThreadsOrInstructions) {
  const RandomCheckpoint checkpoint(CheckpointOptions{.experts = 8, .experts_per_token = 4, .seed = 22});
  TemporaryDirectory directory;
  checkpoint.write(directory.path());
  const auto tokens = checkpoint.random_tokens(90, 6);
  const auto whole = logits_of(*load(directory.path()), tokens, 90);
  EXPECT_EQ(logits_of(*load(directory.path(), PackedType::kInt10, 1), tokens, 1), whole);
  for (const std::string_view isa : {"scalar", "avx2", "avx512-vnni", "amx"}) {
    if (!use_isa(isa)) continue;
    EXPECT_EQ(logits_of(*load(directory.path()), tokens, 13), whole) << isa;
  }
  ASSERT_TRUE(use_isa("auto"));
}

TEST(PackedStore, IsMadeOnceAndAnewWhenItIsDamagedOrTheCheckpointChanges) {
  TemporaryDirectory directory;
  RandomCheckpoint(CheckpointOptions{.seed = 23}).write(directory.path());
  int packed = 0;
  load(directory.path(), PackedType::kInt10, 2, &packed);
  EXPECT_GT(std::exchange(packed, 0), 0);
  ASSERT_EQ(packed_files(directory.path()).size(), 1u);
  load(directory.path(), PackedType::kInt10, 2, &packed);
  EXPECT_EQ(packed, 0);
  // Cut off: not the file that it says it is.
  const fs::path file = packed_files(directory.path()).front();
  fs::resize_file(file, fs::file_size(file) - 1);
  load(directory.path(), PackedType::kInt10, 2, &packed);
  EXPECT_GT(std::exchange(packed, 0), 0);
  // Another checkpoint under the same name.
  const RandomCheckpoint other(CheckpointOptions{.seed = 24});
  fs::last_write_time(directory.path() / "model.safetensors",
                      fs::file_time_type::clock::now() - std::chrono::hours(1));
  other.write(directory.path());
  const auto tokens = other.random_tokens(20, 1);
  EXPECT_LT(rms(logits_of(*load(directory.path(), PackedType::kInt10, 2, &packed), tokens, 20),
                other.logits(tokens)),
            0.05);
  EXPECT_GT(packed, 0);
  EXPECT_EQ(packed_files(directory.path()).size(), 1u);  // the outdated one is gone
}

TEST(PackedStore, WithoutRoomForAFileWeightsArePackedInMemory) {
  const RandomCheckpoint checkpoint(CheckpointOptions{.seed = 25});
  TemporaryDirectory directory;
  checkpoint.write(directory.path());
  const auto tokens = checkpoint.random_tokens(20, 1);
  const auto expected = logits_of(*load(directory.path()), tokens, 20);
  ModelOptions how{.threads = 2, .arithmetic = Arithmetic::kInteger};
  how.pack.cache = "/proc/nowhere";
  auto model = Model::load(directory.path(), how);
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(logits_of(**model, tokens, 20), expected);
}

TEST(PackedStore, WhatIsNotMxfp4RunsInF32) {
  const RandomCheckpoint checkpoint(CheckpointOptions{.experts_storage = "BF16", .seed = 26});
  TemporaryDirectory directory;
  checkpoint.write(directory.path());
  EXPECT_EQ(load(directory.path())->arithmetic(), "f32");
  EXPECT_TRUE(packed_files(directory.path()).empty());
}

}  // namespace
}  // namespace capstan::engine
