#include "api/errors.h"

#include "base/assert.h"

namespace capstan::api {

int status_of(Code code) {
  switch (code) {
    case Code::kInvalid:
      return 400;
    case Code::kDenied:
      return 401;
    case Code::kNotFound:
      return 404;
    case Code::kConflict:
      return 409;
    case Code::kUnsupported:
      return 422;
    case Code::kExhausted:
    case Code::kUnavailable:
    case Code::kCancelled:
      return 503;
    case Code::kTimeout:
      return 504;
    case Code::kIo:
    case Code::kCorrupt:
      return 500;
  }
  assertion_failed("a known code", __FILE__, __LINE__);
}

http::Response to_response(const Error& error) {
  Json body = Json::object({{"code", code_name(error.code)}, {"message", error.message}});
  if (!error.field.empty()) body["field"] = error.field;
  http::Response response =
      http::Response::json(status_of(error.code), Json::object({{"error", std::move(body)}}));
  if (response.status == 401) response.headers.set("www-authenticate", "Bearer");
  if (response.status == 503) response.headers.set("retry-after", "1");
  return response;
}

http::Response to_response(const std::vector<workload::Diagnostic>& diagnostics) {
  CAPSTAN_ASSERT(!diagnostics.empty());
  Json list = Json::array();
  for (const workload::Diagnostic& diagnostic : diagnostics) {
    Json item = Json::object({{"file", diagnostic.file},
                              {"line", diagnostic.line},
                              {"column", diagnostic.column},
                              {"message", diagnostic.message}});
    if (!diagnostic.hint.empty()) item["hint"] = diagnostic.hint;
    list.push_back(std::move(item));
  }
  return http::Response::json(400,
                              Json::object({{"error", Json::object({{"code", "invalid"},
                                                                    {"message", diagnostics.front().text()},
                                                                    {"diagnostics", std::move(list)}})}}));
}

}  // namespace capstan::api
