// Checkpoints: the whole state of a run, sharded over its ranks, hashed, and visible only when complete.
//
//   FOLDER/step-000000200/shard-00000-of-00002.bin   rank 0's slice of parameters and both moments
//   FOLDER/step-000000200/manifest.json              written last: what the shards are and their SHA-256
//
// Ranks write into step-N.tmp; rank 0 writes the manifest and renames the folder, so a folder without ".tmp"
// is complete whatever was killed when. Loading verifies every hash; a damaged checkpoint is passed over,
// with a message, for the newest older one. Any number of ranks can load what any number wrote. The folder
// must be one that all ranks see (one host, or a shared file system). Format: docs/formats/checkpoint.md.
// Failure: kCorrupt (hash, size, format), kIo, kExhausted (disk full), kUnavailable (a peer is gone).
// Threads: one owner per rank.  Cost: 12 bytes a parameter, written and hashed once, divided by the ranks.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "trainer/adamw.h"
#include "trainer/gang.h"

namespace capstan::trainer {

// All that a run is, apart from its configuration. Between steps it is equal on every rank.
struct TrainState {
  std::uint64_t step = 0;         // steps done, skipped ones included
  std::uint64_t next_sample = 0;  // the data loader's whole position
  std::uint64_t tokens = 0;       // trained on so far
  std::uint64_t skipped = 0;      // steps whose gradients were not finite
  std::uint64_t skipped_in_a_row = 0;
  std::vector<float> parameters;
  AdamWState optimizer;
};

struct CheckpointManifest {
  TrainState state;  // without its vectors
  std::uint64_t parameter_count = 0;
  int world_size = 1;
  std::string config_hash;
  Json config;  // the run's configuration, canonical
};

// Writes the state as one checkpoint. Every rank calls it at the same step. If a rank cannot write its share,
// no checkpoint appears and every rank gets an error; the run may go on, unless the code is kUnavailable.
Result<void> save_checkpoint(const std::filesystem::path& folder, const TrainState& state, const Json& config,
                             Gang& gang);

// Removes unfinished folders and all but the newest `keep` checkpoints. Rank 0 only.
void prune_checkpoints(const std::filesystem::path& folder, int keep);

// The steps of the complete checkpoints in `folder`, ascending; empty if there are none.
std::vector<std::uint64_t> list_checkpoints(const std::filesystem::path& folder);

// One checkpoint, every byte verified.
struct LoadedCheckpoint {
  TrainState state;
  CheckpointManifest manifest;
};
Result<LoadedCheckpoint> load_checkpoint(const std::filesystem::path& checkpoint);

// The newest checkpoint in `folder` that verifies on every rank; nullopt if there is none at all. What was
// passed over is logged. If checkpoints exist but all are damaged, that is kCorrupt: starting anew would hide
// it.
Result<std::optional<LoadedCheckpoint>> load_newest_checkpoint(const std::filesystem::path& folder,
                                                               Gang& gang);

// The folder's name of a step: "step-000000200".
std::string checkpoint_name(std::uint64_t step);

}  // namespace capstan::trainer
