// What each kind of input does, apart from the workloads' own families (decision.h).
#pragma once

#include "base/json.h"
#include "controller/decision.h"
#include "controller/input.h"

namespace capstan::controller {

// {"results":[{"kind","name","action","changes","restarts"}]}, or why nothing of it was done.
Result<Json> apply_specs(Decision& decision, const Apply& apply);
Result<Json> cancel(Decision& decision, const Cancel& command);
void begin_epoch(Decision& decision, const BeginEpoch& begin);
void drain(Decision& decision);
void join_host(Decision& decision, const JoinHost& join);
void set_health(Decision& decision, const SetHealth& change);
void take_reports(Decision& decision, const Reports& reports);

}  // namespace capstan::controller
