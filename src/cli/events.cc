#include "cli/events.h"

namespace capstan::cli {

Result<void> follow_events(ApiClient& api, std::int64_t since,
                           const std::function<bool(const Json& event)>& on_event) {
  std::string pending;
  const std::string path =
      since < 0 ? "/api/v1/events?follow=1" : fmt::format("/api/v1/events?follow=1&since={}", since);
  // Server-sent events: only the lines "data: JSON" matter here.
  return api.stream(path, [&](std::string_view piece) {
    pending += piece;
    for (std::size_t end = pending.find('\n'); end != std::string::npos; end = pending.find('\n')) {
      const std::string line = pending.substr(0, end);
      pending.erase(0, end + 1);
      if (!line.starts_with("data:")) continue;
      const auto event = Json::parse(std::string_view(line).substr(5));
      if (event && !on_event(*event)) return false;
    }
    return true;
  });
}

}  // namespace capstan::cli
