// How it works: a thread per replica that probes, sleeps and compares; it leaves when its rank does not run
// any more.
#include "worker/health_monitor.h"

#include <algorithm>

#include "base/log.h"
#include "worker/shim/records.h"

namespace capstan::worker {
namespace {

Json where(std::int64_t port) { return Json::object({{"host", "127.0.0.1"}, {"port", port}}); }

// Sleeps in small steps, so that a stop is seen soon. False when stopped.
bool pause(const std::stop_token& stop, std::int64_t pause_ms) {
  std::mutex mutex;
  std::condition_variable_any condition;
  std::unique_lock lock(mutex);
  condition.wait_for(lock, stop, std::chrono::milliseconds(pause_ms), [] { return false; });
  return !stop.stop_requested();
}

}  // namespace

HealthMonitor::HealthMonitor(Supervisor& supervisor, ReportQueue& reports, Probe probe)
    : supervisor_(supervisor), reports_(reports), probe_(std::move(probe)) {}

HealthMonitor::~HealthMonitor() {
  const std::lock_guard lock(mutex_);
  for (auto& [id, check] : checks_) check.request_stop();
  checks_.clear();  // joins
}

bool HealthMonitor::running(const RankId& id) const {
  return supervisor_.state_of(id) == RankState::kRunning;
}

void HealthMonitor::update() {
  const auto ranks = supervisor_.ranks();
  const auto is_running = [&](const RankId& id) {
    return std::any_of(ranks.begin(), ranks.end(),
                       [&](const auto& rank) { return rank.id == id && rank.state == RankState::kRunning; });
  };
  const std::lock_guard lock(mutex_);
  std::erase_if(announced_, [&](const auto& entry) { return !is_running(entry.first); });
  for (auto it = checks_.begin(); it != checks_.end();) {
    if (is_running(it->first)) {
      ++it;
      continue;
    }
    it->second.request_stop();
    it = checks_.erase(it);  // joins: at most one probe's timeout
  }
  for (const auto& rank : ranks) {
    if (rank.state != RankState::kRunning || rank.port == 0) continue;
    if (!rank.health) {
      if (rank.service && announced_.emplace(rank.id, true).second)
        reports_.push("rank_ready", rank.id, where(rank.port));
      continue;
    }
    if (checks_.contains(rank.id)) continue;
    checks_[rank.id] = std::jthread([this, id = rank.id, port = rank.port, health = *rank.health](
                                        std::stop_token stop) { check(stop, id, port, health); });
  }
}

void HealthMonitor::check(std::stop_token stop, RankId id, std::int64_t port, HealthSpec health) {
  const std::int64_t deadline_ms = shim::monotonic_ms() + health.start_timeout_ms;
  bool ready = false;
  bool was_ready = false;
  int failures = 0;
  while (!stop.stop_requested() && running(id)) {
    const auto answer = probe_(port, health.path, health.timeout_ms);
    if (stop.stop_requested() || !running(id)) return;
    const bool good = answer && *answer >= 200 && *answer < 300;
    failures = good ? 0 : failures + 1;
    if (good && !ready) {
      ready = was_ready = true;
      reports_.push("rank_ready", id, where(port));
    } else if (ready && failures >= kFailuresUntilUnready) {
      ready = false;
      const std::string why =
          answer ? fmt::format("GET {} answers {}", health.path, *answer) : answer.error().message;
      reports_.push("rank_unready", id, Json::object({{"why", why}}));
    } else if (!was_ready && health.start_timeout_ms > 0 && shim::monotonic_ms() >= deadline_ms) {
      const std::string why = fmt::format("not ready {} ms after its start", health.start_timeout_ms);
      reports_.push("rank_unready", id, Json::object({{"why", why}}));
      supervisor_.stop(id, std::nullopt, why);
      return;
    }
    // While it starts, look often: readiness is what users wait for.
    const std::int64_t pause_ms =
        ready ? health.interval_ms : std::min<std::int64_t>(health.interval_ms, 200);
    if (!pause(stop, pause_ms)) return;
  }
}

}  // namespace capstan::worker
