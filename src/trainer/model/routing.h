// Which expert takes which token: top-k of the router's logits, and the order in which rows are gathered by
// expert.
//
// Ties go to the lower expert. Rows of one expert stand together, padded to kRowMultiple with empty rows
// (token -1, share 0), so that each expert is one matrix product. Threads: one owner.  Cost: reuses its
// memory between steps.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "trainer/model/model.h"

namespace capstan::trainer {

struct Routing {
  std::vector<std::int32_t> expert;  // [T, k]
  std::vector<float> share;          // [T, k], softmax over the chosen logits
  std::vector<float> probability;    // [T, E], softmax over all
  std::vector<std::int32_t> slot;    // [T, k], the row among the gathered ones
  std::vector<std::int32_t> token;   // [rows], or -1
  std::vector<float> slot_share;     // [rows]
  std::vector<int> first_row;        // [E + 1]
  std::vector<std::int64_t> load;    // [E], times chosen

  int rows() const { return first_row.back(); }
  void route(const ModelConfig& config, const float* logits, int tokens);
  // E * sum_e f_e P_e of this layer.
  double balance_loss(int tokens) const;
  // The gradient of the router's logits: from that of the shares (by gathered row), and aux_factor times that
  // of the balance loss. out: [T, E].
  void backward(const ModelConfig& config, const float* dshare, int tokens, double aux_factor,
                std::span<float> out) const;

 private:
  void place(const ModelConfig& config);
};

}  // namespace capstan::trainer
