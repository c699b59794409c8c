// The newest change has the number sequence_; changes_ holds the last of them, so the oldest kept one is
// sequence_ - changes_.size() + 1.
#include "engine/batching/kv_report.h"

#include <algorithm>

namespace capstan::engine {

void KvReport::note(Change change) {
  changes_.push_back(change);
  ++sequence_;
  if (changes_.size() > kChangesMax) changes_.pop_front();
}

void KvReport::added(std::uint64_t name, std::uint64_t before) {
  const std::lock_guard lock(mutex_);
  blocks_[name] = before;
  note({.name = name, .before = before, .added = true});
}

void KvReport::removed(std::uint64_t name) {
  const std::lock_guard lock(mutex_);
  const auto at = blocks_.find(name);
  if (at == blocks_.end()) return;  // two blocks of one name: told once
  note({.name = name, .before = at->second, .added = false});
  blocks_.erase(at);
}

KvReport::Page KvReport::since(std::uint64_t epoch, std::uint64_t sequence, std::size_t changes_max) const {
  const std::lock_guard lock(mutex_);
  Page page{.epoch = epoch_, .sequence = sequence_};
  if (epoch != epoch_ || sequence > sequence_ || sequence_ - sequence > changes_.size()) {
    page.reset = true;
    page.changes.reserve(blocks_.size());
    for (const auto& [name, before] : blocks_) page.changes.push_back({.name = name, .before = before, .added = true});
    return page;
  }
  const std::size_t behind = sequence_ - sequence, count = std::min(behind, changes_max);
  page.changes.assign(changes_.end() - static_cast<std::ptrdiff_t>(behind),
                      changes_.end() - static_cast<std::ptrdiff_t>(behind - count));
  page.sequence = sequence + count;
  page.more = count < behind;
  return page;
}

}  // namespace capstan::engine
