#include "agents/front/destination.h"

#include "agents/front/front.h"
#include "agents/sessions/owner.h"
#include "base/text.h"

namespace capstan::agents {
namespace {

// Keys stay here: the host is told whose request it is. What is left in Authorization names a user in the sandbox.
http::Headers public_ones(const http::Headers& from) {
  http::Headers out;
  const http::Headers whole = http::end_to_end(from);
  for (const auto& [name, value] : whole.all()) {
    const std::string lower = to_lower(name);
    if (lower == "x-api-key" || (lower == "authorization" && !value.starts_with("Basic "))) continue;
    if (!lower.starts_with("x-capstan-")) out.add(name, value);
  }
  return out;
}

}  // namespace

Destination Destination::of(const Place& place) {
  return {.url = place.url,
          .prefix = place.prefix,
          .token = place.token,
          .incarnation = place.incarnation,
          .who = fmt::format("the worker of host {}, at {},", place.host, place.url)};
}

http::Request Destination::request(http::Request from, const std::string& owner) const {
  http::Request out{.method = std::move(from.method),
                    .target = prefix + from.target,
                    .headers = public_ones(from.headers),
                    .body = std::move(from.body),
                    .body_file = std::move(from.body_file)};
  out.headers.set(kHostTokenHeader, token);
  if (!owner.empty()) out.headers.set(kOwnerHeader, owner);
  return out;
}

Result<void> Destination::check(http::Response& answer) const {
  if (!incarnation.empty() && answer.headers.get(kWorkerHeader) != incarnation)
    return fail(Code::kUnavailable,
                "{} does not answer: something else does there; a worker listens on its own host only (docs/worker.md)", who);
  answer.headers = public_ones(answer.headers);
  return {};
}

Result<http::Response> Destination::ask(http::Client& client, http::Request from, const std::string& owner) const {
  auto answer = client.request(url, request(std::move(from), owner),
                               {.connect_timeout_ms = kConnectMs, .timeout_ms = kAnswerMs});
  if (!answer) return fail(Code::kUnavailable, "{} does not answer: {}", who, answer.error().message);
  CAPSTAN_CHECK(check(*answer));
  return answer;
}

http::Response front_refusal(int status, std::string_view why) {
  return http::Response::json(status, Json::object({{"code", status}, {"message", why}}));
}

}  // namespace capstan::agents
