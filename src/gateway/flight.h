// One request's way through the gateway: authentication, admission, replica, metering. Private to gateway/.
#pragma once

#include "gateway/core.h"
#include "gateway/exchange.h"

namespace capstan::gateway {

// Serves one request to its end. `caller` is null if it must authenticate itself.
// Threads: blocks its thread until the answer has ended.
void serve(Core& core, Exchange& exchange, http::Request request, CallerPtr caller,
           const http::ResponseWriterPtr& writer);

}  // namespace capstan::gateway
