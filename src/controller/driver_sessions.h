// Sessions: the driver's side of its conversations with workers: who has called, what they are still to be
// told, who has gone silent. Not durable: a new controller begins with full lists.
//
//   sessions.started(state, now_ms);
//   each turn: take() for every call; detect(); then, once durable, push() the effects and answer_due().
//
// Only workers that have ever called are watched: hosts that work without one (planning, simulation) are not
// silent. What a worker is to be told is kept compact and rendered when it is sent.
// Cost: O(what happened), never O(hosts), apart from started(), reset() and a drain's last turn; some 250
// bytes a host. Bounds: kDetectedPerTurnMax hosts are declared silent in one turn, the rest in the next.
// Threads: the driver's.  Time: monotonic milliseconds, given.
#pragma once

#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "controller/effects.h"
#include "controller/input.h"
#include "protocol/messages.h"

namespace capstan::controller {

inline constexpr std::size_t kReplacedIncarnationsMax = 16;
inline constexpr std::size_t kDetectedPerTurnMax = 1'000;

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

  // The state was loaded: every worker that it knows is expected to call.
  void started(const State& state, std::int64_t now_ms);
  // A worker calls. What it says is fed; its answer is due when the batch is durable (`answer_due`) or later.
  void take(const State& state, protocol::SyncRequest request, Answer answer, std::int64_t now_ms,
            const Feed& feed);
  // Effects of the batch, now durable.
  void push(std::span<const HostEffect> effects);
  // Answers every call that has something to be told or has waited long enough.
  void answer_due(const State& state, bool drained, std::int64_t now_ms);
  // Hosts that have gone silent, or never called since the start.
  void detect(const State& state, std::int64_t now_ms, const Feed& feed);
  // When answer_due or detect has something to do next.
  std::int64_t next_deadline_ms() const;
  // The loop stood still: silence meanwhile does not count.
  void forgive(std::int64_t pause_ms) { forgiven_ms_ += pause_ms; }
  // Nobody has said anything: before a reload of the state. Waiting calls get the error.
  void reset(const Error& error);

 private:
  struct Call {
    Answer answer;
    std::int64_t number = 0;
    std::int64_t reports_acked = 0;
    bool now = false;
    bool full = false;
  };
  // One thing to be told: compact, or (a comparison's outcome, a forget) as it will be sent.
  struct Pending {
    HostEffect compact;
    std::unique_ptr<protocol::Effect> ready;
  };
  struct Session {
    std::string host;
    std::string incarnation;  // empty: has not called since the start
    std::vector<std::string> replaced;
    bool synced = false;  // its list has been compared with the state
    bool told_shutdown = false;
    bool to_look_at = false;  // is in look_at_
    std::int64_t seen_ms = 0;
    std::int64_t next_effect_id = 1;
    std::vector<Pending> waiting;                        // in order
    std::unique_ptr<std::deque<protocol::Effect>> sent;  // rendered, not yet acknowledged; none: empty
    std::set<RankId> leftovers;  // run there, belong to nobody; while there are any, a lost host stays lost
    std::optional<Call> call;
    std::list<Session*>* watch = nullptr;  // the list that it is in
    std::list<Session*>::iterator place;
    bool has_effects() const { return !waiting.empty() || (sent && !sent->empty()); }
  };
  struct Deadline {
    std::int64_t at_ms = 0;
    Session* session = nullptr;
    std::int64_t number = 0;  // of the call
    bool passed() const { return !session->call || session->call->number != number; }
  };
  Session& session_of(const std::string& host);
  void index(Session& session, HostId host);
  void renew(Session& session, const protocol::SyncRequest& request);
  void compare(const State& state, Session& session, const protocol::SyncRequest& request, const Feed& feed);
  void tell(Session& session, protocol::Effect effect);
  void acknowledge(Session& session, std::int64_t effects_done);
  void move_to(Session& session, std::list<Session*>& list);
  void seen(Session& session, std::int64_t now_ms);
  void forget_what_was_due(Session& session);
  void look_at(Session& session);
  void render_waiting(Session& session, const State& state);
  void reply(Session& session, const State& state, bool drained);

  Limits limits_;
  std::unordered_map<std::string, Session> sessions_;  // never iterated where order matters
  std::vector<Session*> by_host_;                      // by HostId; null: no worker
  std::vector<Session*> look_at_;                      // something has changed for their calls
  std::deque<Deadline> deadlines_;                     // of calls, in order
  std::list<Session*> fresh_;                          // heard of lately, in order of seen_ms
  std::list<Session*> silent_;                         // suspect, in order of seen_ms
  std::int64_t forgiven_ms_ = 0;                       // seen_ms does not count it
  std::int64_t last_call_ = 0;
  bool all_told_ = false;
};

}  // namespace capstan::controller
