// How it works: position i of a document holds token i and the target i + 1.
#include "trainer/batch.h"

namespace capstan::trainer {

PackedBatch::PackedBatch(std::span<const Sample> samples) {
  for (const Sample& sample : samples) {
    if (sample.tokens.size() < 2) continue;
    starts_.push_back(static_cast<std::int32_t>(tokens_.size()));
    for (std::size_t i = 0; i + 1 < sample.tokens.size(); ++i) {
      tokens_.push_back(sample.tokens[i]);
      targets_.push_back(sample.is_target[i + 1] != 0 ? sample.tokens[i + 1] : -1);
    }
  }
}

Batch PackedBatch::view(double aux_weight) const {
  return {.tokens = tokens_, .targets = targets_, .document_starts = starts_, .aux_weight = aux_weight};
}

}  // namespace capstan::trainer
