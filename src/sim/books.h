// Books: what a simulated run counts: GPU time by what it was good for, waits, completions, failures, and curves over time.
//
// Times are milliseconds; GPU time is GPU-milliseconds in 64 bits (292 million GPU-years).  Threads: one owner.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "controller/state.h"
#include "sim/results.h"

namespace capstan::sim {

class Books {
 public:
  // What an attempt of a gang or replica came to.
  struct Attempt {
    std::int64_t gpus = 0;
    std::int64_t wall_ms = 0;
    std::int64_t useful_ms = 0;  // work that was kept
    std::int64_t lost_ms = 0;    // work that must be done again
  };

  std::uint32_t kind(const std::string& name);
  void wait(std::uint32_t kind, std::int64_t ms) {
    kinds_[kind].waits.push_back(ms);
    waited_ms_ += ms;
    ++waited_;
  }
  void completed(std::uint32_t kind, std::int64_t ms) { kinds_[kind].completions.push_back(ms); }
  void gpus_in_use(std::uint32_t kind, std::int64_t change) { kinds_[kind].gpus += change; }
  void attempt(std::uint32_t kind, const Attempt& attempt);
  void failure(std::string_view cause, bool interrupted);
  void count(std::string_view what, std::int64_t by = 1) { counts_[std::string(what)] += by; }

  void sample(std::int64_t time_ms, const controller::State& state);
  // Everything but the scenario's name, seed, hash and inputs.
  void fill(Results& results, const controller::State& state);

 private:
  struct Kind {
    std::string name;
    std::int64_t gpus = 0;
    std::vector<std::int64_t> waits, completions;
    Attempt sum;  // useful, lost and wall in GPU-milliseconds
    std::vector<std::int64_t> curve;
  };
  std::vector<Kind> kinds_;
  std::map<std::string, std::int64_t, std::less<>> counts_;
  struct Cause {
    std::int64_t failures = 0, interruptions = 0;
  };
  std::map<std::string, Cause, std::less<>> causes_;
  void extra_charts(Results& results) const;

  std::vector<std::int64_t> times_, available_, used_, queued_, whole_, running_;
  std::vector<std::int64_t> waits_, useful_, lost_, scattered_, failed_, served_;  // at each sample
  std::int64_t waited_ms_ = 0, waited_ = 0;  // of those that have started since the last sample
  std::int64_t failures_ = 0;
  bool services_ = false;
  std::map<std::uint32_t, std::vector<std::int64_t>> tenants_;  // by id: GPUs in use
};

}  // namespace capstan::sim
