// Pages are made lazily and never given back before destruction; a ring page is found by its logical number
// modulo the ring's length. The ring holds the window, the longest chunk and the two pages that both may cut.
#include "engine/model/kv_cache.h"

#include <algorithm>

#include "base/assert.h"
#include "engine/kernels/attention.h"

namespace capstan::engine {

static_assert(KvCache::kPageTokens == kAttentionPage);

KvCache::KvCache(const ModelConfig& config)
    : head_dim_(config.head_dim), kv_heads_(config.kv_heads), layers_(config.layers) {
  for (int i = 0; i < config.layers; ++i) {
    if (config.layer_types[i] == LayerType::kSlidingAttention) {
      layers_[i].pages_max = (config.sliding_window + kChunkTokensMax) / kPageTokens + 2;
    }
  }
}

std::uint64_t KvCache::bytes() const {
  std::uint64_t pages = 0;
  for (const Layer& layer : layers_) {
    for (const auto& page : layer.pages) pages += page != nullptr;
  }
  return pages * 2 * kv_heads_ * kPageTokens * head_dim_ * sizeof(float);
}

void KvCache::reserve(int count) {
  CAPSTAN_ASSERT(count > 0 && count <= kChunkTokensMax);
  const std::size_t needed = (length_ + count - 1) / kPageTokens + 1;
  const std::size_t page_floats = std::size_t{2} * kv_heads_ * kPageTokens * head_dim_;
  for (Layer& layer : layers_) {
    const std::size_t pages =
        layer.pages_max == 0 ? needed : std::min(needed, static_cast<std::size_t>(layer.pages_max));
    while (layer.pages.size() < pages) layer.pages.push_back(std::make_unique<float[]>(page_floats));
  }
}

}  // namespace capstan::engine
