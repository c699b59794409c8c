// ReportQueue: what the controller has still to be told, in order, until it acknowledges.
//
// Sequence numbers begin at 1 with each worker process (incarnation). Nothing here needs to be durable: exits
// stay on disk as exit.json and are reported again by the next worker. Threads: any.  Bound: a few reports
// per rank.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <vector>

#include "base/json.h"
#include "worker/rank_id.h"

namespace capstan::worker {

inline constexpr std::size_t kReportsPerSyncMax = 1000;

class ReportQueue {
 public:
  // `wake` is called after each push, from the pushing thread: the sync loop then sends without waiting.
  void on_push(std::function<void()> wake);

  // Adds "seq" and the rank's id to `fields`.
  void push(std::string_view type, const RankId& id, Json fields = Json::object());
  std::vector<Json> oldest(std::size_t count_max = kReportsPerSyncMax) const;
  void acknowledge(std::int64_t sequence);
  bool empty() const;
  // The newest sequence number given out; 0 if none.
  std::int64_t last_sequence() const;

 private:
  mutable std::mutex mutex_;
  std::function<void()> wake_;
  std::deque<Json> reports_;
  std::int64_t next_sequence_ = 1;
};

}  // namespace capstan::worker
