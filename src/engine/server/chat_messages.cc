// Straight-line reading with FieldReader, as in openai_request.cc.
#include "engine/server/chat_messages.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <map>

#include "base/text_member.h"

namespace capstan::engine {
namespace {

// What OpenAI's other models read.
constexpr std::array<std::string_view, 4> kOtherParts = {"image_url", "input_audio", "audio", "file"};

// A message's content: a string, or parts of which only text can be read.
std::string read_content(FieldReader& message, bool required) {
  const Json* content = message.find("content");
  const std::string path = message.path("content");
  if (content == nullptr) {
    if (required && message.is_null("content"))
      message.fail_with(ApiError::wrong_type(path, "one of a string or array of objects", {}));
    if (required) message.fail_with(ApiError::missing(path));
    return {};
  }
  if (content->is_string()) return content->as_string();
  if (!content->is_array()) {
    message.fail_with(ApiError::wrong_type(path, "one of a string or array of objects", *content));
    return {};
  }
  if (content->size() == 0) message.fail_with(ApiError::empty_array(path));
  std::string text;
  for (std::size_t i = 0; i < content->size(); ++i) {
    const Json& part = content->items()[i];
    const std::string type = part.get_string("type").value_or("");
    if (!part.is_object()) {
      message.fail_with(ApiError::wrong_type(at(path, i), "an object", part));
    } else if (type == "text" || type == "refusal") {
      const auto piece = part.get_string(type);
      if (!piece) message.fail_with(ApiError::missing(at(path, i) + "." + type));
      text += piece.value_or("");
    } else if (type.empty()) {
      message.fail_with(ApiError::missing(at(path, i) + ".type"));
    } else if (std::ranges::find(kOtherParts, type) == kOtherParts.end()) {
      message.fail_with(ApiError::bad_value(
          at(path, i) + ".type", fmt::format("Invalid value: '{}'. Supported values are: 'text' and 'refusal'.", type)));
    } else {
      message.fail_with(ApiError::unsupported(
          at(path, i) + ".type",
          fmt::format("Content of type '{}' is not supported: this model reads text only.", type)));
    }
  }
  return text;
}

std::vector<ToolCall> read_tool_calls(FieldReader& message, std::optional<ApiError>& error) {
  std::vector<ToolCall> calls;
  const Json* list = message.array("tool_calls", kToolsMax);
  if (list == nullptr) return calls;
  for (std::size_t i = 0; i < list->size(); ++i) {
    const std::string path = at(message.path("tool_calls"), i);
    const Json& item = list->items()[i];
    if (!item.is_object()) {
      message.fail_with(ApiError::wrong_type(path, "an object", item));
      break;
    }
    FieldReader call(item, path, error);
    const std::string type = call.choice("type", {"function", "custom"}).value_or("function");
    const std::string id = call.required_string("id");
    const Json* said = call.object(type);
    if (said == nullptr) {
      call.fail_with(ApiError::missing(path + "." + type));
      break;
    }
    FieldReader fields(*said, path + "." + type, error);
    std::string name = fields.required_string("name");
    std::string arguments = type == "custom"
                                ? Json::object({{std::string(kInputArgument), fields.required_string("input")}}).dump()
                                : fields.required_string("arguments");
    calls.push_back({id, std::move(name), std::move(arguments)});
  }
  return calls;
}

// {"name", "arguments"}, as it was before there were several calls; what answers it names no id.
void read_function_call(FieldReader& message, ChatMessage& read, std::optional<ApiError>& error) {
  const Json* call = message.object("function_call");
  if (call == nullptr) return;
  FieldReader fields(*call, message.path("function_call"), error);
  std::string name = fields.required_string("name");
  read.tool_calls.push_back({"", std::move(name), fields.required_string("arguments")});
}

// Ids of the calls so far.
struct Calls {
  std::map<std::string, std::string> names;  // to the tool
  std::vector<std::string> unanswered;
};

// Which call a tool's message answers.
void read_answered(FieldReader& fields, ChatMessage& message, Calls& calls) {
  const std::string id = fields.required_string("tool_call_id");
  const auto known = calls.names.find(id);
  if (known == calls.names.end()) {
    fields.fail_with(ApiError::bad_value(
        fields.path("tool_call_id"), fmt::format("Invalid parameter: messages with role 'tool' must be a response to a preceding "
                                                 "message with 'tool_calls'; no call has the id '{}'.",
                                                 id)));
    return;
  }
  message.tool_name = known->second;
  std::erase(calls.unanswered, id);
}

ChatMessage read_message(const Json& item, const std::string& path, Calls& calls, std::optional<ApiError>& error) {
  using Role = ChatMessage::Role;
  ChatMessage message;
  FieldReader fields(item, path, error);
  if (fields.find("role") == nullptr) fields.fail_with(ApiError::missing(path + ".role"));
  const auto role = fields.choice("role", {"system", "developer", "user", "assistant", "tool", "function"});
  if (!role) return message;
  static const std::map<std::string_view, Role> kRoles = {{"system", Role::kSystem},
                                                          {"developer", Role::kDeveloper},
                                                          {"user", Role::kUser},
                                                          {"assistant", Role::kAssistant},
                                                          {"tool", Role::kTool},
                                                          {"function", Role::kTool}};
  message.role = kRoles.at(*role);
  if (message.role == Role::kAssistant) {
    message.tool_calls = read_tool_calls(fields, error);
    for (const ToolCall& call : message.tool_calls) {
      calls.names[call.id] = call.name;
      calls.unanswered.push_back(call.id);
    }
    read_function_call(fields, message, error);
    message.reasoning = fields.string("reasoning").value_or("");
    if (message.reasoning.empty()) message.reasoning = fields.string("reasoning_content").value_or("");
    const std::string refusal = fields.string("refusal").value_or("");
    message.content =
        read_content(fields, message.tool_calls.empty() && message.reasoning.empty() && refusal.empty()) + refusal;
  } else {
    message.content = read_content(fields, true);
  }
  if (*role == "tool") read_answered(fields, message, calls);
  if (*role == "function") message.tool_name = fields.required_string("name");
  return message;
}

}  // namespace

std::string at(std::string_view list, std::size_t index) { return fmt::format("{}[{}]", list, index); }

void read_messages(FieldReader& body, ChatRequest& request, std::optional<ApiError>& error) {
  if (body.find("messages") == nullptr) body.fail_with(ApiError::missing("messages"));
  const Json* list = body.array("messages", kMessagesMax);
  if (list == nullptr) return;
  if (list->size() == 0) body.fail_with(ApiError::empty_array("messages"));
  Calls calls;
  for (std::size_t i = 0; i < list->size() && !error; ++i) {
    const Json& item = list->items()[i];
    if (!item.is_object()) {
      body.fail_with(ApiError::wrong_type(at("messages", i), "an object", item));
      return;
    }
    request.messages.push_back(read_message(item, at("messages", i), calls, error));
  }
  if (calls.unanswered.empty()) return;
  body.fail_with(ApiError::bad_value(
      "messages", fmt::format("An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                              "'tool_call_id'. The following tool_call_ids did not have response messages: {}",
                              fmt::join(calls.unanswered, ", "))));
}

}  // namespace capstan::engine
