// OpenAI's error object and the statuses that its clients understand.
#pragma once

#include <string>
#include <string_view>

#include "http/message.h"

namespace capstan::gateway {

struct OpenAiError {
  int status = 400;
  std::string message = {};
  std::string_view type = "invalid_request_error";
  std::string param = {};  // empty: null
  std::string code = {};   // empty: null
};

// {"error":{"message","type","param","code"}}
Json to_json(const OpenAiError& error);

// The same as an answer; 429 and 503 also get retry-after, retry-after-ms and x-should-retry.
http::Response to_response(const OpenAiError& error);

}  // namespace capstan::gateway
