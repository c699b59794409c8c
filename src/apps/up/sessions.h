// The sandboxes' routes of `capstan up`'s port: the front, with the gateway's keys and the store's usage.
//
//   auto front = make_front(data, tenancy, options, places);   front->mount(router);  front->start();  …  front->stop();
#pragma once

#include <memory>

#include "agents/front/front.h"
#include "apps/up/data_directory.h"
#include "apps/up/tenancy.h"

namespace capstan::apps {

// `tenancy` and `places` outlive it. A key comes as X-API-Key or as a bearer.
std::unique_ptr<agents::Front> make_front(const DataDirectory& data, Tenancy& tenancy, const TenancyOptions& options,
                                          agents::Places& places);
// Lines for the welcome: where sandboxes are, or why there are none. Waits for the session host, at most `wait_ms`.
std::string describe_sandboxes(const DataDirectory& data, const std::string& url, int wait_ms);

}  // namespace capstan::apps
