// `capstan sim run SCENARIO`: rehearse a fleet with the production controller.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace capstan::apps {

struct SimRun {
  std::string scenario;
  std::int64_t seed = -1;  // -1: the scenario's
  int seeds = 1;           // so many runs, with seeds one after another
  std::string compare;     // names of variants, separated by commas; empty: all that the scenario has
  std::string trace;       // instead of the scenario's
  std::vector<std::string> traces;  // directories to look for traces in
  std::string json;        // a file, or "-"
  std::string report;      // an HTML file
  bool quiet = false;      // no progress
};

// Prints a summary; 0, 1 (a run failed, a file cannot be written) or 2 (the scenario is wrong).
int sim_run(const SimRun& options);

}  // namespace capstan::apps
