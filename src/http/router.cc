#include <algorithm>
#include <map>

#include "base/text.h"
#include "http/server.h"

namespace capstan::http {
namespace {

std::vector<std::string> segments_of(std::string_view path) {
  std::vector<std::string> out;
  for (const std::string_view part : split(path.substr(path.starts_with('/') ? 1 : 0), '/'))
    out.emplace_back(part);
  return out;
}

using Params = std::vector<std::pair<std::string, std::string>>;

// Each segment is decoded on its own, so that an encoded slash stays inside its segment.
std::optional<Params> match(const std::vector<std::string>& pattern, const std::vector<std::string>& raw) {
  Params params;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const std::string& wanted = pattern[i];
    if (wanted.starts_with('{') && wanted.ends_with("...}")) {
      std::string rest;
      for (std::size_t j = i; j < raw.size(); ++j) rest += (j > i ? "/" : "") + raw[j];
      params.emplace_back(wanted.substr(1, wanted.size() - 5), percent_decode(rest, false).value_or(rest));
      return params;
    }
    if (i >= raw.size()) return std::nullopt;
    const auto decoded = percent_decode(raw[i], false);
    if (!decoded) return std::nullopt;
    if (wanted.starts_with('{') && wanted.ends_with('}')) {
      if (decoded->empty()) return std::nullopt;
      params.emplace_back(wanted.substr(1, wanted.size() - 2), *decoded);
    } else if (wanted != *decoded) {
      return std::nullopt;
    }
  }
  if (pattern.size() != raw.size()) return std::nullopt;
  return params;
}

Response default_refusal(const Request& request, int status, const std::string& allow) {
  const bool method = status == 405;
  const std::string message =
      method ? fmt::format("{} is not allowed on {}; allowed: {}", request.method, request.path, allow)
             : fmt::format("there is nothing at {}", request.path);
  return Response::json(
      status, Json::object({{"error", Json::object({{"code", method ? "method_not_allowed" : "not_found"},
                                                    {"message", message}})}}));
}

}  // namespace

// Patterns without names are found by one look-up; the others are tried in the order in which they were added.
struct Router::Table {
  std::vector<Route> routes;
  std::map<std::string, std::vector<std::size_t>, std::less<>> exact;  // path to routes
  std::vector<std::pair<std::string, Refusal>> refusals;
  std::vector<std::pair<std::string, Guard>> guards;
  std::vector<std::pair<std::function<void(EventLoop&)>, std::function<void()>>> loop_hooks;
  struct LargeBody {
    std::string method, path;
    std::uint64_t bytes_max;
  };
  std::vector<LargeBody> large_bodies;

  void add(std::string method, std::string pattern, Handler handler, LoopHandler loop_handler) {
    if (!pattern.contains('{')) exact[pattern].push_back(routes.size());
    routes.push_back({std::move(method), segments_of(pattern), std::move(handler), std::move(loop_handler)});
  }
};

Router::Router() : table_(std::make_shared<Table>()) {}

void Router::add(std::string method, std::string pattern, Handler handler) {
  table_->add(std::move(method), std::move(pattern), std::move(handler), nullptr);
}

void Router::add_on_loop(std::string method, std::string pattern, LoopHandler handler) {
  table_->add(std::move(method), std::move(pattern), nullptr, std::move(handler));
}

void Router::allow_large_bodies(std::string method, std::string path, std::uint64_t bytes_max) {
  table_->large_bodies.push_back({std::move(method), std::move(path), bytes_max});
}

std::uint64_t Router::large_body_max(std::string_view method, std::string_view target) const {
  const std::string_view path = target.substr(0, target.find('?'));
  for (const auto& large : table_->large_bodies) {
    const bool matches = large.path.ends_with('/') ? path.starts_with(large.path) : path == large.path;
    if (matches && large.method == method) return large.bytes_max;
  }
  return 0;
}

void Router::add_loop_hooks(std::function<void(EventLoop&)> start, std::function<void()> stop) {
  table_->loop_hooks.emplace_back(std::move(start), std::move(stop));
}

