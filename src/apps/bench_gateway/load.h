// The client side of `make bench-gateway`: closed-loop requests and timed streams over loopback.
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
RequestResult run_requests(const std::string& url, const RequestLoad& load);

struct StreamLoad {
  int streams = 1'000;
  int tokens = 250;  // each
};
struct StreamResult {
  std::int64_t delivered = 0;  // tokens
  int complete = 0;            // streams that ended in order, with all their tokens
  std::vector<std::int64_t> delays_us;  // sorted: from the origin's write to our read
};
StreamResult run_streams(const std::string& url, const StreamLoad& load);

// Of a sorted list.
double percentile(const std::vector<std::int64_t>& sorted, double fraction);

}  // namespace capstan::bench_gateway
