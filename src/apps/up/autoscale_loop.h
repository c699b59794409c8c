// Feeds what the gateway saw of each autoscaled service to the policy, once a second, and asks the controller
// for what it says.
//
//   const AutoscaleLoop loop(backend, gateway.watch());   // until it is destroyed
//
// Threads: one of its own.  Failure: a command that is refused (the service is gone, the disk is full) is
// logged and tried again at the next second that asks for it.
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "apps/up/driver_backend.h"
#include "gateway/service_watch.h"

namespace capstan::apps {

class AutoscaleLoop {
 public:
  // Both outlive the loop.
  AutoscaleLoop(DriverBackend& backend, const gateway::ServiceWatch& watch);
  ~AutoscaleLoop();
  AutoscaleLoop(const AutoscaleLoop&) = delete;
  AutoscaleLoop& operator=(const AutoscaleLoop&) = delete;

 private:
  void run();
  void step();

  DriverBackend& backend_;
  const gateway::ServiceWatch& watch_;
  std::map<std::string, routing::Autoscaler> scalers_;  // of the thread alone
  std::mutex mutex_;
  std::condition_variable changed_;
  bool leaving_ = false;
  std::thread thread_;
};

}  // namespace capstan::apps
