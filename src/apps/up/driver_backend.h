// The driver as the API and the gateway see it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>

#include "api/backend.h"
#include "controller/driver.h"
#include "controller/view.h"
#include "gateway/gateway.h"

namespace capstan::apps {

// Threads: safe from any thread; a call blocks its caller until the driver answers.
class DriverBackend final : public api::Backend, public gateway::ReplicaDirectory {
 public:
  // `on_shutdown` is called (from a handler's thread) when the API asks the process to leave.
  DriverBackend(controller::Driver& driver, std::function<void(bool stop_ranks)> on_shutdown);
  ~DriverBackend() override;

  Result<Json> submit(Command command) override;
  Result<protocol::SyncAnswer> sync(protocol::SyncRequest request) override;
  Result<void> read(std::function<void(const controller::State&)> callback) override;
  Result<std::vector<Json>> events(std::int64_t since, std::int64_t limit) override;
  bool wait_for_event(std::int64_t since, int timeout_ms) override;
  Result<void> ready() override;
  void shutdown(bool stop_ranks) override;

  std::vector<gateway::Replica> replicas() const override;
  // What is served follows from the state, and the state from its events.
  std::uint64_t version() const override { return static_cast<std::uint64_t>(newest_event_.load()) + 1; }
  std::vector<std::pair<std::string, std::string>> waiting() const override;
  std::string starter(const std::string& model) const override;

  // Services behind the gateway and their replicas; none once the driver leaves.
  controller::Served served() const;

  // What is added to the effect that starts a sandbox, before its worker gets it. Once, before the first sync.
  using StartSandbox = std::function<void(const controller::State&, protocol::StartRank&)>;
  void on_start_sandbox(StartSandbox add) { start_sandbox_ = std::move(add); }

  // From now on ready() may hold: whoever looks for this process finds it.
  void arrive() { arrived_ = true; }
  // From now on waits end at once: the process leaves.
  void leave();

 private:
  void add_to_starts(std::vector<protocol::Effect>& effects);

  controller::Driver& driver_;
  std::function<void(bool)> on_shutdown_;
  StartSandbox start_sandbox_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<std::int64_t> newest_event_{0};
  std::atomic<bool> arrived_{false};
  bool leaving_ = false;
  std::int64_t follow_id_ = 0;
};

}  // namespace capstan::apps
