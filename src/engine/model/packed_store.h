// PackedStore: a checkpoint's matrices packed for integer products, in one file that is made once.
//
//   CAPSTAN_TRY(auto store, PackedStore::open(weights, {.dense = PackedType::kInt10}, pool,
//   progress)); weights now refer to the store's matrices (Linear::packed, LayerWeights::packed_gate_up, …)
//
// MXFP4 experts keep their bits; attention and the head are rounded to `dense`; norms, biases, sinks, router
// and embedding stay as they are. With kInt12 experts take inputs of 15 bits, else their first matrices take 8. The head of a
// large vocabulary is kept a second time as a screen, in MXFP4 (screened_head.h).
// The file is named by the format and a fingerprint of the checkpoint's files (names, sizes, times), so a changed checkpoint
// is packed anew. It lies beside the model, or in the user's
// cache where that cannot be written; where neither has room, matrices are packed into memory at each start.
// A file that was not finished is never seen (it is renamed last). Layout: 4 KiB of magic and JSON (the list
// of matrices), then each matrix at a multiple of 4 KiB. Cost: making it reads the checkpoint once and writes
// about as much; opening it reads attention and the screen (or the head), experts are read when they are first chosen
// (Weights::need_experts), a head behind a screen as well (Weights::need_head). Memory: what was read. Failure: kIo, kExhausted.
// Threads: one caller.  Ownership: matrices are views into the store; weights.need_experts uses it and the pool.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "base/result.h"
#include "engine/kernels/packed.h"
#include "engine/kernels/thread_pool.h"
#include "engine/model/file_memory.h"
#include "engine/model/weights.h"

namespace capstan::engine {

struct PackOptions {
  // What attention and the head are rounded to. Absent: int8 where the checkpoint holds them in Q8_0, whose 8 bits it keeps
  // exactly; else int10.
  std::optional<PackedType> dense = {};
  // Whether a large head gets a screen. Absent: unless `dense` is given and has 8 bits or less, for whose few bytes it is chosen.
  std::optional<bool> screen = {};
  std::filesystem::path cache = {};  // where the file goes; empty: beside the model, else the user's cache
};
bool wants_screen(const PackOptions& options, int vocab);
using PackProgress = std::function<void(std::uint64_t done, std::uint64_t total)>;  // bytes written

class PackedStore {
 public:
  // nullptr: nothing to pack, its experts are not MXFP4.
  static Result<std::unique_ptr<PackedStore>> open(Weights& weights, const PackOptions& options, ThreadPool& pool,
                                                   const PackProgress& progress);
  PackedStore(const PackedStore&) = delete;
  PackedStore& operator=(const PackedStore&) = delete;

  std::uint64_t bytes() const { return bytes_; }
  bool made() const { return made_; }                          // it was not there yet
  const std::filesystem::path& path() const { return path_; }  // empty: in memory

 private:
  PackedStore() = default;
  void need_experts(int layer, std::span<const int> experts, ThreadPool& pool);
  void need_head(std::span<const int> panels, ThreadPool& pool);

  std::unique_ptr<FileMemory> memory_;
  std::vector<FileMemory::Range> experts_;  // [layers, experts_per_layer_]
  std::size_t experts_per_layer_ = 0;
  FileMemory::Range head_;
  std::uint64_t head_panel_bytes_ = 0;
  std::vector<FileMemory::Range> needed_;
  std::uint64_t bytes_ = 0;
  bool made_ = false;
  std::filesystem::path path_;
};

}  // namespace capstan::engine
