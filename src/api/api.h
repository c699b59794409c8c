// The control API: /api/v1 for people and programs, /worker/v1/sync for workers, /healthz, /readyz and
// /metrics.
//
//   Api api(backend, {.control_token = …, .worker_token = …}, registry);
//   api.mount(router);
//
// Who may: /api needs the control token, /worker the worker's, on loopback too; a foreign Host or Origin is
// refused before that, so that neither another user nor a web page can start processes. Errors:
// {"error":{"code","message",…}}; docs/api.md. Threads: handlers run on the server's pool; a follower or a
// worker's poll holds one thread (kFollowersMax of the former).
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "api/accounts.h"
#include "api/backend.h"
#include "http/client.h"
#include "http/server.h"

namespace prometheus {
class Registry;
}

namespace capstan::api {

inline constexpr int kFollowersMax = 32;

struct ApiOptions {
  std::string control_token;
  std::string worker_token;
  std::optional<Accounts> accounts = {};  // none: there are no tenants' routes
};

class Api {
 public:
  Api(Backend& backend, ApiOptions options, std::shared_ptr<prometheus::Registry> registry);
  ~Api();
  void mount(http::Router& router);
  void cancel();  // ends followers and log streams, for shutting down

 private:
  struct State;
  std::shared_ptr<State> state_;  // shared with the handlers
};

}  // namespace capstan::api
