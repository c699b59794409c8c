// A circuit breaker: whether a replica that fails gets requests.
//
//   Circuit circuit;
//   if (circuit.admits(now_ms)) { circuit.sent(now_ms); … circuit.succeeded() or failed(now_ms, Failure::kSoft) or gave_up(); }
//
// Closed: all pass. It opens after kFailuresInRow soft failures without a success between them (broken answers, 502, timeouts),
// or at once after a hard one (nobody listens; 503: it loads or leaves). Open: none pass for a while, which doubles each time
// up to kOpenMsMax. Then half-open: one probe passes; its success closes the circuit, its failure opens it again.
// Pure: time is an argument, in milliseconds of any steady clock.  Threads: one owner.
#pragma once

#include <cstdint>

namespace capstan::routing {

class Circuit {
 public:
  static constexpr int kFailuresInRow = 5;
  static constexpr std::int64_t kOpenMs = 2'000;
  static constexpr std::int64_t kOpenMsMax = 30'000;

  enum class Failure { kSoft, kHard };
  enum class State { kClosed, kOpen, kHalfOpen };

  bool admits(std::int64_t now_ms) const {
    const State now = state(now_ms);
    return now == State::kClosed || (now == State::kHalfOpen && !probing_);
  }
  State state(std::int64_t now_ms) const {
    if (open_ms_ == 0) return State::kClosed;
    return now_ms < open_until_ms_ ? State::kOpen : State::kHalfOpen;
  }
  // A request goes there; in the half-open state it is the probe. Each is followed by one of the next three.
  void sent(std::int64_t now_ms) { probing_ = probing_ || state(now_ms) == State::kHalfOpen; }
  void succeeded();
  void failed(std::int64_t now_ms, Failure failure);
  void gave_up() { probing_ = false; }  // it ended without telling anything: its client left

 private:
  int failures_ = 0;
  std::int64_t open_ms_ = 0;  // 0: closed
  std::int64_t open_until_ms_ = 0;
  bool probing_ = false;
};

}  // namespace capstan::routing
