#include "sim/serving/queueing.h"

#include <cmath>
#include <limits>

namespace capstan::sim {

double erlang_c(std::int64_t servers, double offered) {
  const auto k = static_cast<double>(servers);
  if (offered >= k) return 1;
  double blocking = 1;  // Erlang B by its recursion
  for (std::int64_t i = 1; i <= servers; ++i)
    blocking = offered * blocking / (static_cast<double>(i) + offered * blocking);
  return blocking / (1 - offered / k * (1 - blocking));
}

double mgk_wait_s(double lambda, std::int64_t servers, const Service& service) {
  const double offered = lambda * service.mean_s, k = static_cast<double>(servers);
  if (offered >= k) return std::numeric_limits<double>::infinity();
  const double exponential = erlang_c(servers, offered) * service.mean_s / (k - offered);
  return exponential * (service.arrivals_variation + service.variation) / 2;
}

double mgk_wait_quantile_s(double lambda, std::int64_t servers, const Service& service, double share) {
  const double waits = erlang_c(servers, lambda * service.mean_s);
  if (1 - share >= waits) return 0;
  return mgk_wait_s(lambda, servers, service) / waits * std::log(waits / (1 - share));
}

}  // namespace capstan::sim
