// Sections: what capstan-bench-sim measures, one function each.
//
// Figures come from simulated runs of the real controller. Progress goes to stderr.  Failure: files that cannot be read;
// kCorrupt for a result that cannot be right.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "base/json.h"
#include "base/result.h"

namespace capstan::apps::bench_sim {

struct Options {
  double scale = 1;                   // of durations and of how many
  std::filesystem::path examples;     // examples/
  std::filesystem::path traces;       // where trace files lie
  std::filesystem::path philly;       // another trace of that form; empty: the one in `traces`
  int seeds = 20;
};

using Section = Result<Json> (*)(const Options& options);
Result<Json> million_gpu_year(const Options& options);
Result<Json> llama3(const Options& options);
Result<Json> muri(const Options& options);
Result<Json> philly(const Options& options);
Result<Json> serve_replay(const Options& options);

template <class... Args>
void progress(fmt::format_string<Args...> format, Args&&... args) {
  fmt::print(stderr, "bench-sim: {}\n", fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace capstan::apps::bench_sim
