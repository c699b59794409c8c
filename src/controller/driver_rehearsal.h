// Rehearsal: plays the workers of hosts that a fleet file declared present (`fleet apply --present`): nothing runs there, but
// placement, waiting, preemption and explanations are as they would be.
//
// Ranks start at once and run until they are asked to stop (or their time limit comes); tasks succeed at once.
// Threads: the driver's.  Cost: one report a rank, one for each range of tasks.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "controller/effects.h"
#include "controller/input.h"

namespace capstan::controller {

class Rehearsal {
 public:
  using Feed = std::function<void(decltype(Input::what))>;

  // The state was loaded: what such hosts had been told is told again.
  void started(const State& state);
  // Effects of the batch, now durable: keeps those that nobody else will carry out.
  void take(const State& state, std::span<const HostEffect> effects);
  bool has_answers() const { return !effects_.empty(); }
  // Reports what such workers would.
  void answer(const State& state, const Feed& feed);

 private:
  std::vector<HostEffect> effects_;
};

}  // namespace capstan::controller
