#include "agents/e2b/e2b.h"

#include "agents/e2b/connect.h"
#include "base/base64.h"
#include "base/text.h"

namespace capstan::agents::e2b {
namespace {

// Who a call wants to be: Basic authorization with a name and no password. There is one user.
Result<void> check_user(const http::Request& request) {
  const std::string header = request.headers.get("authorization");
  if (!header.starts_with("Basic ")) return {};
  const auto decoded = base64_decode(trim(std::string_view(header).substr(6)));
  if (!decoded) return fail(Code::kInvalid, "the user in Authorization is not base64");
  const std::string name = decoded->substr(0, decoded->find(':'));
  if (name.empty() || name == kUser) return {};
  return fail(Code::kInvalid, "there is no user '{}' in this sandbox; commands run as '{}'", name, kUser);
}

std::string token_of(const http::Request& request) {
  const std::string* token = request.headers.find("x-access-token");
  if (token == nullptr) token = request.headers.find("e2b-traffic-access-token");
  return token != nullptr ? *token : std::string();
}

}  // namespace

Result<SessionPtr> session_of(const http::Request& request, const SessionManager& manager) {
  const std::string id = request.headers.get("e2b-sandbox-id");
  if (id.empty()) return fail(Code::kInvalid, "the request names no sandbox (header E2b-Sandbox-Id)");
  CAPSTAN_CHECK(check_user(request));
  CAPSTAN_TRY(SessionPtr session, manager.find(id, token_of(request)));
  if (auto woken = session->wake(); !woken) {
    // To these clients a paused sandbox is one that cannot be reached.
    return fail(Code::kUnavailable, "{}", woken.error().message);
  }
  return session;
}

void add_unary(http::Router& router, SessionManager& manager, std::string_view path, UnaryCall call) {
  router.add("POST", std::string(path),
             [&manager, call = std::move(call)](const http::Request& request, const http::ResponseWriterPtr& writer) {
               const auto answer = [&]() -> Result<Json> {
                 CAPSTAN_TRY(const SessionPtr session, session_of(request, manager));
                 CAPSTAN_TRY(const Json message, read_message(request));
                 return call(*session, message);
               }();
               writer->respond(answer ? http::Response::json(200, *answer) : refusal(request, answer.error()));
             });
}

void add_stream(http::Router& router, SessionManager& manager, std::string_view path, StreamCall call) {
  router.add("POST", std::string(path),
             [&manager, call = std::move(call)](const http::Request& request, const http::ResponseWriterPtr& writer) {
               const auto begun = [&]() -> Result<void> {
                 CAPSTAN_TRY(const SessionPtr session, session_of(request, manager));
                 CAPSTAN_TRY(const Json message, read_message(request));
                 return call(session, message, request, writer);
               }();
               if (!begun) writer->respond(refusal(request, begun.error()));
             });
}

void add_routes(http::Router& router, SessionManager& manager) {
  add_control_routes(router, manager);
  add_process_routes(router, manager);
  add_filesystem_routes(router, manager);
  add_watch_routes(router, manager);
  add_file_routes(router, manager);
  add_code_routes(router, manager);
}

}  // namespace capstan::agents::e2b
