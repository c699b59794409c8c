// capstan-bench-openb: how much of a shared GPU cluster can each placement policy allocate?
//
// How it works: the OpenB workload is replayed once for each seed and policy (openb/replay.h says how, and
// where it is published). A line for each run, then one JSON object with the means over the seeds as the last
// line. Exit codes: 0 done, 1 the trace cannot be read or replayed, 2 wrong command line.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>

#include "apps/openb/replay.h"
#include "base/json.h"
#include "base/text.h"

namespace capstan::apps {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr std::int64_t kSeedsMax = 1'000;

struct Arguments {
  std::string nodes = CAPSTAN_SOURCE_DIR "/examples/traces/openb_nodes_gpu_node.csv.zst";
  std::string pods = CAPSTAN_SOURCE_DIR "/examples/traces/openb_pods_default.csv.zst";
  std::string seeds = "42-51";
  std::string policies = "best_fit,fgd";
  std::string ties = "lowest";
  std::string hosts = "shuffled";
};

int complain(const Error& error) {
  std::fprintf(stderr, "capstan-bench-openb: %s\n", error.message.c_str());
  return error.code == Code::kInvalid ? kExitUsage : kExitFailed;
}

// "42" or "42-51".
Result<std::vector<std::uint64_t>> parse_seeds(const std::string& text) {
  const std::size_t dash = text.find('-');
  const auto first = parse_int(std::string_view(text).substr(0, dash));
  const auto last = dash == std::string::npos ? first : parse_int(std::string_view(text).substr(dash + 1));
  if (!first || !last || *first < 0 || *last < *first || *last - *first >= kSeedsMax) {
    return fail(Code::kInvalid, "--seeds is '{}', not a number or a range like 42-51 of at most {} seeds",
                text, kSeedsMax);
  }
  std::vector<std::uint64_t> out;
  for (std::int64_t seed = *first; seed <= *last; ++seed) out.push_back(static_cast<std::uint64_t>(seed));
  return out;
}

double rounded(double percent) { return std::round(percent * 1'000) / 1'000; }

Result<Json> measure(const OpenbTrace& trace, const Arguments& arguments, const std::string& policy,
                     const std::vector<std::uint64_t>& seeds) {
  double at_100 = 0, at_130 = 0;
  for (const std::uint64_t seed : seeds) {
    CAPSTAN_TRY(const OpenbRun run, replay_openb(trace, {.policy = policy,
                                                         .seed = seed,
                                                         .ties_random = arguments.ties == "random",
                                                         .hosts_in_order = arguments.hosts == "file"}));
    at_100 += run.percent_at(100);
    at_130 += run.percent_at(130);
    fmt::print("{} seed {}: {:.2f}% at 100, {:.2f}% at 130; {} of {} pods placed; fingerprint {:016x}\n",
               policy, seed, run.percent_at(100), run.percent_at(130), run.placed, run.pods, run.fingerprint);
    std::fflush(stdout);
  }
  const auto count = static_cast<double>(seeds.size());
  return Json::object({{"alloc_at_100", rounded(at_100 / count)}, {"alloc_at_130", rounded(at_130 / count)}});
}

Result<Json> measure_all(const Arguments& arguments) {
  CAPSTAN_TRY(const auto seeds, parse_seeds(arguments.seeds));
  CAPSTAN_TRY(const OpenbTrace trace, read_openb(arguments.nodes, arguments.pods));
  Json out = Json::object();
  for (const std::string_view policy : split(arguments.policies, ',')) {
    CAPSTAN_TRY(out[policy], measure(trace, arguments, std::string(policy), seeds));
  }
  return out;
}

}  // namespace

int run(int argc, char** argv) {
  Arguments arguments;
  CLI::App app(
      "Replays the OpenB GPU-sharing workload (USENIX ATC'23) against the scheduler's single-host "
      "placement.\n"
      "Example: capstan-bench-openb --nodes openb_node_list_gpu_node.csv --pods openb_pod_list_default.csv");
  app.add_option("--nodes", arguments.nodes, "CSV of nodes, plain or zstd")->capture_default_str();
  app.add_option("--pods", arguments.pods, "CSV of pods, plain or zstd")->capture_default_str();
  app.add_option("--seeds", arguments.seeds, "a number, or a range; the result is the mean")
      ->capture_default_str();
  app.add_option("--policies", arguments.policies, "of best_fit, fgd, first_fit")->capture_default_str();
  app.add_option("--ties", arguments.ties, "which of several equally good hosts: lowest or random")
      ->check(CLI::IsMember({"lowest", "random"}))
      ->capture_default_str();
  app.add_option("--hosts", arguments.hosts, "how hosts are numbered: shuffled, or as in the file")
      ->check(CLI::IsMember({"shuffled", "file"}))
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  const Result<Json> result = measure_all(arguments);
  if (!result) return complain(result.error());
  fmt::print("{}\n", result->dump());
  return 0;
}

}  // namespace capstan::apps

int main(int argc, char** argv) { return capstan::apps::run(argc, argv); }
