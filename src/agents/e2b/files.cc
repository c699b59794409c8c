// /files: whole files up and down, by a sandbox's token or by a signed URL; /health.
#include "agents/e2b/e2b.h"
#include "agents/sessions/paths.h"
#include "base/base64.h"
#include "base/sha256.h"
#include "base/text.h"
#include "http/multipart.h"

namespace capstan::agents::e2b {
namespace {

http::Response refused(const Error& error) {
  int status = 500;
  switch (error.code) {
    case Code::kInvalid: status = 400; break;
    case Code::kDenied: status = 403; break;
    case Code::kNotFound: status = 404; break;
    case Code::kConflict: status = 409; break;
    case Code::kExhausted: status = 507; break;
    case Code::kUnavailable: status = 502; break;
    case Code::kUnsupported: status = 415; break;
    default: break;
  }
  return http::Response::json(status, Json::object({{"code", status}, {"message", error.message}}));
}

std::string signature_of(const http::Request& request, std::string_view operation, const std::string& token) {
  std::string text = fmt::format("{}:{}:{}:{}", request.query_value("path").value_or(""), operation,
                                 request.query_value("username").value_or(""), token);
  if (const auto expiration = request.query_value("signature_expiration")) text += ":" + *expiration;
  const Digest digest = sha256(text);
  std::string hash = base64_encode({reinterpret_cast<const char*>(digest.data()), digest.size()});
  hash.erase(hash.find_last_not_of('=') + 1);
  return "v1_" + hash;
}

// A signed URL names no sandbox: it is the one whose token signed it.
Result<SessionPtr> session_for(const http::Request& request, std::string_view operation, const SessionManager& manager) {
  const auto signature = request.query_value("signature");
  if (!signature) return session_of(request, manager);
  if (const auto until = request.query_value("signature_expiration")) {
    const auto seconds = parse_int(*until);
    if (!seconds || *seconds * 1000 < unix_ms()) return fail(Code::kDenied, "the signed URL has expired");
  }
  for (const SessionPtr& session : manager.all()) {
    if (!equal_constant_time(signature_of(request, operation, session->token()), *signature)) continue;
    if (auto woken = session->wake(); !woken) return fail(Code::kUnavailable, "{}", woken.error().message);
    return session;
  }
  return fail(Code::kDenied, "no sandbox signed this URL");
}

Result<http::Response> download(const http::Request& request, const SessionManager& manager) {
  CAPSTAN_TRY(const SessionPtr session, session_for(request, "read", manager));
  const auto path = request.query_value("path");
  if (!path) return fail(Code::kInvalid, "the query needs a path");
  CAPSTAN_TRY(std::string bytes, session->read(*path));
  return http::Response{.status = 200,
                        .headers = {{"content-type", "application/octet-stream"}},
                        .body = std::move(bytes)};
}

Result<Json> written(Session& session, const std::string& path, std::string_view bytes) {
  CAPSTAN_CHECK(session.write(path, bytes));
  CAPSTAN_TRY(const std::string inside, path_inside(path));
  const std::string shown = shown_path(inside);
  return Json::object({{"name", shown.substr(shown.rfind('/') + 1)}, {"type", "file"}, {"path", shown}});
}

Result<http::Response> upload(const http::Request& request, const SessionManager& manager) {
  CAPSTAN_TRY(const SessionPtr session, session_for(request, "write", manager));
  const std::string type = request.headers.get("content-type");
  const auto path = request.query_value("path");
  if (!request.headers.get("content-encoding").empty())
    return fail(Code::kUnsupported, "uploads must not be compressed");
  Json files = Json::array();
  if (type.starts_with("multipart/form-data")) {
    CAPSTAN_TRY(const auto parts, http::parse_multipart(type, request.content()));
    for (const http::Part& part : parts) {
      if (part.name != "file") continue;
      const bool named = path && !path->empty() && parts.size() == 1;
      CAPSTAN_TRY(Json file, written(*session, named ? *path : part.filename, part.content));
      files.push_back(std::move(file));
    }
  } else {
    if (!path) return fail(Code::kInvalid, "the query needs a path");
    CAPSTAN_TRY(Json file, written(*session, *path, request.content()));
    files.push_back(std::move(file));
  }
  return http::Response::json(200, files);
}

}  // namespace

void add_file_routes(http::Router& router, SessionManager& manager) {
  const auto add = [&](std::string method, auto call) {
    router.add(std::move(method), "/files",
               [&manager, call](const http::Request& request, const http::ResponseWriterPtr& writer) {
                 auto answer = call(request, manager);
                 writer->respond(answer ? std::move(*answer) : refused(answer.error()));
               });
  };
  add("GET", download);
  add("POST", upload);
  router.allow_large_bodies("POST", "/files", http::kUploadBytesMax);
  router.add("GET", "/health", [&manager](const http::Request& request, const http::ResponseWriterPtr& writer) {
    const auto session = session_of(request, manager);
    writer->respond(session ? http::Response{.status = 204} : refused(session.error()));
  });
}

}  // namespace capstan::agents::e2b
