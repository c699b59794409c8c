// How it works: Mooncake's conversation trace (Qin et al., FAST'25) over eight replicas, by each policy: how
// much of the prompts came from caches, against one cache without end, which no router can beat, and at which
// rate 95 % of the requests are still in time. Azure's conversation trace (Patel et al., ISCA'24) on one replica
// with a bounded number of sequences, which then is a queue with that many servers: its waits against M/G/k for
// Poisson arrivals of the same requests, and its pace against the step time at the mean batch that Little's law
// gives.
#include "sim/serving/serve_replay.h"

#include <cmath>

#include "apps/bench_sim/section.h"
#include "base/prng.h"
#include "sim/serving/goodput.h"
#include "sim/serving/queueing.h"

namespace capstan::apps::bench_sim {
namespace {

using sim::ServeResult;
using sim::ServeSetup;

Json of(const sim::Distribution& one) {
  return Json::object(
      {{"mean", one.mean}, {"p50", one.p50}, {"p90", one.p90}, {"p95", one.p95}, {"p99", one.p99}});
}

constexpr std::int64_t kInTimePercent = 95;  // of the requests, for goodput

Json mooncake_policy(const ServeResult& result) {
  const double hits = static_cast<double>(result.hit_tokens),
               optimum = static_cast<double>(result.optimal_hit_tokens);
  return Json::object(
      {{"hit_rate", hits / static_cast<double>(result.input_tokens)},
       {"of_optimum", hits / optimum},
       {"ttft_ms", of(result.results.distributions[0])},
       {"tpot_ms", of(result.results.distributions[1])},
       {"in_time", static_cast<double>(result.attained) / static_cast<double>(result.served.size())},
       {"load_max_over_mean", result.load_max_over_mean},
       {"busy", result.busy}});
}

Result<Json> mooncake(const Options& options) {
  CAPSTAN_TRY(const auto requests, sim::read_requests(options.traces / "mooncake_conversation.csv.zst"));
  Json out = Json::object({{"requests", requests.size()}});
  // One H100 holds gpt-oss-120b with room for 370 blocks; eight GPUs, for 27,000.
  for (const std::int64_t gpus : {1, 8}) {
    Json policies = Json::object();
    for (const auto route : {sim::Route::kKvAware, sim::Route::kKvEstimated, sim::Route::kLeastLoaded,
                             sim::Route::kRoundRobin}) {
      ServeSetup setup{.replicas = 8, .route = route};
      setup.engine.gpus = gpus;
      CAPSTAN_TRY(const ServeResult result, sim::serve_replay(requests, setup));
      Json policy = mooncake_policy(result);
      if (const auto best = sim::goodput(requests, setup, kInTimePercent)) {
        policy["goodput"] = Json::object({{"requests_per_s", best->requests_per_s},
                                          {"load_max_over_mean", best->result.load_max_over_mean},
                                          {"ttft_ms", of(best->result.results.distributions[0])}});
      }
      policies[std::string(sim::route_name(route))] = std::move(policy);
      out["optimum_hit_rate"] =
          static_cast<double>(result.optimal_hit_tokens) / static_cast<double>(result.input_tokens);
      progress("serve-replay: {} GPUs, {}: {:.3f} of the optimum", gpus, sim::route_name(route),
               static_cast<double>(result.hit_tokens) / static_cast<double>(result.optimal_hit_tokens));
    }
    out[fmt::format("gpus_{}", gpus)] = std::move(policies);
  }
  return out;
}

// Sequences at once, so few that they are waited for.
constexpr std::int64_t kAzureServers = 22;

struct Moments {
  double mean = 0, variation = 0;
};
Moments moments(const std::vector<double>& values) {
  double sum = 0, squares = 0;
  for (const double value : values) sum += value, squares += value * value;
  const double count = static_cast<double>(values.size()), mean = sum / count;
  return {mean, (squares / count - mean * mean) / (mean * mean)};
}

Json against_formula(const ServeResult& result, const ServeSetup& setup,
                     const std::vector<sim::Request>& requests) {
  std::vector<double> stays, gaps, prefills;
  double context = 0, tokens = 0, prompts = 0;
  for (std::size_t i = 0; i < result.served.size(); ++i) {
    const sim::Served& one = result.served[i];
    stays.push_back(one.ended_s - one.admitted_s);
    prefills.push_back(one.first_s - one.admitted_s);
    if (i > 0) gaps.push_back(one.arrived_s - result.served[i - 1].arrived_s);
    const auto output = static_cast<double>(requests[i].output_tokens);
    context += (static_cast<double>(requests[i].input_tokens) + output / 2) * output;
    tokens += output;
    prompts += static_cast<double>(requests[i].input_tokens);
  }
  const Moments stay = moments(stays), gap = moments(gaps);
  const double lambda = 1 / gap.mean;
  const std::int64_t k = setup.engine.sequences_max;
  const sim::Service service{stay.mean, stay.variation, gap.variation};
  // The mean step: those who run (Little) with their context, and a prompt in as many steps as prompts come;
  // a fixed point.
  const double running = lambda * (stay.mean - moments(prefills).mean);
  const double prompt = prompts / static_cast<double>(requests.size());
  const auto takes = [&](double prefill) {
    return sim::step_s(*sim::served_model(setup.model), setup.engine,
                       {.decode_tokens = std::llround(running),
                        .context_tokens = std::llround(running * context / tokens),
                        .prefill_tokens = std::llround(prefill),
                        .prefill_pairs = prefill * prefill / 2});
  };
  double step = takes(0);
  for (int i = 0; i < 100; ++i) {
    const double with = 1 - std::exp(-lambda * step);
    step = (1 - with) * takes(0) + with * takes(prompt * lambda * step / with);
  }
  const auto quantile = [&](double share) {
    return 1'000 * sim::mgk_wait_quantile_s(lambda, k, service, share);
  };
  const double prefill_ms = 1'000 * moments(prefills).mean,
               wait_ms = 1'000 * sim::mgk_wait_s(lambda, k, service);
  const auto& waits = result.results.distributions[2];
  return Json::object({{"arrivals_variation", gap.variation},
                       {"service_mean_s", stay.mean},
                       {"service_variation", stay.variation},
                       {"load", lambda * stay.mean / static_cast<double>(k)},
                       {"ttft_ms", of(result.results.distributions[0])},
                       {"tpot_ms", of(result.results.distributions[1])},
                       {"wait_ms", of(waits)},
                       {"formula_wait_ms",
                        Json::object({{"mean", wait_ms}, {"p95", quantile(0.95)}, {"p99", quantile(0.99)}})},
                       {"formula_ttft_mean_ms", wait_ms + prefill_ms},
                       {"formula_tpot_mean_ms", 1'000 * step},
                       {"wait_ratio", static_cast<double>(waits.mean) / wait_ms}});
}

Result<Json> azure(const Options& options) {
  CAPSTAN_TRY(auto requests, sim::read_requests(options.traces / "azure_llm_2023_conv.csv.zst"));
  // A dense model, whose step hardly depends on the batch: servers do not slow each other, as the formula
  // wants it.
  ServeSetup setup{.model = "llama3-70b", .route = sim::Route::kLeastLoaded};
  setup.engine.gpus = 8;
  setup.engine.sequences_max = kAzureServers;
  CAPSTAN_TRY(const ServeResult recorded, sim::serve_replay(requests, setup));
  Json out = Json::object({{"requests", requests.size()}, {"servers", setup.engine.sequences_max}});
  out["as_recorded"] = against_formula(recorded, setup, requests);
  // The same requests in random order at random times.
  const double span = static_cast<double>(requests.back().time_us);
  Prng prng(7);
  for (std::size_t i = requests.size(); i > 1; --i) std::swap(requests[i - 1], requests[prng.below(i)]);
  double at = 0;
  for (auto& request : requests) {
    request.time_us = std::llround(at);
    const double unit = (static_cast<double>(prng.next() >> 11) + 1) / 9007199254740993.0;
    at -= std::log(unit) * span / static_cast<double>(requests.size());
  }
  CAPSTAN_TRY(const ServeResult poisson, sim::serve_replay(requests, setup));
  out["poisson"] = against_formula(poisson, setup, requests);
  return out;
}

}  // namespace

Result<Json> serve_replay(const Options& options) {
  CAPSTAN_TRY(Json first, mooncake(options));
  CAPSTAN_TRY(Json second, azure(options));
  return Json::object({{"mooncake", std::move(first)}, {"azure", std::move(second)}});
}

}  // namespace capstan::apps::bench_sim
