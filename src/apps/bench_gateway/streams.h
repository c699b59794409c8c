// The client side of the streams of `make bench-gateway`, light enough to leave the machine to what is measured.
//
// A token's delay is the time from the origin's write, which stands in its text, to the kernel's stamp of its arrival at our
// socket (SO_TIMESTAMPNS): the client may read late, in batches, without adding to it. Of tokens that arrive together
// the last one's stamp counts for all, so a delay is never told too short.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace capstan::bench_gateway {

struct StreamLoad {
  int streams = 1'000;
  int tokens = 250;  // each
};
struct StreamResult {
  std::int64_t delivered = 0;           // tokens
  int complete = 0;                     // streams that ended in order, with all their tokens
  std::vector<std::int64_t> delays_us;  // sorted
};
// `key` is a bearer key. kUnavailable if no connection can be made.
Result<StreamResult> run_streams(int port, const std::string& key, const StreamLoad& load);

// Wall-clock microseconds, as the stamps are.
std::int64_t stamp_us();

}  // namespace capstan::bench_gateway
