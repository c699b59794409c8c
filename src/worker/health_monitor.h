// HealthMonitor: asks the replicas of services whether they are ready, and reports when the answer changes.
//
// A replica is ready after its first good answer (HTTP 2xx) and unready after kFailuresUntilUnready bad ones
// in a row. One that is not ready start_timeout_ms after its start is stopped, so that it starts again
// elsewhere or anew. A service without a health check is ready as soon as it runs. Threads: one of its own
// per checked replica (a host has few). update() from any thread.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "worker/report_queue.h"
#include "worker/supervisor.h"

namespace capstan::worker {

inline constexpr int kFailuresUntilUnready = 3;

class HealthMonitor {
 public:
  // GET http://127.0.0.1:PORT/PATH: the status code, or why there was no answer.
  using Probe =
      std::function<Result<int>(std::int64_t port, const std::string& path, std::int64_t timeout_ms)>;

  HealthMonitor(Supervisor& supervisor, ReportQueue& reports, Probe probe);
  ~HealthMonitor();
  HealthMonitor(const HealthMonitor&) = delete;
  HealthMonitor& operator=(const HealthMonitor&) = delete;

  // Begins to check what runs now, ends what does not. Does not wait for checks in progress.
  void update();

 private:
  void check(std::stop_token stop, RankId id, std::int64_t port, HealthSpec health);
  bool running(const RankId& id) const;

  Supervisor& supervisor_;
  ReportQueue& reports_;
  Probe probe_;
  std::mutex mutex_;
  std::map<RankId, std::jthread> checks_;
  std::map<RankId, bool> announced_;  // services without a check
};

}  // namespace capstan::worker
