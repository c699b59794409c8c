// capstan-bench-sim: what the simulator does, how fast, and how near it comes to what was published.
//
// How it works: each section (bench_sim/section.h) in turn. Progress goes to stderr; the last line of stdout
// is one JSON object. Exit codes: 0 done, 1 a section failed, 2 wrong command line.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "apps/bench_sim/section.h"
#include "base/build_id.h"
#include "base/text.h"

namespace capstan::apps::bench_sim {
namespace {

struct Named {
  std::string_view name;
  Section run;
};
constexpr Named kSections[] = {{"million_gpu_year", million_gpu_year},
                               {"llama3-54d", llama3},
                               {"muri-64", muri},
                               {"philly", philly},
                               {"serve-replay", serve_replay}};

int run(int argc, char** argv) {
  CLI::App app{"What the simulator does, how fast, and how near it comes to what was published."};
  Options options;
  options.examples = CAPSTAN_SOURCE_DIR "/examples";
  options.traces = CAPSTAN_SOURCE_DIR "/examples/traces";
  std::string only;
  app.add_option("--scale", options.scale, "of durations and numbers, for a quick look")
      ->check(CLI::Range(0.0001, 1.0));
  app.add_option("--only", only, "sections, separated by commas");
  app.add_option("--traces", options.traces, "the directory of the trace files")->capture_default_str();
  app.add_option("--philly", options.philly, "another trace of jobs of virtual clusters");
  app.add_option("--seeds", options.seeds, "of sections that average over several")
      ->check(CLI::Range(1, 1'000));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  Json out = Json::object({{"build", build_id()}, {"scale", options.scale}});
  const auto wanted = split(only, ',');
  for (const Named& section : kSections) {
    if (!only.empty() && std::find(wanted.begin(), wanted.end(), section.name) == wanted.end()) continue;
    auto result = section.run(options);
    if (!result) {
      fmt::print(stderr, "bench-sim: {}: {}\n", section.name, result.error().message);
      return 1;
    }
    out[std::string(section.name)] = *std::move(result);
  }
  fmt::print("{}\n", out.dump());
  return 0;
}

}  // namespace
}  // namespace capstan::apps::bench_sim

int main(int argc, char** argv) { return capstan::apps::bench_sim::run(argc, argv); }
