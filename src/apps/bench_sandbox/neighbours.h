// Question: what do a fork bomb, a memory bomb, a disk filler and an output flood cost those who run beside
// them?
#pragma once

#include "base/json.h"
#include "base/result.h"
#include "sandbox/launcher.h"

namespace capstan::bench_sandbox {

// Fifty well-behaved sandboxes at once, alone and then beside the four, in turns: their times, the ratio, and
// how long the host takes to start a program of its own meanwhile.
Result<Json> measure_neighbours(sandbox::Launcher& launcher, int rounds);

}  // namespace capstan::bench_sandbox
