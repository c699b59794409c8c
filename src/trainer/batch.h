// Samples to the model's Batch: documents back to back, each position's target the next token where that
// counts.
//
// A document of n tokens gives n - 1 positions: its last token predicts nothing.
// Threads: a value.  Cost: one copy.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "trainer/data.h"
#include "trainer/model/model.h"

namespace capstan::trainer {

class PackedBatch {
 public:
  explicit PackedBatch(std::span<const Sample> samples);
  // Views this object; `aux_weight` as in Batch.
  Batch view(double aux_weight) const;
  std::size_t positions() const { return tokens_.size(); }

 private:
  std::vector<std::int32_t> tokens_;
  std::vector<std::int32_t> targets_;
  std::vector<std::int32_t> starts_;
};

}  // namespace capstan::trainer
