// SandboxRunner: the sandboxes (`kind: sandbox`) that the scheduler placed on this host; the session host has them.
//
//   SandboxRunner sandboxes(data, host, reports);
//   sandboxes.adopt();                                   // before the first sync
//
// A record on disk for each (D/worker/sandboxes/), so that a later worker finds them again: sandboxes live on when the worker
// dies. When the session host dies, they are gone, and reported as lost. An end is reported with how it came: time over,
// ended by a client, asked, or died.
// Threads: any; one of its own looks at the session host kLookMs apart, and up to kStartsAtOnceMax make sandboxes.
// Failure: becomes a report; what may succeed elsewhere or later is retryable.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "worker/rank_runner.h"
#include "worker/report_queue.h"
#include "worker/sandboxes/sandbox_host.h"

namespace capstan::worker {

inline constexpr int kLookMs = 200;
inline constexpr std::int64_t kHostAwayMsMax = 30'000;  // beyond it, nothing is expected of the session host any more
inline constexpr std::size_t kStartsAtOnceMax = 8;

class SandboxRunner final : public RankRunner {
 public:
  SandboxRunner(const DataDirectory& data, SandboxHost& host, ReportQueue& reports);
  ~SandboxRunner() override;  // sandboxes go on
  SandboxRunner(const SandboxRunner&) = delete;
  SandboxRunner& operator=(const SandboxRunner&) = delete;

  Result<void> adopt();

  bool takes(const Json& effect) const override { return effect.contains("session"); }
  void start(const Json& effect) override;
  bool stop(const RankId& id, std::int64_t grace_ms) override;
  bool forget(const RankId& id) override;
  void add_ranks(Json& list) const override;
  void stop_all();  // each with the grace of its spec
  std::size_t unended() const;

 private:
  struct One {
    Json effect;
    std::string session;  // once it runs
    bool making = false;
    std::int64_t grace_ms = -1;  // it is asked to end; -1: it is not
    bool told = false;           // the session host knows
    std::int64_t began_ms = 0;
    std::string report;  // its type, once it has ended
    Json exit;
    bool ended() const { return !report.empty(); }
  };

  void make(std::stop_token stop);
  void look(std::stop_token stop);
  void look_once();
  // `expected`: those that ran before the list was asked for.
  void compare(const std::vector<PlacedSandbox>& placed, const std::set<RankId>& expected);
  void end(const RankId& id, One& one, std::string_view type, Json exit);
  void tell(const RankId& id, const One& one);
  Result<void> save(const RankId& id, const One& one) const;

  const Descriptor directory_;
  SandboxHost& host_;
  ReportQueue& reports_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::map<RankId, One> all_;
  std::deque<RankId> waiting_;  // to be made
  std::vector<std::string> forgotten_;  // keys that the session host may forget, too
  std::int64_t away_since_ms_ = 0;  // of the looking thread
  std::vector<std::jthread> makers_;
  std::jthread looker_;
};

}  // namespace capstan::worker
