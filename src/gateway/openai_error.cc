#include "gateway/openai_error.h"

namespace capstan::gateway {
namespace {

constexpr int kRetryAfterMs = 1000;

Json or_null(const std::string& text) { return text.empty() ? Json() : Json(text); }

}  // namespace

Json to_json(const ApiError& error) {
  return Json::object({{"error", Json::object({{"message", error.message},
                                               {"type", error.type},
                                               {"param", or_null(error.param)},
                                               {"code", or_null(error.code)}})}});
}

http::Response to_response(const ApiError& error) {
  http::Response response = http::Response::json(error.status, to_json(error));
  if (error.status == 429 || error.status == 503) {
    const int wait_ms = error.retry_after_ms > 0 ? error.retry_after_ms : kRetryAfterMs;
    response.headers.set("retry-after", std::to_string((wait_ms + 999) / 1000));
    response.headers.set("retry-after-ms", std::to_string(wait_ms));
    response.headers.set("x-should-retry", "true");
  }
  return response;
}

bool lacks_room(const http::Response& answer) {
  if (answer.status == 503) return true;
  return answer.status == 429 && !answer.body.contains("insufficient_quota");
}

}  // namespace capstan::gateway
