// SyncLoop: the conversation with the controller.
//
// Each turn sends what is new (reports, effects taken over, the full list of ranks when asked for) and brings
// back effects. Reports that arise while a turn waits interrupt it, so that an exit is known within
// milliseconds; a turn that carries reports itself is given kTurnMsMin first, so that a burst cannot keep it
// from ever being answered. A controller that is away is tried again after 20 ms, doubling to 1 s; ranks
// never notice. Answers of an older epoch than one seen before (a controller that has been replaced) are
// ignored. Threads: run() is one; the others from any thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "worker/controller_link.h"
#include "worker/rank_runner.h"
#include "worker/report_queue.h"
#include "worker/supervisor.h"

namespace capstan::worker {

inline constexpr std::int64_t kTurnMsMin = 30;
// A full list of ranks that the controller came to read late, after newer turns, would look like lost ranks.
inline constexpr std::int64_t kFullTurnMsMin = 1000;
inline constexpr std::int64_t kRetryMsMin = 20;
inline constexpr std::int64_t kRetryMsMax = 1000;
inline constexpr std::int64_t kDeliverMsMax = 7000;

struct WorkerIdentity {
  std::string worker;  // host name
  std::string incarnation;
  std::string build;
  Json resources;
  Json capabilities;
  std::string logs_url;
};

class SyncLoop {
 public:
  // `runners`: who runs what the supervisor does not.
  SyncLoop(WorkerIdentity identity, ControllerLink& link, Supervisor& supervisor, ReportQueue& reports,
           std::vector<RankRunner*> runners = {});

  // Until leave(). With `deliver`, what is still unreported is delivered first, if the controller answers
  // within kDeliverMsMax.
  void run();
  void leave(bool deliver);
  // There is something to report.
  void wake();
  // The controller asked this worker to stop its ranks and leave.
  bool shutdown_asked() const { return shutdown_asked_; }

 private:
  Json request() const;
  bool take_answer(const Json& answer, bool told_all);
  bool done(bool nothing_to_report, bool away) const;
  void apply(const Json& effect);
  bool rest(std::int64_t pause_ms);

  WorkerIdentity identity_;
  ControllerLink& link_;
  Supervisor& supervisor_;
  ReportQueue& reports_;
  const std::vector<RankRunner*> runners_;

  // Of run() alone.
  bool full_ = true;
  std::int64_t epoch_seen_ = 0;
  std::int64_t effects_done_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool in_turn_ = false;
  bool leaving_ = false;
  std::int64_t leave_by_ms_ = 0;
  std::atomic<bool> shutdown_asked_ = false;
  std::int64_t turn_began_ms_ = 0;
  bool turn_has_reports_ = false;
  bool turn_is_full_ = false;
  std::int64_t turn_last_sequence_ = 0;  // of the newest report in the turn's request
  void nudge(std::stop_token stop);
};

}  // namespace capstan::worker
