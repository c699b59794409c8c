#include "gateway/bedrock/invoke.h"

#include "base/base64.h"

namespace capstan::gateway::bedrock {
namespace {

constexpr std::string_view kOpen = "<reasoning>";
constexpr std::string_view kClose = "</reasoning>";

// Takes both of the names that servers use out of the message; the text.
std::string take_reasoning(Json& message) {
  std::string text = message.get_string("reasoning").value_or("");
  if (text.empty()) text = message.get_string("reasoning_content").value_or("");
  message.erase("reasoning");
  message.erase("reasoning_content");
  return text;
}

}  // namespace

Result<Json> chat_of_invoke(std::string_view model, std::string_view path_name, std::string_view text,
                            bool stream) {
  auto body = Json::parse(text);
  if (!body) return fail(Code::kInvalid, "the body is {}", body.error().message);
  if (!body->is_object())
    return fail(Code::kInvalid, "the body must be a JSON object, not {}", body->type_name());
  if (const auto named = body->get_string("model"); named && *named != model && *named != path_name)
    return fail(Code::kInvalid, "model '{}' in the body is not '{}' in the path; leave it out of the body",
                *named, path_name);
  if (const auto streamed = body->get_bool("stream"); streamed && *streamed != stream)
    return fail(Code::kInvalid, "stream is {} in the body, but the operation is {}", *streamed,
                stream ? "InvokeModelWithResponseStream" : "InvokeModel");
  if (!body->contains("messages")) return fail(Code::kInvalid, "messages is missing");
  (*body)["model"] = model;
  body->erase("stream");
  body->erase("stream_options");
  if (stream) {
    (*body)["stream"] = true;
    (*body)["stream_options"] = Json::object({{"include_usage", true}});
  }
  return *std::move(body);
}

Json invoke_answer(Json completion) {
  Json* choices = completion.find("choices");
  if (choices == nullptr || !choices->is_array()) return completion;
  for (Json& choice : choices->items()) {
    Json* message = choice.find("message");
    if (message == nullptr || !message->is_object()) continue;
    const std::string reasoning = take_reasoning(*message);
    if (reasoning.empty()) continue;
    (*message)["content"] =
        fmt::format("{}{}{}{}", kOpen, reasoning, kClose, message->get_string("content").value_or(""));
  }
  return completion;
}

std::string chunk_payload(const Json& chunk) {
  return Json::object({{"bytes", base64_encode(chunk.dump())}}).dump();
}

Json InvokeStream::push(Json chunk) {
  if (const Json* usage = chunk.find("usage"); usage != nullptr && usage->is_object()) usage_ = *usage;
  chunk.erase("usage");
  Json* choices = chunk.find("choices");
  if (choices == nullptr || !choices->is_array() || choices->size() == 0) return {};
  Json& choice = choices->items().front();
  if (const auto reason = choice.get_string("finish_reason"); reason && !reason->empty()) ended_ = true;
  Json* delta = choice.find("delta");
  if (delta == nullptr || !delta->is_object()) return chunk;
  const std::string reasoning = take_reasoning(*delta);
  const std::string content = delta->get_string("content").value_or("");
  std::string text;
  if (!reasoning.empty()) {
    if (!reasoning_) text += kOpen;
    reasoning_ = true;
    text += reasoning;
  }
  const bool closes = reasoning_ && (!content.empty() || delta->contains("tool_calls") || ended_);
  if (closes) text += kClose;
  if (closes) reasoning_ = false;
  text += content;
  if (!text.empty()) (*delta)["content"] = text;
  return chunk;
}

Json InvokeStream::metrics(std::int64_t latency_ms, std::int64_t first_byte_ms) const {
  return Json::object({{"inputTokenCount", usage_.get_int("prompt_tokens").value_or(0)},
                       {"outputTokenCount", usage_.get_int("completion_tokens").value_or(0)},
                       {"invocationLatency", latency_ms},
                       {"firstByteLatency", first_byte_ms}});
}

}  // namespace capstan::gateway::bedrock
