// Checker: what must be true after any number of crashes. Each violation is a sentence.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "house.h"
#include "load.h"

namespace capstan::crash {

struct Findings {
  std::vector<std::string> violations;
  std::size_t starts = 0;     // processes that ran
  std::size_t succeeded = 0;  // workloads
  std::size_t failed = 0;
  std::size_t cancelled = 0;
};

// Waits until every workload that exists has ended, then checks: each acknowledged submit exists and has
// ended; each acknowledged cancel of a sleeper holds; no (job, attempt, rank) started twice; each gang that
// succeeded ran in full; the worker keeps no record of what is over.
Findings check_outcome(House& house, const std::map<std::string, Submitted>& submitted);

// After `capstan down`: no process is left, and the journal replays to the state that it says.
std::vector<std::string> check_remains(House& house);

}  // namespace capstan::crash
