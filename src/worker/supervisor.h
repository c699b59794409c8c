// Supervisor: the ranks of this host: starts them, stops them, sees them end, adopts those of an earlier
// worker.
//
//   Supervisor supervisor(store, launcher, reports);
//   supervisor.adopt();                       // before the first sync
//   supervisor.start(effect); supervisor.stop(id, grace_ms, why); supervisor.forget(id);
//
// All operations are idempotent on (job, attempt, rank). A rank is reported as ended only when nothing of it
// runs any more, so a next attempt never meets the last one. States: starting -> running -> exited, with
// "ending" between for a rank whose shim died: its processes are ended first, then it is recorded as lost.
// Threads: any; one own thread watches. start() may take milliseconds (disk). Failure: becomes a report.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/json.h"
#include "worker/launcher.h"
#include "worker/rank_store.h"
#include "worker/report_queue.h"

namespace capstan::worker {

enum class RankState { kStarting, kRunning, kEnding, kExited };

// What others (health checks, the log server) may know of a rank.
struct RankView {
  RankId id;
  RankState state = RankState::kStarting;
  std::int64_t port = 0;
  bool service = false;
  std::optional<HealthSpec> health;
};

class Supervisor {
 public:
  Supervisor(RankStore store, Launcher& launcher, ReportQueue& reports);
  ~Supervisor();  // stops watching; ranks go on
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  // Takes over every claim on disk; call once, first.
  Result<void> adopt();

  void start(const Json& effect);
  void stop(const RankId& id, std::optional<std::int64_t> grace_ms, std::string_view why);
  // Each with the grace of its spec.
  void stop_all(std::string_view why);
  void forget(const RankId& id);

  std::vector<RankView> ranks() const;
  std::optional<RankState> state_of(const RankId& id) const;
  Json ranks_json() const;  // [{"job","attempt","rank","state"}] for a full sync
  std::size_t unended() const;
  // Called (from the watching thread) after a rank began to run or has ended.
  void on_change(std::function<void()> changed);
  bool wait_all_ended(std::int64_t timeout_ms) const;

 private:
  struct Rank {
    StartSpec spec;
    RankState state = RankState::kStarting;
    bool launching = false;  // start() is at work on it, outside the lock
    pid_t shim_pid = -1;
    pid_t child_pid = -1;
    bool own_child = false;  // to be reaped
    Descriptor shim;         // pidfd
    std::vector<std::string> cgroups;
    std::string mark;
    std::optional<std::int64_t> stop_grace_ms;  // asked for before the shim could be told
    int looks = 0;                              // at a starting or ending rank: widens the pause
    Json exit;
  };

  void launch(const RankId& id, const StartSpec& spec, const Json& effect);
  void fail_start(const RankId& id, Rank& rank, const std::string& message, bool retryable);
  void adopt_rank(const RankId& id);
  void open_shim(Rank& rank, pid_t pid, std::uint64_t ticks);
  void send_stop(Rank& rank, std::int64_t grace_ms);

  void watch(std::stop_token stop);
  int pause_ms() const;
  void look_at(const RankId& id, Rank& rank, bool shim_ended);
  void shim_gone(const RankId& id, Rank& rank);
  void end_lost(const RankId& id, Rank& rank);
  void finish(const RankId& id, Rank& rank, Json exit);
  void report_state(const RankId& id, const Rank& rank);
  void wake();

  RankStore store_;
  Launcher& launcher_;
  ReportQueue& reports_;
  mutable std::mutex mutex_;
  mutable std::condition_variable ended_;
  std::map<RankId, Rank> ranks_;
  std::function<void()> changed_;
  Descriptor wake_;
  std::jthread watcher_;
};

// The report for an exit.json: "rank_exited" or "rank_start_failed" with its fields.
std::pair<std::string, Json> exit_report(const Json& exit);

}  // namespace capstan::worker
