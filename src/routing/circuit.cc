#include "routing/circuit.h"

#include <algorithm>

namespace capstan::routing {

void Circuit::succeeded() { *this = Circuit(); }

void Circuit::failed(std::int64_t now_ms, Failure failure) {
  const bool probe = probing_ && state(now_ms) == State::kHalfOpen;
  probing_ = false;
  ++failures_;
  // What was sent before it opened tells nothing new.
  if (state(now_ms) == State::kOpen) return;
  if (!probe && failure == Failure::kSoft && failures_ < kFailuresInRow) return;
  open_ms_ = open_ms_ == 0 ? kOpenMs : std::min(open_ms_ * 2, kOpenMsMax);
  open_until_ms_ = now_ms + open_ms_;
}

}  // namespace capstan::routing
