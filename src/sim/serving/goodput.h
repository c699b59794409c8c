// Goodput at equal objectives: the highest rate of a trace's requests at which a share of them is still in
// time.
//
//   CAPSTAN_TRY(const Goodput best, goodput(requests, setup, 95));   // best.requests_per_s, best.result
//
// Times between requests are stretched or shrunk by one factor in whole per cents, searched by halving: a
// router's share in time falls with the rate, except for noise, which the search may land in. A comparison at
// one fixed load says little: past its knee any router looks arbitrarily bad.  Cost: some ten replays.
// Failure: as serve_replay; kNotFound if not even at a tenth of the trace's rate enough are in time.
#pragma once

#include "sim/serving/serve_replay.h"

namespace capstan::sim {

struct Goodput {
  std::int64_t arrivals_percent = 0;  // of the times between requests
  double requests_per_s = 0;
  ServeResult result;  // at that rate
};
Result<Goodput> goodput(const std::vector<Request>& requests, ServeSetup setup, std::int64_t percent_in_time);

}  // namespace capstan::sim
