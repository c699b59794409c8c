#include "gateway/load_board.h"

#include <algorithm>

#include "base/assert.h"

namespace capstan::gateway {

std::vector<routing::ReplicaLoad> LoadBoard::view(const std::vector<Replica>& replicas,
                                                  const std::vector<std::string>& tried,
                                                  std::int64_t now_ms) const {
  const std::scoped_lock lock(mutex_);
  std::vector<routing::ReplicaLoad> out;
  for (const Replica& replica : replicas) {
    routing::ReplicaLoad load{replica.id, replica.ready, 0};
    if (const auto found = entries_.find(replica.id); found != entries_.end()) {
      load.tokens_outstanding = found->second.tokens;
      load.healthy = load.healthy && found->second.ejected_until_ms <= now_ms;
    }
    load.healthy = load.healthy && std::ranges::find(tried, replica.id) == tried.end();
    out.push_back(std::move(load));
  }
  return out;
}

void LoadBoard::begin(const std::string& id, std::int64_t tokens) {
  const std::scoped_lock lock(mutex_);
  entries_[id].tokens += tokens;
}

void LoadBoard::end(const std::string& id, std::int64_t tokens) {
  const std::scoped_lock lock(mutex_);
  Entry& entry = entries_[id];
  entry.tokens -= tokens;
  CAPSTAN_ASSERT(entry.tokens >= 0);
  // A replica of an earlier attempt never comes back under its id: forget it once it is idle.
  if (entry.tokens == 0 && entry.ejected_until_ms == 0) entries_.erase(id);
}

void LoadBoard::eject(const std::string& id, std::int64_t now_ms) {
  const std::scoped_lock lock(mutex_);
  entries_[id].ejected_until_ms = now_ms + kEjectionMs;
  std::erase_if(entries_, [&](const auto& entry) {
    return entry.second.tokens == 0 && entry.second.ejected_until_ms <= now_ms;
  });
}

}  // namespace capstan::gateway
