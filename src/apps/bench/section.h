// Sections: what capstan-bench-schedule measures, one function each, each in a process of its own.
//
// Every figure comes from the real controller: an input goes in, events come out and are encoded as the
// journal keeps them; the effects go to an executor that starts nothing. Progress goes to stderr. Failure:
// files that cannot be read; a decision that cannot be right (a proof fails) is kCorrupt.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "fleet/fleet_spec.h"

namespace capstan::apps::bench {

struct Options {
  double scale = 1;                  // of fleets and of how often something is done
  std::int64_t starts_and_ends = 0;  // of aging, instead of what the recipe says; 0: as it says
  std::filesystem::path fleets;      // examples/fleets
  std::filesystem::path directory;   // for journals

  // `count` at scale 1; at least `least`.
  std::int64_t scaled(std::int64_t count, std::int64_t least = 1) const;
};

// A JSON object with the section's figures, or its error.
using Section = Result<Json> (*)(const Options& options);
Result<Json> half_million(
    const Options& options);  // 5 million tasks on half a million GPUs' fleet; snapshot, recovery
Result<Json> gangs(const Options& options);    // on an aged fleet
Result<Json> scaling(const Options& options);  // one gang on fleets of 1k, 10k, 100k trays
Result<Json> tasks(const Options& options);    // a second, in memory and durable
Result<Json> queue(const Options& options);    // of 100,000 jobs

// A fleet file of `options.fleets`, scaled.
Result<fleet::FleetSpec> load_fleet(const Options& options, std::string_view file);
Result<fleet::FleetSpec> parse_fleet_text(const Options& options, std::string_view text,
                                          const std::string& source);

template <class... Args>
void progress(fmt::format_string<Args...> format, Args&&... args) {
  fmt::print(stderr, "bench-schedule: {}\n", fmt::format(format, std::forward<Args>(args)...));
}

// Runs a function in a forked child and returns what it returned, with "peak_rss_mib" of that process added.
// kIo if the child dies.
Result<Json> in_own_process(const std::function<Result<Json>()>& run);

}  // namespace capstan::apps::bench