void Router::set_refusal(std::string path_prefix, Refusal refusal) {
  table_->refusals.emplace_back(std::move(path_prefix), std::move(refusal));
}

void Router::add_guard(std::string path_prefix, Guard guard) {
  table_->guards.emplace_back(std::move(path_prefix), std::move(guard));
}

void Router::start_on(EventLoop& loop) const {
  for (const auto& [start, stop] : table_->loop_hooks) start(loop);
}

void Router::stop_on_loop() const {
  for (const auto& [start, stop] : table_->loop_hooks) stop();
}

Router::Target Router::route(Request& request) const {
  for (const auto& [prefix, guard] : table_->guards) {
    if (!request.path.starts_with(prefix)) continue;
    if (auto refused = guard(request)) return {.refusal = std::move(*refused)};
  }
  const auto found = [](const Route& route) {
    return route.handler ? Target{.handler = &route.handler} : Target{.loop_handler = &route.loop_handler};
  };
  const std::string_view raw_path = std::string_view(request.target).substr(0, request.target.find('?'));
  if (const auto exact = table_->exact.find(raw_path); exact != table_->exact.end()) {
    for (const std::size_t index : exact->second) {
      if (table_->routes[index].method == request.method) return found(table_->routes[index]);
    }
  }
  const auto raw = segments_of(raw_path);
  std::string allow;
  for (const Route& route : table_->routes) {
    auto params = match(route.segments, raw);
    if (!params) continue;
    if (route.method == request.method || (route.method == "GET" && request.method == "HEAD")) {
      request.params = std::move(*params);
      return found(route);
    }
    if (!allow.contains(route.method)) allow += (allow.empty() ? "" : ", ") + route.method;
  }
  return refuse(request, allow);
}

Router::Target Router::refuse(const Request& request, const std::string& allow) const {
  const int status = allow.empty() ? 404 : 405;
  Response response = default_refusal(request, status, allow);
  for (const auto& [prefix, refusal] : table_->refusals) {
    if (request.path.starts_with(prefix)) response = refusal(request, status, allow);
  }
  if (!allow.empty()) response.headers.set("allow", allow);
  return {.refusal = std::move(response)};
}

bool is_loopback(std::string_view host) {
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  if (host == "127.0.0.1" || host == "localhost" || host == "::1" || to_lower(host) == "localhost") return true;
  const auto parts = split(host, '.');
  return parts.size() == 4 && parts[0] == "127" && std::ranges::all_of(parts, [](std::string_view part) {
           const auto number = parse_int(part);
           return number && *number >= 0 && *number <= 255;
         });
}

std::optional<Response> refuse_foreign(const Request& request, const BrowserCheck& check) {
  const auto refuse = [](std::string message) {
    return Response::json(
        403, Json::object({{"error", Json::object({{"code", "denied"}, {"message", std::move(message)}})}}));
  };
  const std::string* const given = request.headers.find("host");
  const std::string_view host = given == nullptr ? std::string_view() : std::string_view(*given);
  std::string_view name = host;
  if (const auto colon = name.rfind(':');
      colon != std::string_view::npos && name.find(']', colon) == std::string_view::npos)
    name = name.substr(0, colon);
  if (!is_loopback(name) && std::ranges::find(check.hosts, name) == check.hosts.end()) {
    return refuse(fmt::format(
        "the request is for host '{}', which is not this server; use 127.0.0.1 or localhost", host));
  }
  const std::string* origin = request.headers.find("origin");
  if (!check.check_origin || origin == nullptr) return std::nullopt;
  if (*origin == fmt::format("http://{}", host) || *origin == fmt::format("https://{}", host)) return std::nullopt;
  return refuse(fmt::format("requests from the web page {} are not allowed", *origin));
}

std::string sse_event(std::string_view data, std::string_view event, std::string_view id) {
  std::string out;
  if (!event.empty()) out.append("event: ").append(event).append("\n");
  if (!id.empty()) out.append("id: ").append(id).append("\n");
  for (const std::string_view line : split(data, '\n')) out.append("data: ").append(line).append("\n");
  return out += '\n';
}

}  // namespace capstan::http
