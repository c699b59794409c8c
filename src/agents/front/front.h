// The sandboxes' routes of the gateway's port: who asks is found out here, the rest is the session hosts'.
//
//   Front front({.address = data / "sessions.json", .authenticate = …, .record = …, .places = …});
//   front.mount(router);  …  front.start();  …  front.stop();
//
// The session host (apps/up/session_host.h) runs as root in a process of its own; the gateway does not. Requests travel
// to it over loopback with its token, answers come back piece by piece, with back-pressure. Those of a sandbox that the
// scheduler placed on another host travel to that host's worker, which passes them on. Requests of the control plane
// and of MCP need a caller; those within a sandbox need its token, which the host checks.
//
// Threads: requests are the server's event loop's, but lists (a pool's thread) and questions of where a placed sandbox is
// (resolver.h); one thread of its own fetches usage and hands it to `record`.
// Failure: 503 if the host does not run or cannot be reached, 409 for a placed sandbox that does not run or what another host's
// cannot do, 401 or 403 as `authenticate` says.
#pragma once

#include <condition_variable>
#include <expected>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "agents/front/places.h"
#include "http/server.h"
#include "store/compute_usage.h"

namespace capstan::agents {

inline constexpr std::string_view kHostTokenHeader = "x-capstan-host-token";
inline constexpr std::string_view kWorkerHeader = "x-capstan-worker";  // of a worker's answers: its incarnation
inline constexpr std::string_view kMissingHeader = "x-capstan-missing";  // of a list: hosts that are not in it, and why
inline constexpr std::string_view kOtherBuildHeader = "x-capstan-other-build";  // of a list: the session host's, if not ours

struct FrontOptions {
  std::filesystem::path address = {};  // the file in which the host says where it listens
  // The owner, as kOwnerHeader (sessions/owner.h) wants it; or what to answer instead.
  std::function<std::expected<std::string, http::Response>(const http::Request&)> authenticate = {};
  // Writes usage durably; what fails is brought again.
  std::function<Result<void>(const std::vector<store::ComputeRecord>&)> record = {};
  Places* places = nullptr;  // not owned; none: there is this host only
};

class Front {
 public:
  explicit Front(FrontOptions options);
  ~Front();
  Front(const Front&) = delete;
  Front& operator=(const Front&) = delete;

  void mount(http::Router& router);
  void start();  // begins to fetch usage
  void stop();   // fetches the last of it; before the server stops

 private:
  struct State;
  void fetch_own_usage();
  void fetch_others_usage(bool all);
  std::shared_ptr<State> state_;  // shared with handlers and relays under way
  std::mutex mutex_;
  std::condition_variable changed_;
  bool leaving_ = false;
  std::thread thread_;
};

}  // namespace capstan::agents
