// The worker's log server: GET /logs?job=&attempt=&rank=&tail_bytes=&follow=1, on a loopback port.
//
// Bearer token: the worker's. Without `follow` the log as it is; with it, also what is added, until the rank
// has ended. An unknown log is a 404; a log of a rank that this worker has forgotten is still served.
// Threads: the HTTP server's handlers, plus one of its own that feeds all followers (every kFollowMs).
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "http/server.h"
#include "worker/data_directory.h"
#include "worker/supervisor.h"

namespace capstan::worker {

inline constexpr int kFollowMs = 50;
inline constexpr std::size_t kFollowersMax = 1000;  // more are answered 503

class LogServer {
 public:
  // The results of a task array of this host, opened.
  using Results = std::function<Result<Descriptor>(std::int64_t job)>;
  // `more`: routes of others on the same port.
  static Result<std::unique_ptr<LogServer>> start(const DataDirectory& data, const Supervisor& supervisor, std::string token,
                                                  Results results = {}, const std::function<void(http::Router&)>& more = {});
  ~LogServer();
  int port() const;

 private:
  struct State;
  explicit LogServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace capstan::worker
