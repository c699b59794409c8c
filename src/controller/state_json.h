// The state as canonical JSON and back: snapshots, and the text whose SHA-256 is the state hash.
//
// Equal states give equal bytes: maps are ordered, computed indices are left out and rebuilt on reading.
#pragma once

#include "controller/state.h"

namespace capstan::controller {

Json state_to_json(const State& state);
Result<State> state_from_json(const Json& json);

}  // namespace capstan::controller
