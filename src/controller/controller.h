// Controller: the decision core: inputs in, durable events and effects out. Deterministic.
//
//   Controller controller;
//   Outcome outcome = controller.apply({now_ms, Apply{specs}});
//   journal(outcome.events); then send(outcome.effects); then answer(outcome.answer);
//   while (controller.next_deadline_ms() <= now_ms) controller.apply({now_ms, Tick{}});
//
// It reads no clock, no socket, no random number: time and ids arrive in inputs. State is the fold of events,
// so replaying them (`replay`) gives the same state and the same hash. Events come into force at once, so the
// next input sees them; that nothing leaves the process before they are durable is the driver's duty
// (driver.h). Threads: one owner.  Cost: an input costs what it changes, plus one placement for each workload
// that might move.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "controller/decision.h"
#include "controller/input.h"
#include "controller/state.h"

namespace capstan::controller {

struct Outcome {
  std::int64_t time_ms = 0;         // when it was taken to happen: what the journal keeps
  Result<Json> answer = Json();     // to a command
  std::vector<Json> events;         // in order; empty: the input changed nothing
  std::vector<HostEffect> effects;  // in order for each host
};

class Controller {
 public:
  // Time never runs backwards: an earlier input is taken as if it came now.
  Outcome apply(const Input& input);
  // One event of the journal. kCorrupt if it does not fit.
  Result<void> replay(std::int64_t time_ms, const Json& event);

  const State& state() const { return state_; }
  // When a Tick has something to do; kNever if nothing waits for time.
  std::int64_t next_deadline_ms() const;
  // A drain is over: nothing runs any more.
  bool is_drained() const { return state_.draining && state_.live_ranks == 0; }

  // The state as text, a JSON value a line, streamed; the same state gives the same text. Cost: O(state).
  void write_snapshot(const std::function<void(std::string_view)>& sink) const;
  static Result<Controller> from_snapshot_text(std::string_view text);
  std::string state_hash() const;  // SHA-256 of that text, hexadecimal

 private:
  void settle(Decision& decision);
  void note(const Decision& decision);
  void advance_all(Decision& decision);

  State state_;
  // Hints, not state: who might move.
  std::set<std::int64_t> to_try_;
  bool try_all_ = true;
  std::int64_t looked_until_ms_ = 0;  // timers up to here have been looked at
};

}  // namespace capstan::controller
