// How it works: host after host until the page is full, this one first, then the others by name.
#include "agents/front/list.h"

#include <algorithm>

#include "agents/front/destination.h"
#include "agents/front/front.h"
#include "base/build_id.h"
#include "base/text.h"

namespace capstan::agents {
namespace {

constexpr std::int64_t kPageMax = 100;

// The client's question, for one host from one place on.
http::Request question(const http::Request& request, const std::string& after, std::int64_t limit) {
  std::string target = fmt::format("/v2/sandboxes?limit={}", limit);
  if (!after.empty()) target += "&nextToken=" + http::percent_encode(after);
  for (const auto& [name, value] : request.query) {
    if (name != "limit" && name != "nextToken")
      target += fmt::format("&{}={}", http::percent_encode(name), http::percent_encode(value));
  }
  return {.target = std::move(target)};
}

}  // namespace

http::Response list_sandboxes(const HostAddress& own, Places* places, const http::Request& request, const std::string& owner) {
  const std::int64_t wanted = parse_int(request.query_value("limit").value_or("")).value_or(kPageMax);
  std::int64_t room = std::min(wanted, kPageMax);
  std::string after = request.query_value("nextToken").value_or(""), from;
  if (const std::size_t slash = after.find('/'); slash != after.npos) {
    from = after.substr(0, slash);
    after.erase(0, slash + 1);
  }
  const std::vector<Place> others = places != nullptr ? places->with_sandboxes() : std::vector<Place>{};
  http::Client client;
  http::Response page = http::Response::json(200, Json::array());
  Json all = Json::array();
  std::string next, missing;
  // False: no more after this host.
  const auto take = [&](const http::Response& answer, const std::string& host) {
    const auto list = Json::parse(answer.body);
    if (!list || !list->is_array()) return true;
    for (const Json& one : list->items()) all.push_back(one);
    room -= std::ssize(list->items());
    next = answer.headers.get("x-next-token");
    if (!next.empty() && !host.empty()) next = host + "/" + next;
    return next.empty();
  };
  bool more = true;
  if (from.empty()) {
    const auto host = own.now();
    if (!host) return front_refusal(503, host.error().message);
    auto answer = Destination::of(*host).ask(client, question(request, after, room), owner);
    if (!answer) return front_refusal(503, answer.error().message);
    if (answer->status != 200) return *answer;
    more = take(*answer, "");
    if (host->build != build_id()) page.headers.set(kOtherBuildHeader, host->build);
  }
  for (const Place& place : others) {
    if (!more || place.host < from) continue;
    if (room <= 0) {
      next = place.host + "/";
      break;
    }
    const auto answer = Destination::of(place).ask(client, question(request, place.host == from ? after : "", room), owner);
    if (answer && answer->status == 200) {
      more = take(*answer, place.host);
      continue;
    }
    if (!missing.empty()) missing += "; ";
    missing += fmt::format("{}: {}", place.host,
                           answer ? fmt::format("it answers {}", answer->status) : answer.error().message);
  }
  page.body = all.dump();
  if (!next.empty()) page.headers.set("x-next-token", next);
  if (!missing.empty()) page.headers.set(kMissingHeader, missing);
  return page;
}

}  // namespace capstan::agents
