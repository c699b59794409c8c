// What the control API needs of the controller. The driver stands behind it; tests script it.
//
// Threads: every method may be called from any thread. Failure: kExhausted while commands cannot be made
// durable (disk full, queue full), kUnavailable while leaving, else what the command itself says.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "controller/input.h"
#include "controller/state.h"
#include "protocol/messages.h"

namespace capstan::api {

class Backend {
 public:
  virtual ~Backend() = default;
  // Any of the things that controller/input.h lists.
  using Command = decltype(controller::Input::what);
  // Blocks until the command is durable (or refused); its answer.
  virtual Result<Json> submit(Command command) = 0;
  // A worker's long poll: blocks until there are effects for it, at most protocol::kLongPollMs.
  virtual Result<protocol::SyncAnswer> sync(protocol::SyncRequest request) = 0;
  // Calls back with the state, all of it durable, and waits for that.
  virtual Result<void> read(std::function<void(const controller::State&)> callback) = 0;
  // Events after number `since`, at most `limit`, each with "seq" and "time_ms".
  virtual Result<std::vector<Json>> events(std::int64_t since, std::int64_t limit) = 0;
  // Blocks until there is an event after `since`, or `timeout_ms` passed. False once the controller leaves.
  virtual bool wait_for_event(std::int64_t since, int timeout_ms) = 0;
  // Why commands are not accepted, if so: for /readyz.
  virtual Result<void> ready() = 0;
  // Asks the process to leave; with `stop_ranks` everything is stopped first, gracefully.
  virtual void shutdown(bool stop_ranks) = 0;
};

}  // namespace capstan::api
