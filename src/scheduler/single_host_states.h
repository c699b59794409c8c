// RoomStates: which hosts have equal room, and the lowest host of each such state.
//
//   RoomStates states;
//   states.set(host, room_of(inventory, host));     // nullopt: may not take work now
//   std::uint32_t state = states.state_of(host);
//   states.lowest(state);                            // the host of lowest number in that state
//
// States are numbered as they are first seen and stay known when empty, so that scores kept by state serve
// again. Every state whose members changed is noted in a log, from which readers (the placer's rankings)
// catch up. Cost: set O(log hosts of the state); memory about 150 bytes a state and 8 to 16 a host.  Threads:
// one owner.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "scheduler/single_host_room.h"

namespace capstan::scheduler {

class RoomStates {
 public:
  static constexpr std::uint32_t kNone = UINT32_MAX;

  void set(HostId host, const std::optional<HostRoom>& room);
  // Forgets empty states if they have become many; then the numbers are new, and so is the generation.
  void trim();

  std::size_t hosts() const { return state_of_.size(); }  // that were ever set
  std::size_t states() const { return rows_.size(); }
  std::uint32_t state_of(HostId host) const {
    return index(host) < state_of_.size() ? state_of_[index(host)] : kNone;
  }
  const HostRoom& room(std::uint32_t state) const { return rows_[state].room; }
  // kNone if no host is in it.
  std::uint32_t lowest(std::uint32_t state) const {
    return rows_[state].members.empty() ? kNone : rows_[state].members.front();
  }

  std::uint64_t generation() const { return generation_; }
  // Positions in the log of changed states: [log_begin, log_end).
  std::uint64_t log_begin() const { return log_begin_; }
  std::uint64_t log_end() const { return log_begin_ + log_.size(); }
  std::uint32_t log_at(std::uint64_t position) const {
    return log_[static_cast<std::size_t>(position - log_begin_)];
  }

 private:
  struct Row {
    HostRoom room;
    std::uint64_t hash = 0;
    std::uint32_t count = 0;  // of hosts in it
    // A heap, least first, of hosts: all that are in it, and some that have left; never one that left on top.
    std::vector<std::uint32_t> members;
  };
  std::uint32_t intern(const HostRoom& room);
  void rehash(std::size_t slots);
  void tidy(std::uint32_t state);
  void note(std::uint32_t state);

  std::vector<Row> rows_;
  std::vector<std::uint32_t> slots_;  // states by hash, at most half full; a power of two
  std::vector<std::uint32_t> state_of_;
  std::vector<std::uint32_t> log_;
  std::uint64_t log_begin_ = 0;
  std::uint64_t generation_ = 0;
};

}  // namespace capstan::scheduler
