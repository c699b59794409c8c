// Queueing formulas, to hold simulated waits against.
//
//   const double mean = mgk_wait_s(lambda, k, service);        // M/G/k, or G/G/k with arrivals' variation
//
// Erlang C for M/M/k; times (Ca² + Cs²)/2 for general arrivals and service (Allen-Cunneen; for M/G/k
// Lee-Longton 1959). Good to about 10 % from 70 % of load up; no formula for percentiles is exact: an
// exponential tail is assumed.
#pragma once

#include <cstdint>

namespace capstan::sim {

struct Service {
  double mean_s = 0;
  double variation = 1;           // Cs²: variance over squared mean
  double arrivals_variation = 1;  // Ca²: 1 for Poisson
};

// Probability that one who comes must wait: `offered` = lambda x mean. 1 from offered >= k up.
double erlang_c(std::int64_t servers, double offered);
double mgk_wait_s(double lambda, std::int64_t servers, const Service& service);
// The wait that a share of them stays below.
double mgk_wait_quantile_s(double lambda, std::int64_t servers, const Service& service, double share);

}  // namespace capstan::sim
