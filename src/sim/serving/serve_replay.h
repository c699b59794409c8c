// Serve replay: a trace of requests against replicas of a model behind a router, with the production routing
// code.
//
//   CAPSTAN_TRY(const auto requests, read_requests("mooncake_conversation.csv.zst"));
//   CAPSTAN_TRY(const ServeResult result, serve_replay(requests, {.model = "gpt-oss-120b", .replicas = 8}));
//
// The router counts tokens as the gateway does: a prompt's at dispatch, less what it takes to be cached,
// until the first token; an answer's (their mean so far; how long one gets is not known) until the last.
// Equal inputs, equal results.  Cost: about a second a million steps.  Failure: kInvalid for a model that
// does not fit, or is not known.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "sim/results.h"
#include "sim/serving/replica.h"

namespace capstan::sim {

enum class Route : std::uint8_t {
  kKvAware,      // routing::choose with what each replica has in its cache
  kKvEstimated,  // the same with what the router believes: what it has sent there
  kLeastLoaded,  // routing::choose without prefixes
  kRoundRobin,
};
std::string_view route_name(Route route);
Result<Route> route_of(std::string_view name);

struct ServeSetup {
  std::string model = "gpt-oss-120b";
  Engine engine;
  std::int64_t replicas = 1;
  Route route = Route::kKvAware;
  std::int64_t affinity_window_tokens = 32'768;
  std::int64_t block_tokens = 512;      // of the trace's prefix blocks
  std::int64_t arrivals_percent = 100;  // of the times between requests: 50 is twice the load
  double ttft_slo_s = 2, tpot_slo_s = 0.05;
};

struct ServeResult {
  std::vector<Served> served;  // as in the trace; ended_s < 0: refused, it fits on no replica
  std::int64_t refused = 0;
  std::int64_t input_tokens = 0, hit_tokens = 0;
  std::int64_t optimal_hit_tokens = 0;  // of one cache without end
  double load_max_over_mean = 0;  // of the tokens that replicas computed: prompts less hits, and answers
  double busy = 0;                // mean share of the time that replicas step
  double mean_running = 0;        // requests in a replica, over its time
  double duration_s = 0;
  std::int64_t attained = 0;  // requests within both objectives
  Results results;            // for the summary and the report
};
Result<ServeResult> serve_replay(const std::vector<Request>& requests, const ServeSetup& setup);

}  // namespace capstan::sim
