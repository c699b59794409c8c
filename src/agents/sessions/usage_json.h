// A record of what a session used, on its way from the session host to the front.
//
// Threads: pure.  Failure: kCorrupt (no id, or a member that is missing or no number).
#pragma once

#include "base/json.h"
#include "store/compute_usage.h"

namespace capstan::agents {

Json to_json(const store::ComputeRecord& record);
Result<store::ComputeRecord> compute_record_of(const Json& json);

}  // namespace capstan::agents
