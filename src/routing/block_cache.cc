// How it works: blocks lie in one vector; those without pins are linked from the oldest to the newest. A
// chain is linked from its end, so that its end is the older.
#include "routing/block_cache.h"

#include <algorithm>

namespace capstan::routing {

std::size_t BlockCache::match(std::span<const std::uint64_t> chain) const {
  std::size_t count = 0;
  while (count < chain.size() && known_.count(chain[count]) > 0) ++count;
  return count;
}

void BlockCache::unlink(std::uint32_t at) {
  Block& block = blocks_[at];
  (block.older == kNone ? oldest_ : blocks_[block.older].newer) = block.newer;
  (block.newer == kNone ? newest_ : blocks_[block.newer].older) = block.older;
  block.older = block.newer = kNone;
}

void BlockCache::link(std::uint32_t at) {
  Block& block = blocks_[at];
  block.older = newest_;
  block.newer = kNone;
  (newest_ == kNone ? oldest_ : blocks_[newest_].newer) = at;
  newest_ = at;
}

bool BlockCache::make_room() {
  if (known_.size() + reserved_ < capacity_) return true;
  if (oldest_ == kNone) return false;
  drop_oldest();
  return true;
}

void BlockCache::drop_oldest() {
  const std::uint32_t victim = oldest_;
  unlink(victim);
  known_.erase(blocks_[victim].key);
  free_.push_back(victim);
}

std::uint32_t BlockCache::add(std::uint64_t key) {
  std::uint32_t at;
  if (free_.empty()) {
    at = static_cast<std::uint32_t>(blocks_.size());
    blocks_.emplace_back();
  } else {
    at = free_.back();
    free_.pop_back();
  }
  blocks_[at] = Block{.key = key};
  known_.emplace(key, at);
  return at;
}

void BlockCache::touch(std::span<const std::uint64_t> chain) {
  chain = chain.first(std::min(chain.size(), capacity_ - std::min(capacity_, reserved_ + pinned_)));
  const auto renew = [this](std::span<const std::uint64_t> part) {
    for (std::size_t i = part.size(); i-- > 0;) {
      const auto at = known_.find(part[i]);
      if (at == known_.end() || blocks_[at->second].pins > 0) continue;
      unlink(at->second);
      link(at->second);
    }
  };
  renew(chain);  // so that making room takes others
  const std::size_t had = match(chain);
  for (std::size_t i = chain.size(); i-- > had;) {
    if (known_.count(chain[i]) > 0) continue;
    if (!make_room()) return;
    link(add(chain[i]));
  }
  renew(chain.first(had));  // newer than what follows them
}

bool BlockCache::pin(std::span<const std::uint64_t> chain) {
  std::size_t more = 0;
  for (const std::uint64_t key : chain) {
    const auto at = known_.find(key);
    more += at == known_.end() || blocks_[at->second].pins == 0;
  }
  if (pinned_ + more + reserved_ > capacity_) return false;
  for (const std::uint64_t key : chain) {
    const auto at = known_.find(key);
    if (at == known_.end()) continue;
    if (blocks_[at->second].pins++ > 0) continue;
    unlink(at->second);
    ++pinned_;
  }
  for (const std::uint64_t key : chain) {
    if (known_.count(key) > 0) continue;
    make_room();
    blocks_[add(key)].pins = 1;
    ++pinned_;
  }
  return true;
}

void BlockCache::unpin(std::span<const std::uint64_t> chain) {
  for (std::size_t i = chain.size(); i-- > 0;) {
    const auto at = known_.find(chain[i]);
    if (at == known_.end() || blocks_[at->second].pins == 0) continue;
    if (--blocks_[at->second].pins > 0) continue;
    link(at->second);
    --pinned_;
  }
}

bool BlockCache::reserve(std::size_t blocks) {
  if (pinned_ + reserved_ + blocks > capacity_) return false;
  reserved_ += blocks;
  while (known_.size() + reserved_ > capacity_) drop_oldest();
  return true;
}

}  // namespace capstan::routing
