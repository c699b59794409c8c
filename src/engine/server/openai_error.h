// OpenAI's error object: {"error": {"message", "type", "param", "code"}} and the HTTP status that goes with
// it.
//
// Messages and codes follow what api.openai.com answers, so that clients' own handling works.
// Threads: values.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace capstan::engine {

struct ApiError {
  int status = 400;
  std::string message = {};
  std::string type = "invalid_request_error";
  std::string param = {};  // the path of the wrong field, "messages[0].role"; empty: null on the wire
  std::string code = {};   // empty: null on the wire
  int retry_after_ms = 0;  // 0: no retry-after headers

  Json to_json() const;

  static ApiError missing(std::string_view param);
  // `expected` with its article ("a string"); `got` is the value that stood there.
  static ApiError wrong_type(std::string_view param, std::string_view expected, const Json& got);
  static ApiError bad_value(std::string_view param, std::string message);
  // The field is known and well formed, but this server cannot do it; `message` says what is missing.
  static ApiError empty_array(std::string_view param);
  static ApiError unsupported(std::string_view param, std::string message);
  static ApiError model_not_found(std::string_view model);
  static ApiError context_length(long context, long prompt, long completion);
  static ApiError overloaded(int retry_after_ms);                        // 429: the queue is full
  static ApiError unavailable(std::string message, int retry_after_ms);  // 503: loading or draining
  static ApiError server(std::string message);                           // 500
  // From an engine's refusal.
  static ApiError from(const Error& error);
};

}  // namespace capstan::engine
