// The gateway that `make bench-gateway` measures, a process of its own: as `capstan up` puts it together, with a key that
// every request must show, limits on its requests and tokens, and each request metered to SQL.
#pragma once

#include <string>

namespace capstan::bench_gateway {

// Before the origin at that port. Serves until standard input ends; prints the port first, after it has written the key into
// `folder`/key. Its tables lie in `folder`.
int run_gateway(int origin_port, bool http2, const std::string& folder);

}  // namespace capstan::bench_gateway
