#include "apps/up/session_wire.h"

#include <fmt/format.h>

#include "agents/front/front.h"
#include "agents/sessions/owner.h"
#include "gateway/openai/container_host.h"

namespace capstan::apps {

std::string owner_header(const gateway::Caller& caller) {
  return agents::header_of({caller.organisation_number, caller.project_number, caller.key_number});
}

Error session_error(int status, std::string_view body) {
  const auto json = Json::parse(body);
  const std::string message =
      json ? json->get_string("message").value_or("") : fmt::format("the sandboxes' host answered {}", status);
  const Code code = status == 429   ? Code::kExhausted
                    : status == 404 ? Code::kNotFound
                    : status == 400 ? Code::kInvalid
                    : status == 501 ? Code::kUnsupported
                                    : Code::kUnavailable;
  return {code, message, {}};
}

Result<http::Response> SessionWire::ask(const gateway::Caller& caller, http::Request request) {
  CAPSTAN_TRY(const auto host, address_.now());
  if (!host.refusal.empty()) return fail(Code::kUnsupported, "{}", host.refusal);
  request.headers.set(agents::kHostTokenHeader, host.token);
  request.headers.set(agents::kOwnerHeader, owner_header(caller));
  const http::ClientOptions options{.timeout_ms = kSessionHostTimeoutMs, .body_bytes_max = http::kUploadBytesMax};
  CAPSTAN_TRY(http::Response answer, client_.request(host.url, request, options));
  if (answer.status < 200 || answer.status > 299) return std::unexpected(session_error(answer.status, answer.body));
  return answer;
}

Result<Json> SessionWire::session_of(const gateway::Caller& caller, const std::string& container) {
  CAPSTAN_TRY(const http::Response answer,
              ask(caller, {.target = fmt::format("/v2/sandboxes?limit=1&metadata={}%3D{}", kContainerWord,
                                                 http::percent_encode(container))}));
  CAPSTAN_TRY(const Json list, Json::parse(answer.body));
  if (!list.is_array() || list.size() == 0)
    return fail(Code::kNotFound, "Container with id '{}' not found; containers end when they were idle for {} minutes.",
                container, gateway::openai::kContainerIdleMinutes);
  return list.items()[0];
}

Result<SessionWire::Sandbox> SessionWire::sandbox_of(const gateway::Caller& caller, const std::string& container) {
  CAPSTAN_TRY(const Json session, session_of(caller, container));
  const std::string id = session.get_string("sandboxID").value_or("");
  CAPSTAN_TRY(const http::Response answer, ask(caller, {.target = "/sandboxes/" + id}));
  CAPSTAN_TRY(const Json about, Json::parse(answer.body));
  return Sandbox{id, about.get_string("envdAccessToken").value_or("")};
}

Result<http::Response> SessionWire::ask(const gateway::Caller& caller, const Sandbox& sandbox, http::Request request) {
  request.headers.set("e2b-sandbox-id", sandbox.id);
  request.headers.set("x-access-token", sandbox.token);
  return ask(caller, std::move(request));
}

}  // namespace capstan::apps
