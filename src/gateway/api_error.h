// What the gateway refuses or fails with, before an API's wire format gives it a shape.
//
// Named in OpenAI's terms, which are the finest of those that we speak; Bedrock's exchanges map status and code.
#pragma once

#include <string>
#include <string_view>

namespace capstan::gateway {

struct ApiError {
  int status = 400;
  std::string message = {};
  std::string_view type = "invalid_request_error";
  std::string param = {};  // empty: null
  std::string code = {};   // empty: null
  int retry_after_ms = 0;  // 0: a second, where the status (429, 503) invites to try again
};

}  // namespace capstan::gateway
