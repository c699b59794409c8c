// A live block is owned by its references; the pool only counts it. When the last reference goes, the block moves to the list of
// free ones of its kind; free memory of one kind gives way when the other needs it.
#include "engine/model/kv_pool.h"

#include <cstddef>

#include "base/assert.h"

namespace capstan::engine {

KvBlockRef::~KvBlockRef() {
  if (block_ != nullptr && --block_->references == 0) block_->pool->give_back(block_);
}

KvPool::KvPool(const ModelConfig& config, KvType type, KvPoolOptions options)
    : type_(type),
      head_dim_(config.head_dim),
      kv_heads_(config.kv_heads),
      window_(config.sliding_window),
      bytes_max_(options.bytes_max) {
  const std::size_t layer_bytes =
      std::size_t{2} * static_cast<std::size_t>(kv_heads_ * kBlockTokens * head_dim_ * element_bytes());
  for (const LayerType layer : config.layer_types) {
    const KvKind kind = layer == LayerType::kSlidingAttention ? KvKind::kSliding : KvKind::kFull;
    places_.push_back({kind, block_bytes_[static_cast<int>(kind)]});
    block_bytes_[static_cast<int>(kind)] += layer_bytes;
  }
}

KvPool::~KvPool() { CAPSTAN_ASSERT(live_[0] == 0 && live_[1] == 0); }

std::uint64_t KvPool::bytes() const {
  return static_cast<std::uint64_t>(live_[0]) * block_bytes_[0] + static_cast<std::uint64_t>(live_[1]) * block_bytes_[1];
}

bool KvPool::has_room(int full, int sliding) const {
  const std::uint64_t wanted = static_cast<std::uint64_t>(full) * block_bytes_[0] +
                               static_cast<std::uint64_t>(sliding) * block_bytes_[1];
  return bytes() <= bytes_max_ && wanted <= bytes_max_ - bytes();
}

KvBlockRef KvPool::allocate(KvKind kind) {
  const int own = static_cast<int>(kind), other = 1 - own;
  if (!has_room(kind == KvKind::kFull, kind == KvKind::kSliding)) return {};
  std::unique_ptr<KvBlock> block;
  if (!free_[own].empty()) {
    block = std::move(free_[own].back());
    free_[own].pop_back();
  } else {
    const std::uint64_t idle = free_[other].size() * block_bytes_[other];
    if (!free_[other].empty() && bytes() + idle + block_bytes_[own] > bytes_max_) free_[other].pop_back();
    block = std::make_unique<KvBlock>(std::make_unique<std::byte[]>(block_bytes_[own]), this, kind);
  }
  ++live_[own];
  return KvBlockRef(block.release());
}

void KvPool::give_back(KvBlock* block) {
  const int kind = static_cast<int>(block->kind);
  --live_[kind];
  free_[kind].emplace_back(block);
}

}  // namespace capstan::engine
