// KvCache: the keys and values of one sequence, for every layer.
//
//   auto kv = std::make_unique<KvCache>(model.config());
//   model.forward(tokens, *kv);     // appends tokens.size() positions
//   kv->reset();                    // the next sequence; memory is kept
//
// Pages of kPageTokens positions, taken when first written: a short sequence costs little. A full layer keeps
// every position; a sliding layer keeps a ring that holds the window plus the longest chunk of a step.
// K lies transposed in a page, [kv_head][head_dim][kPageTokens], so that scores run over keys in SIMD lanes;
// V is [kv_head][kPageTokens][head_dim]. Both f32.
// Cost: 8 * kv_heads * head_dim bytes per position and layer.
// Threads: one owner; during Model::step the model's threads read and write disjoint parts of it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/tensor/model_config.h"

namespace capstan::engine {

class KvCache {
 public:
  static constexpr int kPageTokens = 64;
  // The most positions that one step appends to one sequence (Model::step cuts longer inputs).
  static constexpr int kChunkTokensMax = 512;

  explicit KvCache(const ModelConfig& config);

  // Positions held so far: the position of the next token.
  int length() const { return length_; }
  void reset() { length_ = 0; }
  // Memory taken so far.
  std::uint64_t bytes() const;

  // For Model. Makes the pages of positions [length, length + count) exist in every layer.
  void reserve(int count);
  void advance(int count) { length_ += count; }
  // The page that holds `position` in `layer`, for one kv head.
  float* key_page(int layer, int position, int kv_head) {
    return page(layer, position) + static_cast<std::size_t>(kv_head) * kPageTokens * head_dim_;
  }
  float* value_page(int layer, int position, int kv_head) {
    return key_page(layer, position, kv_heads_ + kv_head);
  }

 private:
  struct Layer {
    int pages_max = 0;  // of the ring; 0: grows without end
    std::vector<std::unique_ptr<float[]>> pages;
  };
  float* page(int layer, int position) {
    Layer& l = layers_[layer];
    const int logical = position / kPageTokens;
    return l.pages[l.pages_max == 0 ? logical : logical % l.pages_max].get();
  }

  int head_dim_;
  int kv_heads_;
  int length_ = 0;
  std::vector<Layer> layers_;
};

}  // namespace capstan::engine
