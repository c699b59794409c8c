// One request's way through the gateway: authentication, admission, replica, metering. Private to gateway/.
//
// Threads: of the event loop, but for fly_after_blocking, which authenticates and begins on its caller's thread
// and goes on on the loop. Ownership: a flight keeps itself until it has ended.
#pragma once

#include "gateway/core.h"
#include "gateway/exchange.h"

namespace capstan::gateway {

// `caller` is null if the request must authenticate itself.
void fly(std::shared_ptr<Core> core, std::shared_ptr<Exchange> exchange, http::Request request, CallerPtr caller,
         const http::ResponseWriterPtr& writer);
void fly_after_blocking(std::shared_ptr<Core> core, std::shared_ptr<Exchange> exchange, http::Request request,
                        CallerPtr caller, const http::ResponseWriterPtr& writer);

}  // namespace capstan::gateway
