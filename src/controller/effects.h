// Effects: what hosts must do, computed from the state; and what a host must do to agree with it.
//
// Pure. The complete environment of a rank (the torchrun contract, PORT, CAPSTAN_…) is composed here.
#pragma once

#include <vector>

#include "controller/decision.h"

namespace capstan::controller {

// What the event, just folded into `state`, implies.
void append_effects(const State& state, const Json& event, std::vector<HostEffect>& effects);

struct Reconciliation {
  std::vector<protocol::Effect> effects;  // to send, in order
  std::vector<protocol::Report> lost;     // ranks that ran there and are gone without a record
  std::vector<RankId> leftovers;          // run there and belong to nobody; `effects` stops them
};
// Compares the full list of a worker with what the state says that its host runs.
Reconciliation reconcile(const State& state, std::string_view host,
                         const std::vector<protocol::RankStatus>& ranks);

// What a host is told, in the wire's form: one effect a rank. Ranks that have meanwhile ended, or whose attempt is over, are
// left out: for them there is nothing left to do.
std::vector<protocol::Effect> render(const State& state, const HostEffect& effect);

// What a host was told and has not answered yet: starts of ranks that have not begun, stops of those that still live.
std::vector<HostEffect> outstanding(const State& state, HostId host);

// The start of one live rank.
protocol::Effect start_effect(const State& state, const RankId& id);

}  // namespace capstan::controller
