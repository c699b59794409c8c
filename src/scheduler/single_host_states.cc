// How it works: a state's hosts are a heap from which those that left are removed only when they come to the
// top, or when more than half of it is stale. So a host that moves costs two heap operations, and the lowest
// is at hand.
#include "scheduler/single_host_states.h"

#include <algorithm>
#include <bit>
#include <functional>

#include "base/assert.h"

namespace capstan::scheduler {

void RoomStates::rehash(std::size_t slots) {
  slots_.assign(slots, kNone);
  for (std::uint32_t state = 0; state < rows_.size(); ++state) {
    std::size_t slot = rows_[state].hash & (slots - 1);
    while (slots_[slot] != kNone) slot = (slot + 1) & (slots - 1);
    slots_[slot] = state;
  }
}

std::uint32_t RoomStates::intern(const HostRoom& room) {
  if (slots_.size() < 2 * rows_.size() + 16) rehash(std::max<std::size_t>(2 * slots_.size(), 64));
  const std::uint64_t hash = hash_of(room);
  std::size_t slot = hash & (slots_.size() - 1);
  for (; slots_[slot] != kNone; slot = (slot + 1) & (slots_.size() - 1)) {
    const Row& known = rows_[slots_[slot]];
    if (known.hash == hash && known.room == room) return slots_[slot];
  }
  slots_[slot] = static_cast<std::uint32_t>(rows_.size());
  rows_.push_back({.room = room, .hash = hash, .count = 0, .members = {}});
  return slots_[slot];
}

void RoomStates::tidy(std::uint32_t state) {
  Row& row = rows_[state];
  const auto has_left = [&](std::uint32_t host) { return state_of_[host] != state; };
  while (!row.members.empty() && has_left(row.members.front())) {
    std::pop_heap(row.members.begin(), row.members.end(), std::greater<>());
    row.members.pop_back();
  }
  if (row.members.size() <= 2 * std::size_t{row.count} + 8) return;
  std::erase_if(row.members, has_left);
  std::sort(row.members.begin(), row.members.end());  // a heap as well
  row.members.erase(std::unique(row.members.begin(), row.members.end()), row.members.end());
}

void RoomStates::note(std::uint32_t state) {
  // A reader that is further behind than this does better to look at every state.
  if (log_.size() > 2 * rows_.size() + 65'536) {
    log_begin_ += log_.size();
    log_.clear();
  }
  log_.push_back(state);
}

void RoomStates::set(HostId host, const std::optional<HostRoom>& room) {
  const std::uint32_t at = index(host);
  if (at >= state_of_.size()) state_of_.resize(at + 1, kNone);
  const std::uint32_t after = room ? intern(*room) : kNone;
  const std::uint32_t before = state_of_[at];
  if (after == before) return;
  state_of_[at] = after;
  if (before != kNone) {
    CAPSTAN_ASSERT(rows_[before].count > 0);
    --rows_[before].count;
    tidy(before);
    note(before);
  }
  if (after != kNone) {
    Row& row = rows_[after];
    ++row.count;
    row.members.push_back(at);
    std::push_heap(row.members.begin(), row.members.end(), std::greater<>());
    tidy(after);
    note(after);
  }
}

void RoomStates::trim() {
  if (rows_.size() <= 2 * state_of_.size() + 65'536) return;
  std::vector<Row> kept;
  std::vector<std::uint32_t> number(rows_.size(), kNone);
  for (std::size_t state = 0; state < rows_.size(); ++state) {
    if (rows_[state].count == 0) continue;
    number[state] = static_cast<std::uint32_t>(kept.size());
    kept.push_back(std::move(rows_[state]));
  }
  rows_ = std::move(kept);
  rehash(std::bit_ceil(4 * rows_.size() + 64));
  for (std::uint32_t& state : state_of_) {
    if (state != kNone) state = number[state];
  }
  log_begin_ += log_.size();
  log_.clear();
  ++generation_;
}

}  // namespace capstan::scheduler
