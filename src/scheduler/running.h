// Running: what the scheduler knows of work that holds room: who it is, where, and what it would cost to stop it.
//
// Values, kept by the controller's fold beside the inventory: the inventory says what is held on a host, this says
// by whom and under which terms. Preemption (preemption.h), defragmentation (defragment.h) and explanations
// (explain.h) read both.  Memory: about 150 bytes a gang plus 24 a host that it is on; one row for all replicas of a
// service or tasks of an array.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "scheduler/placement.h"

namespace capstan::scheduler {

inline constexpr std::uint32_t kAnyCluster = UINT32_MAX;

struct Running {
  std::int64_t job = 0;
  // A gang stops as a whole. What is not a gang (replicas of a service, tasks) may lose the ranks on one host alone.
  bool gang = true;
  std::vector<Slice> slices = {};            // of a gang: where its ranks are, in order; empty otherwise
  std::vector<std::size_t> group_ends = {};  // of a gang: index after the last slice of each group
  std::vector<Capacity> each = {};           // what a rank holds, of each group
  std::uint32_t cluster = kAnyCluster;       // of a gang: the one that all of it is in, where that is known
  std::uint32_t tenant = 0;
  std::int64_t priority = 0;
  bool guaranteed = false;               // inside what its tenant is promised
  bool in_cell = false;                  // and that in whole cells
  bool preemptible = true;
  bool stopping = false;                 // its room will be free soon
  std::vector<Slice> leaving = {};       // of what is not a gang: ranks that are stopping, their room will be free soon
  std::int64_t began_ms = 0;
  std::int64_t checkpoint_ms = 0;        // it checkpoints so often; 0: never
  std::int64_t ends_by_ms = INT64_MAX;   // known end (time limit)
  std::int64_t size = 1;                 // of a gang: what its remaining time counts for (see Asker::rest)
  std::int64_t grace_ms = 0;             // between the signal and its end
};

// By job. Whoever looks at all of them walks `entries`, which lies in one piece: a look at 100,000 rows is a few milliseconds,
// where a walk from node to node of the map is tens.
class RunningJobs {
 public:
  using Map = std::map<std::int64_t, Running>;
  struct Entry {
    std::int64_t job = 0;
    const Running* row = nullptr;  // nullptr: it has ended
  };

  RunningJobs() = default;
  RunningJobs(const RunningJobs& other) : rows_(other.rows_) { list(); }
  RunningJobs(RunningJobs&&) noexcept = default;
  RunningJobs& operator=(const RunningJobs& other) { return *this = RunningJobs(other); }
  RunningJobs& operator=(RunningJobs&&) noexcept = default;

  Running& operator[](std::int64_t job);  // made if it is new
  void erase(Map::iterator at);
  void erase(std::int64_t job) {
    if (const auto at = rows_.find(job); at != rows_.end()) erase(at);
  }
  Map::iterator find(std::int64_t job) { return rows_.find(job); }
  Map::const_iterator find(std::int64_t job) const { return rows_.find(job); }
  Running& at(std::int64_t job) { return rows_.at(job); }
  const Running& at(std::int64_t job) const { return rows_.at(job); }
  bool contains(std::int64_t job) const { return rows_.contains(job); }
  std::size_t size() const { return rows_.size(); }
  bool empty() const { return rows_.empty(); }
  Map::iterator begin() { return rows_.begin(); }
  Map::iterator end() { return rows_.end(); }
  Map::const_iterator begin() const { return rows_.begin(); }
  Map::const_iterator end() const { return rows_.end(); }

  // In order of job.
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  void list();
  Map rows_;
  std::vector<Entry> entries_;  // at most half of them have ended
  std::size_t ended_ = 0;
};

// What stopping it now loses: GPU-milliseconds (of ranks without GPUs: milliseconds) since its last checkpoint, or
// since its start. Of one rank; a gang loses that times its ranks.
inline std::int64_t lost_ms(const Running& running, std::int64_t now_ms) {
  const std::int64_t ran = now_ms > running.began_ms ? now_ms - running.began_ms : 0;
  return running.checkpoint_ms > 0 ? ran % running.checkpoint_ms : ran;
}

// Who asks, to say whom it may displace.
struct Asker {
  std::int64_t job = 0;
  std::uint32_t tenant = 0;
  std::int64_t priority = 0;
  bool guaranteed = false;  // what it asks for is inside what its tenant is promised
  bool in_cell = false;     // and that in whole cells
  // Work of its own tenant that is inside the promise may go too: the asker then takes its part of the promise.
  bool takes_over = true;
  // Under orders that displace (least remaining time, or service: time × size): what it has left; 0: another order, or unknown.
  std::int64_t rest = 0;
  bool rest_by_size = false;
  std::int64_t now_ms = 0;
};

// A gang that has just begun is not displaced by a shorter one.
inline constexpr std::int64_t kQuantumMs = 360'000;

// Reclaim: work that is borrowed makes room for what is promised, whatever its priority, but not inside one tenant; and what is
// promised as an amount, which can be had anywhere, for what is promised as whole cells.
// Priority: lower makes room for higher, except that what is promised never makes room for what is borrowed. So whoever is
// displaced ranks lower, by (promise, priority), than the one who takes the room, and nobody goes round in circles.
// Rest: among equals the gang that has more left by an eighth makes room, where the order is by what is left. What a gang has
// left never grows, and that of one that waits stays, so here too nobody goes round in circles.
inline bool may_displace(const Asker& asker, const Running& victim) {
  if (!victim.preemptible || victim.stopping || victim.job == asker.job) return false;
  const auto right = [](const auto& of) { return of.in_cell ? 2 : of.guaranteed ? 1 : 0; };
  if (right(asker) > right(victim) && victim.tenant != asker.tenant) return true;
  if (asker.rest > 0 && victim.gang && victim.priority == asker.priority && right(asker) == right(victim) &&
      victim.ends_by_ms < INT64_MAX && asker.now_ms - victim.began_ms >= kQuantumMs)
    return (victim.ends_by_ms - asker.now_ms) / 1'000 * (asker.rest_by_size ? victim.size : 1) > asker.rest * 9 / 8;
  if (victim.priority >= asker.priority) return false;
  return right(asker) >= right(victim) || (victim.tenant == asker.tenant && asker.takes_over);
}

}  // namespace capstan::scheduler
