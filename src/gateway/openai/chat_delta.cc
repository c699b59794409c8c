#include "gateway/openai/chat_delta.h"

namespace capstan::gateway::openai {
namespace {

std::unexpected<OpenAiError> broken(std::string_view what) {
  return std::unexpected(
      OpenAiError{.status = 502,
                  .message = fmt::format("the replica's answer is no chat completion: {}", what),
                  .type = "server_error",
                  .code = "replica_lost"});
}

OpenAiError error_of(const Json& json, int status) {
  const Json* error = json.find("error");
  const Json& fields = error != nullptr && error->is_object() ? *error : json;
  std::string_view type = "server_error";
  if (status < 500) type = status == 429 ? "rate_limit_error" : "invalid_request_error";
  OpenAiError out{
      .status = status,
      .message = fields.get_string("message").value_or(fmt::format("the model's server answered {}", status)),
      .type = type,
      .param = fields.get_string("param").value_or(""),
      .code = fields.get_string("code").value_or("")};
  return out;
}

void read_calls(const Json& list, ChatDelta& delta) {
  if (!list.is_array()) return;
  std::int64_t position = 0;
  for (const Json& item : list.items()) {
    CallDelta call{.index = item.get_int("index").value_or(position++),
                   .id = item.get_string("id").value_or("")};
    if (const Json* function = item.find("function")) {
      call.name = function->get_string("name").value_or("");
      call.arguments = function->get_string("arguments").value_or("");
    }
    delta.calls.push_back(std::move(call));
  }
}

// `member`: "delta" of a stream's piece, "message" of a whole completion.
std::expected<ChatDelta, OpenAiError> read(std::string_view text, std::string_view member) {
  const auto json = Json::parse(text);
  if (!json) return broken(json.error().message);
  if (!json->is_object()) return broken("it is no JSON object");
  if (const Json* error = json->find("error"); error != nullptr && !error->is_null())
    return std::unexpected(error_of(*json, static_cast<int>(error->get_int("status").value_or(502))));
  ChatDelta delta;
  if (const Json* usage = json->find("usage"); usage != nullptr && usage->is_object()) delta.usage = *usage;
  delta.service_tier = json->get_string("service_tier").value_or("");
  const Json* choices = json->find("choices");
  if (choices == nullptr || !choices->is_array()) return broken("it has no choices");
  for (const Json& choice : choices->items()) {
    if (choice.get_int("index").value_or(0) != 0) continue;
    delta.finish_reason = choice.get_string("finish_reason").value_or("");
    delta.stop_sequence = choice.get_string("stop_reason").value_or("");
    if (const Json* logprobs = choice.find("logprobs"); logprobs != nullptr && logprobs->is_object()) {
      if (const Json* tokens = logprobs->find("content"); tokens != nullptr && tokens->is_array())
        delta.logprobs = tokens->items();
    }
    const Json* said = choice.find(member);
    if (said == nullptr || !said->is_object()) continue;
    delta.content = said->get_string("content").value_or("");
    delta.refusal = said->get_string("refusal").value_or("");
    delta.reasoning = said->get_string("reasoning").value_or("");
    if (delta.reasoning.empty()) delta.reasoning = said->get_string("reasoning_content").value_or("");
    if (const Json* calls = said->find("tool_calls")) read_calls(*calls, delta);
  }
  return delta;
}

}  // namespace

ChatUsage read_usage(const Json& usage) {
  const auto inner = [&](std::string_view details, std::string_view key) {
    const Json* object = usage.find(details);
    return object == nullptr ? std::int64_t{0} : object->get_int(key).value_or(0);
  };
  return {.input = usage.get_int("prompt_tokens").value_or(0),
          .cached = inner("prompt_tokens_details", "cached_tokens"),
          .cache_write = inner("prompt_tokens_details", "cache_write_tokens"),
          .output = usage.get_int("completion_tokens").value_or(0),
          .reasoning = inner("completion_tokens_details", "reasoning_tokens")};
}

std::expected<ChatDelta, OpenAiError> read_chat_event(std::string_view data) {
  if (data == "[DONE]") return ChatDelta{.done = true};
  return read(data, "delta");
}

std::expected<ChatDelta, OpenAiError> read_chat_completion(std::string_view body) {
  return read(body, "message");
}

OpenAiError read_error(int status, std::string_view body) {
  const auto json = Json::parse(body);
  return error_of(json && json->is_object() ? *json : Json::object(), status);
}

}  // namespace capstan::gateway::openai
