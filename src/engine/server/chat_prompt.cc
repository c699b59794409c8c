// One pass over the messages; each gives up to 2 + calls harmony messages.
#include "engine/server/chat_prompt.h"

namespace capstan::engine {
namespace {

using harmony::Message;
using harmony::Role;

// {"code": "…"} as we give python calls to clients; anything else is passed on as the code.
std::string python_code(const std::string& arguments) {
  const auto json = Json::parse(arguments);
  return json ? json->get_string("code").value_or(arguments) : arguments;
}

Message call_message(const ToolCall& call, bool python) {
  if (python && call.name == harmony::kPython) {
    return {.role = Role::kAssistant,
            .recipient = "python",
            .channel = std::string(harmony::kAnalysis),
            .content_type = "code",
            .text = python_code(call.arguments),
            .recipient_after_channel = true};
  }
  return {.role = Role::kAssistant,
          .recipient = "functions." + call.name,
          .channel = std::string(harmony::kCommentary),
          .content_type = "<|constrain|>json",
          .text = call.arguments};
}

Message result_message(const ChatMessage& message, bool python) {
  const bool built_in = python && message.tool_name == harmony::kPython;
  return {.role = Role::kTool,
          .name = built_in ? message.tool_name : "functions." + message.tool_name,
          .recipient = "assistant",
          .channel = std::string(built_in ? harmony::kAnalysis : harmony::kCommentary),
          .text = message.content};
}

void add_assistant(const ChatMessage& message, bool python, std::vector<Message>& out) {
  if (!message.reasoning.empty()) {
    out.push_back(
        {.role = Role::kAssistant, .channel = std::string(harmony::kAnalysis), .text = message.reasoning});
  }
  const bool calls = !message.tool_calls.empty();
  if (!message.content.empty() || !calls) {
    out.push_back({.role = Role::kAssistant,
                   .channel = std::string(calls ? harmony::kCommentary : harmony::kFinal),
                   .text = message.content});
  }
  for (const ToolCall& call : message.tool_calls) out.push_back(call_message(call, python));
}

}  // namespace

harmony::Conversation chat_conversation(const ChatRequest& request, const ModelProfile& profile,
                                        std::string date) {
  harmony::Conversation conversation;
  harmony::Preamble& preamble = conversation.preamble;
  preamble.system_message = profile.system_message;
  preamble.current_date = std::move(date);
  const Effort effort = request.effort.value_or(Effort::kMedium);
  preamble.effort = effort == Effort::kLow    ? harmony::ReasoningEffort::kLow
                    : effort == Effort::kHigh ? harmony::ReasoningEffort::kHigh
                                              : harmony::ReasoningEffort::kMedium;
  for (const ChatTool& tool : request.tools) {
    if (profile.python && tool.name == harmony::kPython && !tool.custom) {
      preamble.python = true;
    } else {
      preamble.functions.push_back({tool.name, tool.description, tool.parameters});
    }
  }
  if (request.form.kind == AnswerForm::Kind::kJsonSchema) {
    preamble.response_formats.push_back({request.form.name, request.form.description, request.form.schema});
  }
  for (const ChatMessage& message : request.messages) {
    switch (message.role) {
      case ChatMessage::Role::kSystem:
      case ChatMessage::Role::kDeveloper:
        if (!preamble.instructions.empty()) preamble.instructions += "\n\n";
        preamble.instructions += message.content;
        break;
      case ChatMessage::Role::kUser:
        conversation.messages.push_back({.role = Role::kUser, .text = message.content});
        break;
      case ChatMessage::Role::kAssistant:
        add_assistant(message, profile.python, conversation.messages);
        break;
      case ChatMessage::Role::kTool:
        conversation.messages.push_back(result_message(message, profile.python));
        break;
    }
  }
  return conversation;
}

}  // namespace capstan::engine
