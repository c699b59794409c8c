#include "sim/serving/goodput.h"

#include "base/assert.h"

namespace capstan::sim {
namespace {

constexpr std::int64_t kSlowestPercent = 1'000;

bool enough(const ServeResult& result, std::int64_t percent) {
  const auto asked = static_cast<std::int64_t>(result.served.size());
  return result.attained * 100 >= percent * asked;
}

}  // namespace

Result<Goodput> goodput(const std::vector<Request>& requests, ServeSetup setup,
                        std::int64_t percent_in_time) {
  CAPSTAN_ASSERT(percent_in_time > 0 && percent_in_time <= 100);
  if (requests.empty()) return fail(Code::kInvalid, "a trace without requests has no goodput");
  Goodput best;
  std::int64_t too_fast = 0, slow_enough = kSlowestPercent + 1;
  while (slow_enough - too_fast > 1) {
    // The first probe is the slowest: whether there is any answer.
    setup.arrivals_percent = slow_enough > kSlowestPercent ? kSlowestPercent : (too_fast + slow_enough) / 2;
    CAPSTAN_TRY(ServeResult result, serve_replay(requests, setup));
    if (enough(result, percent_in_time)) {
      slow_enough = setup.arrivals_percent;
      const double span_s =
          static_cast<double>(requests.back().time_us) * 1e-6 * static_cast<double>(slow_enough) / 100;
      const double rate = span_s > 0 ? static_cast<double>(requests.size()) / span_s : 0;
      best = {slow_enough, rate, std::move(result)};
    } else if (setup.arrivals_percent == kSlowestPercent) {
      return fail(Code::kNotFound,
                  "{}: at a tenth of the trace's rate fewer than {} % of the requests are in time",
                  route_name(setup.route), percent_in_time);
    } else {
      too_fast = setup.arrivals_percent;
    }
  }
  return best;
}

}  // namespace capstan::sim
