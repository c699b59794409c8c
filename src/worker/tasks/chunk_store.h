// ChunkStore: which chunks this host has been given and has not been told to forget, so that a later worker goes on with them.
//
//   CAPSTAN_TRY(auto store, ChunkStore::open(data));
//   for (const StoredChunk& chunk : store->chunks()) …          // of the worker before
//   CAPSTAN_CHECK(store->claim(spec, effect)); … store->ended(id, exit); … store->forget(id);
//
// D/worker/chunks: a line each, "+ JOB-ATTEMPT-CHUNK FIRST COUNT", "= ID {exit}", "- ID"; rewritten when most of it is past.
// D/worker/arrays/JOB.json: the newest effect that started a chunk of the array, with the settings that all share, and a random
// `token` in the names of its results: another data directory may count its jobs from 1 beside the same user's files.
// Survives the worker's death, not the machine's: what counts then is what results files hold, and a chunk that nobody knows
// is started again. Threads: any.  Cost: one write(2) a call.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/json.h"
#include "worker/data_directory.h"
#include "worker/tasks/chunk_spec.h"

namespace capstan::worker {

inline constexpr std::size_t kArraysKeptMax = 2'000;

struct StoredChunk {
  ChunkSpec spec;
  std::optional<Json> exit;
};

class ChunkStore {
 public:
  static Result<std::unique_ptr<ChunkStore>> open(const DataDirectory& data);

  std::vector<StoredChunk> chunks() const;
  Result<void> claim(const ChunkSpec& chunk, const Json& effect);
  void ended(const RankId& id, const Json& exit);
  void forget(const RankId& id);
  // The effect of an array of this host, now or in the past.
  Result<Json> array(std::int64_t job) const;

 private:
  ChunkStore(Descriptor worker, Descriptor arrays) : worker_(std::move(worker)), arrays_(std::move(arrays)) {}
  Result<void> load();
  Result<void> rewrite();
  Result<void> keep_settings(const RankId& id, const Json& effect);
  void write(const std::string& line);
  void prune();

  mutable std::mutex mutex_;
  Descriptor worker_, arrays_, log_;
  std::map<RankId, StoredChunk> live_;
  std::map<std::int64_t, Json> settings_;  // as written to arrays/
  std::size_t lines_ = 0;
};

}  // namespace capstan::worker
