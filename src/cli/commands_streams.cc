// logs and events: what streams.
#include <chrono>
#include <cstdio>
#include <ctime>

#include "cli/commands.h"
#include "cli/events.h"

namespace capstan::cli {
namespace {

std::string clock_text(std::int64_t time_ms) {
  const std::time_t seconds = static_cast<std::time_t>(time_ms / 1000);
  std::tm local{};
  localtime_r(&seconds, &local);
  char text[16];
  std::strftime(text, sizeof text, "%H:%M:%S", &local);
  return text;
}

// One event in one line: time, number, type, then its members in their order.
void print_event(const Globals& globals, const Json& event) {
  if (globals.json()) {
    fmt::print("{}\n", event.dump());
    std::fflush(stdout);
    return;
  }
  std::string line =
      fmt::format("{}  {:>6}  {:<20}", clock_text(event.get_int("time_ms").value_or(0)),
                  event.get_int("seq").value_or(0), event.get_string("type").value_or("event"));
  for (const auto& [key, value] : event.members()) {
    if (key == "seq" || key == "time_ms" || key == "type" || value.is_object() || value.is_array()) continue;
    line += fmt::format(" {}={}", key, value.is_string() ? value.as_string() : value.dump());
  }
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

}  // namespace

int logs(const Globals& globals, const LogOptions& options) {
  auto api = ApiClient::connect(globals.connection);
  if (!api) return report(api.error());
  std::string path = fmt::format("/api/v1/workloads/{}/logs?rank={}", url_encode(options.name), options.rank);
  if (options.attempt > 0) path += fmt::format("&attempt={}", options.attempt);
  if (options.tail_bytes > 0) path += fmt::format("&tail={}", options.tail_bytes);
  if (options.follow) path += "&follow=1";
  const auto result = api->stream(path, [](std::string_view piece) {
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
    return true;
  });
  return result ? kOk : report(result.error());
}

int events(const Globals& globals, const EventOptions& options) {
  auto api = ApiClient::connect(globals.connection);
  if (!api) return report(api.error());
  if (options.follow) {
    const auto result = follow_events(*api, options.since, [&](const Json& event) {
      print_event(globals, event);
      return true;
    });
    return result ? kOk : report(result.error());
  }
  const auto answer = api->get(fmt::format("/api/v1/events?since={}", options.since));
  if (!answer) return report(answer.error());
  if (const Json* list = answer->find("events"); list != nullptr && list->is_array()) {
    for (const Json& event : list->items()) print_event(globals, event);
  }
  return kOk;
}

}  // namespace capstan::cli
