// Blocks are got in reserve(), before a step. There, too, the sliding blocks behind the window are let go: not when the sequence
// advances, because tokens that were tried in vain are taken back by truncate() between two steps.
#include "engine/model/kv_cache.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "engine/kernels/attention.h"

namespace capstan::engine {

static_assert(KvCache::kPageTokens == kAttentionPage);

KvCache::KvCache(const ModelConfig& config, KvType type)
    : own_pool_(std::make_unique<KvPool>(config, type)),
      pool_(*own_pool_),
      kv_heads_(config.kv_heads),
      head_bytes_(static_cast<std::size_t>(kPageTokens * config.head_dim * pool_.element_bytes())) {}

KvCache::KvCache(KvPool& pool)
    : pool_(pool),
      kv_heads_(pool.kv_heads()),
      head_bytes_(static_cast<std::size_t>(kPageTokens * pool.head_dim() * pool.element_bytes())) {}

void KvCache::reset() {
  for (Table& table : tables_) table.clear();
  length_ = 0;
  sliding_begin_ = 0;
}

void KvCache::truncate(int length) {
  CAPSTAN_ASSERT(length >= 0 && length <= length_);
  CAPSTAN_ASSERT(window_begin_block(length) >= sliding_begin_);
  length_ = length;
}

std::uint64_t KvCache::bytes() const {
  std::uint64_t sum = 0;
  for (const KvKind kind : {KvKind::kFull, KvKind::kSliding}) {
    for (const KvBlockRef& block : table(kind)) sum += block ? pool_.block_bytes(kind) : 0;
  }
  return sum;
}

int KvCache::window_begin_block(int position) const {
  return std::max(0, position - pool_.window() + 1) / kPageTokens;
}

KvCache::Need KvCache::need(int count) const {
  Need need;
  for (int i = length_ / kPageTokens; i <= (length_ + count - 1) / kPageTokens; ++i) {
    const auto missing = [&](const Table& table) {
      return i >= static_cast<int>(table.size()) || !table[i] || table[i].references() > 1;
    };
    need.full += missing(table(KvKind::kFull));
    need.sliding += missing(table(KvKind::kSliding));
  }
  return need;
}

bool KvCache::own(KvKind kind, int index) {
  Table& blocks = table(kind);
  if (static_cast<int>(blocks.size()) <= index) blocks.resize(index + 1);
  if (blocks[index] && blocks[index].references() == 1) return true;
  KvBlockRef fresh = pool_.allocate(kind);
  if (!fresh) return false;
  if (blocks[index]) std::memcpy(fresh.data(), blocks[index].data(), pool_.block_bytes(kind));
  blocks[index] = std::move(fresh);
  return true;
}

bool KvCache::reserve(int count) {
  CAPSTAN_ASSERT(count > 0 && count <= kChunkTokensMax);
  Table& sliding = table(KvKind::kSliding);
  for (const int begin = window_begin_block(length_); sliding_begin_ < begin; ++sliding_begin_) {
    if (sliding_begin_ < static_cast<int>(sliding.size())) sliding[sliding_begin_] = {};
  }
  for (int i = length_ / kPageTokens; i <= (length_ + count - 1) / kPageTokens; ++i) {
    if (!own(KvKind::kFull, i) || !own(KvKind::kSliding, i)) return false;
  }
  return true;
}

KvBlockRef KvCache::block(KvKind kind, int index) const {
  const Table& blocks = table(kind);
  return index < static_cast<int>(blocks.size()) ? blocks[index] : KvBlockRef();
}

void KvCache::attach(KvKind kind, int index, KvBlockRef block) {
  Table& blocks = table(kind);
  if (static_cast<int>(blocks.size()) <= index) blocks.resize(index + 1);
  blocks[index] = std::move(block);
}

}  // namespace capstan::engine
