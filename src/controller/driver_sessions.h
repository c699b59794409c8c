// Sessions: the driver's side of its conversations with workers: who has called, what they are still to be
// told, who has gone silent. Not durable: a new controller begins with full lists.
//
// Threads: the driver's.  Time: monotonic milliseconds, given.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "controller/effects.h"
#include "controller/input.h"
#include "protocol/messages.h"

namespace capstan::controller {

inline constexpr std::size_t kReplacedIncarnationsMax = 16;

class Sessions {
 public:
  using Answer = std::function<void(Result<protocol::SyncAnswer>)>;
  struct Limits {
    std::int64_t suspect_after_ms = 0;
    std::int64_t lost_after_ms = 0;
    std::int64_t long_poll_ms = 0;
  };
  // Feeds one input to the controller, as part of the batch in progress.
  using Feed = std::function<void(decltype(Input::what))>;

  explicit Sessions(Limits limits) : limits_(limits) {}

  // A worker calls. What it says is fed; its answer is due when the batch is durable (`answer_due`) or later.
  void take(const State& state, protocol::SyncRequest request, Answer answer, std::int64_t now_ms,
            const Feed& feed);
  // Effects of the batch, now durable.
  void push(std::vector<HostEffect> effects);
  // Answers every call that has something to be told or has waited long enough.
  void answer_due(const State& state, bool drained, std::int64_t now_ms);
  // Hosts that have gone silent, or never called since the start.
  void detect(const State& state, std::int64_t now_ms, const Feed& feed);
  // When answer_due or detect has something to do next.
  std::int64_t next_deadline_ms(const State& state) const;
  // The loop stood still: silence meanwhile does not count.
  void forgive(std::int64_t pause_ms);
  // Nobody has said anything: after a reload of the state. Waiting calls get the error.
  void reset(const Error& error, std::int64_t now_ms);
  void started(std::int64_t now_ms) { started_ms_ = now_ms; }

 private:
  struct Call {
    Answer answer;
    std::int64_t deadline_ms = 0;
    std::int64_t reports_acked = 0;
    bool now = false;
    bool full = false;
  };
  struct Session {
    std::string incarnation;
    std::deque<std::string> replaced;
    bool synced = false;  // its list has been compared with the state
    std::int64_t seen_ms = 0;
    std::int64_t next_effect_id = 1;
    std::deque<protocol::Effect> effects;
    std::set<RankId> leftovers;  // run there, belong to nobody; while there are any, a lost host stays lost
    std::optional<Call> call;
    bool told_shutdown = false;
  };
  void enqueue(Session& session, protocol::Effect effect);
  void reply(Session& session, const State& state, bool drained);

  Limits limits_;
  std::map<std::string, Session> sessions_;
  std::int64_t started_ms_ = 0;
};

}  // namespace capstan::controller
