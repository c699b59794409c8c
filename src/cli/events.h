// The event stream of the control API, as the CLI reads it.
#pragma once

#include <cstdint>
#include <functional>

#include "cli/api_client.h"

namespace capstan::cli {

// Calls `on_event` for every event after `since` (-1: only new ones) until it returns false or Capstan
// leaves.
Result<void> follow_events(ApiClient& api, std::int64_t since,
                           const std::function<bool(const Json& event)>& on_event);

}  // namespace capstan::cli
