// One constructor per way to be wrong; wording as OpenAI's.
#include "engine/server/openai_error.h"

namespace capstan::engine {
namespace {

Json or_null(const std::string& text) { return text.empty() ? Json() : Json(text); }

std::string with_article(std::string_view type) {
  const bool vowel = type.starts_with('a') || type.starts_with('o') || type.starts_with('i');
  return type == "null" ? "null" : std::string(vowel ? "an " : "a ") + std::string(type);
}

}  // namespace

Json ApiError::to_json() const {
  return Json::object(
      {{"error",
        Json::object(
            {{"message", message}, {"type", type}, {"param", or_null(param)}, {"code", or_null(code)}})}});
}

ApiError ApiError::missing(std::string_view param) {
  return {.message = fmt::format("Missing required parameter: '{}'.", param),
          .param = std::string(param),
          .code = "missing_required_parameter"};
}

ApiError ApiError::wrong_type(std::string_view param, std::string_view expected, const Json& got) {
  return {.message = fmt::format("Invalid type for '{}': expected {}, but got {} instead.", param, expected,
                                 with_article(got.type_name())),
          .param = std::string(param),
          .code = "invalid_type"};
}

ApiError ApiError::bad_value(std::string_view param, std::string message) {
  return {.message = std::move(message), .param = std::string(param), .code = "invalid_value"};
}

ApiError ApiError::empty_array(std::string_view param) {
  ApiError error = bad_value(param, fmt::format("Invalid '{}': empty array. Expected an array with minimum length 1, but got an "
                                                "empty array instead.",
                                                param));
  error.code = "empty_array";
  return error;
}

ApiError ApiError::unsupported(std::string_view param, std::string message) {
  return {.message = std::move(message), .param = std::string(param), .code = "unsupported_parameter"};
}

ApiError ApiError::model_not_found(std::string_view model) {
  return {.status = 404,
          .message = fmt::format(
              "The model '{}' does not exist on this server; GET /v1/models lists what does.", model),
          .param = "model",
          .code = "model_not_found"};
}

ApiError ApiError::context_length(long context, long prompt, long completion) {
  std::string message =
      completion == 0 ? fmt::format(
                            "This model's maximum context length is {} tokens. However, your messages "
                            "resulted in {} tokens, which "
                            "leaves no room for an answer. Please reduce the length of the messages.",
                            context, prompt)
                      : fmt::format(
                            "This model's maximum context length is {} tokens. However, you requested {} "
                            "tokens ({} in the messages, "
                            "{} in the completion). Please reduce the length of the messages or completion.",
                            context, prompt + completion, prompt, completion);
  return {.message = std::move(message), .param = "messages", .code = "context_length_exceeded"};
}

ApiError ApiError::overloaded(int retry_after_ms) {
  return {.status = 429,
          .message = "The engine's queue is full. Try again later.",
          .type = "rate_limit_error",
          .code = "engine_overloaded",
          .retry_after_ms = retry_after_ms};
}

ApiError ApiError::unavailable(std::string message, int retry_after_ms) {
  return {.status = 503,
          .message = std::move(message),
          .type = "server_error",
          .code = "engine_unavailable",
          .retry_after_ms = retry_after_ms};
}

ApiError ApiError::server(std::string message) {
  return {.status = 500, .message = std::move(message), .type = "server_error", .code = "internal_error"};
}

ApiError ApiError::from(const Error& error) {
  switch (error.code) {
    case Code::kExhausted:
      return overloaded(1000);
    case Code::kUnavailable:
      return unavailable("The engine is shutting down.", 1000);
    case Code::kInvalid:
      return {.message = error.message, .param = error.field, .code = "invalid_value"};
    default:
      return server(error.message);
  }
}

}  // namespace capstan::engine
