#include "apps/sim_serve.h"

#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "apps/sim_output.h"
#include "base/text.h"
#include "sim/serving/goodput.h"
#include "sim/serving/serve_replay.h"
#include "workload/quantity.h"

namespace capstan::apps {
namespace {

struct SimServe {
  std::string requests;
  sim::ServeSetup setup;
  std::string gpu = "h100";
  std::string policies = "kv-aware,least-loaded,round-robin";
  std::string ttft = "2s", tpot = "50ms";
  std::string json, report;
  std::int64_t goodput_percent = 0;  // 0: not asked for
};

Result<std::vector<sim::ServeResult>> serve(SimServe& options) {
  if (!sim::gpu_model_known(options.gpu))
    return fail(Code::kInvalid, "no kind of GPU is called '{}'", options.gpu);
  options.setup.engine.gpu = sim::gpu_model(options.gpu);
  CAPSTAN_TRY(const std::int64_t ttft_ms, workload::parse_duration_ms(options.ttft));
  CAPSTAN_TRY(const std::int64_t tpot_ms, workload::parse_duration_ms(options.tpot));
  options.setup.ttft_slo_s = static_cast<double>(ttft_ms) / 1'000;
  options.setup.tpot_slo_s = static_cast<double>(tpot_ms) / 1'000;
  CAPSTAN_TRY(const std::vector<sim::Request> requests, sim::read_requests(options.requests));
  std::vector<sim::ServeResult> out;
  for (const auto& policy : split(options.policies, ',')) {
    CAPSTAN_TRY(options.setup.route, sim::route_of(trim(policy)));
    CAPSTAN_TRY(sim::ServeResult result, sim::serve_replay(requests, options.setup));
    result.results.scenario = options.requests.substr(options.requests.rfind('/') + 1);
    out.push_back(std::move(result));
  }
  return out;
}

void print(const std::vector<sim::ServeResult>& all) {
  fmt::print("{:<14} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>9} {:>6}\n", "policy", "TTFT p50", "p95",
             "p99", "TPOT p50", "p95", "in time", "hits", "max/mean", "busy");
  for (const sim::ServeResult& one : all) {
    const auto& ttft = one.results.distributions[0];
    const auto& tpot = one.results.distributions[1];
    const auto percent = [](std::int64_t milli) { return fmt::format("{}.{} %", milli / 10, milli % 10); };
    fmt::print("{:<14} {:>6} ms {:>6} ms {:>6} ms {:>6} ms {:>6} ms {:>8} {:>8} {:>9.2f} {:>4.0f} %\n",
               one.results.variant, ttft.p50, ttft.p95, ttft.p99, tpot.p50, tpot.p95,
               percent(one.results.totals.at("slo_attained_milli")),
               percent(one.results.totals.at("hit_milli")), one.load_max_over_mean, one.busy * 100);
  }
  const auto& totals = all.front().results.totals;
  fmt::print("{} requests, {} refused; one cache without end would hit {}.{} %\n", totals.at("requests"),
             totals.at("refused"), totals.at("hit_optimum_milli") / 10, totals.at("hit_optimum_milli") % 10);
}

Result<void> print_goodput(SimServe& options) {
  CAPSTAN_TRY(const std::vector<sim::Request> requests, sim::read_requests(options.requests));
  std::FILE* out = options.json == "-" ? stderr : stdout;
  fmt::print(out, "highest rate with {} % within both objectives:\n", options.goodput_percent);
  for (const auto& policy : split(options.policies, ',')) {
    CAPSTAN_TRY(options.setup.route, sim::route_of(trim(policy)));
    const auto best = sim::goodput(requests, options.setup, options.goodput_percent);
    if (!best && best.error().code != Code::kNotFound) return std::unexpected(best.error());
    if (best) {
      fmt::print(out, "{:<14} {:.2f} requests/s, max/mean {:.2f}\n", trim(policy), best->requests_per_s,
                 best->result.load_max_over_mean);
    } else {
      fmt::print(out, "{:<14} none\n", trim(policy));
    }
  }
  return {};
}

int run(SimServe& options) {
  const auto all = serve(options);
  if (!all) {
    fmt::print(stderr, "capstan: {}\n", all.error().message);
    return 2;
  }
  if (options.json != "-") print(*all);
  if (options.goodput_percent > 0) {
    if (const auto searched = print_goodput(options); !searched) {
      fmt::print(stderr, "capstan: {}\n", searched.error().message);
      return 2;
    }
  }
  std::vector<sim::Results> results;
  for (const sim::ServeResult& one : *all) results.push_back(one.results);
  return write_results(results, options.json, options.report) ? 0 : 1;
}

}  // namespace

void add_sim_serve(CLI::App& sim, int& exit_code) {
  auto options = std::make_shared<SimServe>();  // shared by the options and the callback
  CLI::App* command = sim.add_subcommand("serve", "Rehearse replicas of a model with a trace of requests");
  command->footer(
      "Example:\n  capstan sim serve requests.csv --replicas 8 --ttft 2s --tpot 50ms --report serve.html");
  command->add_option("requests", options->requests, "CSV: arrival_s, input_tokens, output_tokens, hash_ids…")
      ->required();
  command->add_option("--model", options->setup.model, sim::served_model_names())->capture_default_str();
  command->add_option("--gpu", options->gpu, "kind of GPU")->capture_default_str();
  command->add_option("--gpus", options->setup.engine.gpus, "of a replica")
      ->check(CLI::Range(1, 72))
      ->capture_default_str();
  command->add_option("--replicas", options->setup.replicas)
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  command->add_option("--sequences", options->setup.engine.sequences_max, "at once in a replica")
      ->check(CLI::Range(1, 65'536))
      ->capture_default_str();
  command->add_option("--policies", options->policies, "kv-aware, kv-estimated, least-loaded, round-robin")
      ->capture_default_str();
  command
      ->add_option("--arrivals-percent", options->setup.arrivals_percent,
                   "of the times between requests; 50: twice the load")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  command->add_option("--ttft", options->ttft, "objective: first token within")->capture_default_str();
  command->add_option("--tpot", options->tpot, "objective: a token every")->capture_default_str();
  command
      ->add_option("--goodput", options->goodput_percent,
                   "also search the highest rate at which so many per cent are within both objectives")
      ->check(CLI::Range(1, 100));
  command->add_option("--json", options->json, "write the results to this file; - for stdout");
  command->add_option("--report", options->report, "write an HTML report to this file");
  command->callback([options, &exit_code] { exit_code = run(*options); });
}

}  // namespace capstan::apps
