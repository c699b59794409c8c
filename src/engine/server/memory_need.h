// What a model needs of memory before it is loaded, against what there is.
//
//   CAPSTAN_TRY(const int context, context_that_fits(checkpoint, {.arithmetic = "default", .context = 0}, memory_available()));
//
// Weights as they will be used (packed, or mapped in f32), the KV cache (what was set aside for it, else that of one request
// of the whole context), and the working memory of a step. More requests share what is left. Failure: kExhausted with
// each part, what is available, and what would fit. Cost: reads two small files of /proc and /sys.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "engine/tensor/checkpoint.h"

namespace capstan::engine {

struct MemoryQuestion {
  std::string arithmetic = "default";
  int context = 0;  // 0: the model's, or less if that does not fit
  int sequences = 32;
  std::uint64_t kv_bytes = 0;  // set aside for keys and values; 0: what one request of the context needs
};

struct MemoryNeed {
  std::uint64_t weights = 0;
  std::uint64_t kv = 0;
  std::uint64_t working = 0;
  std::uint64_t total() const { return weights + kv + working; }
  // What keys and values may take of so much memory.
  std::uint64_t kv_room(std::uint64_t available) const {
    return available - std::min(available, weights + working);
  }
};

MemoryNeed memory_need(const Checkpoint& checkpoint, const MemoryQuestion& question, int context);

// What the system and the control group (v1 or v2) can still give, page cache included.
std::uint64_t memory_available();

// The context asked for; without one the model's, or the largest multiple of 1,024 from 4,096 on that fits.
Result<int> context_that_fits(const Checkpoint& checkpoint, const MemoryQuestion& question, std::uint64_t available);

}  // namespace capstan::engine
