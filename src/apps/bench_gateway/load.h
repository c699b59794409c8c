// The client side of `make bench-gateway`: closed-loop requests over loopback.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace capstan::bench_gateway {

struct RequestLoad {
  int connections = 64;
  int requests = 20'000;
};
struct RequestResult {
  int good = 0;  // answered with 200 and the expected body
  double seconds = 0;
  std::vector<std::int64_t> latencies_us;  // sorted
};
// `key` is a bearer key.
RequestResult run_requests(const std::string& url, const std::string& key, const RequestLoad& load);

// Of a sorted list.
double percentile(const std::vector<std::int64_t>& sorted, double fraction);

}  // namespace capstan::bench_gateway
