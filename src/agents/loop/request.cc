// Two wire formats of one conversation.
#include "agents/loop/request.h"

namespace capstan::agents::loop {
namespace {

struct Field {
  std::string_view name;
  std::string_view description;
};

// A function that takes these texts, all of them.
Json function_of(Tool tool, std::string_view description, std::initializer_list<Field> fields) {
  Json properties = Json::object();
  Json required = Json::array();
  for (const Field& field : fields) {
    properties[field.name] = Json::object({{"type", "string"}, {"description", field.description}});
    required.push_back(field.name);
  }
  return Json::object({{"name", tool_name(tool)},
                       {"description", description},
                       {"parameters", Json::object({{"type", "object"},
                                                    {"properties", std::move(properties)},
                                                    {"required", std::move(required)},
                                                    {"additionalProperties", false}})}});
}

Json function_json(Tool tool) {
  switch (tool) {
    case Tool::kPython:
      return function_of(
          tool,
          "Runs Python in a sandbox without internet and returns what it prints. Variables and "
          "imports stay for the next call; files are in /work.",
          {{"code", "Python source"}});
    case Tool::kRunCommand:
      return function_of(
          tool, "Runs a shell command in the sandbox, in /work, and returns its output and exit code.",
          {{"command", "for /bin/sh -c"}});
    case Tool::kReadFile:
      return function_of(tool, "Returns the text of a file in the sandbox.",
                         {{"path", "such as /work/notes.txt"}});
    case Tool::kWriteFile:
      return function_of(
          tool, "Writes a file in the sandbox, replacing what it held; missing directories are made.",
          {{"path", "such as /work/notes.txt"}, {"content", "all of its new text"}});
  }
  return {};
}

Json chat_call(const ToolCall& call) {
  return Json::object({{"id", call.id},
                       {"type", "function"},
                       {"function", Json::object({{"name", call.name}, {"arguments", call.arguments}})}});
}

struct ChatTurn {
  Json& messages;
  void operator()(const Conversation::User& user) const {
    messages.push_back(Json::object({{"role", "user"}, {"content", user.text}}));
  }
  void operator()(const ModelReply& reply) const {
    Json message = Json::object({{"role", "assistant"}, {"content", reply.content}});
    if (!reply.reasoning.empty()) message["reasoning"] = reply.reasoning;
    for (const ToolCall& call : reply.calls) message["tool_calls"].push_back(chat_call(call));
    messages.push_back(std::move(message));
  }
  void operator()(const Conversation::Result& result) const {
    messages.push_back(Json::object({{"role", "tool"},
                                     {"tool_call_id", result.call.id},
                                     {"name", result.call.name},
                                     {"content", result.output}}));
  }
};

struct ResponsesTurn {
  Json& input;
  void operator()(const Conversation::User& user) const {
    input.push_back(Json::object({{"role", "user"}, {"content", user.text}}));
  }
  void operator()(const ModelReply& reply) const {
    for (const Json& item : reply.items.is_array() ? reply.items.items() : Json::Array{})
      input.push_back(item);
  }
  void operator()(const Conversation::Result& result) const {
    input.push_back(Json::object(
        {{"type", "function_call_output"}, {"call_id", result.call.id}, {"output", result.output}}));
  }
};

Json chat_body(const ModelSpec& model, const std::vector<Tool>& tools, const Conversation& conversation,
               const Sampling& sampling) {
  Json body = Json::object(
      {{"model", model.name}, {"stream", true}, {"stream_options", Json::object({{"include_usage", true}})}});
  body["max_completion_tokens"] = sampling.max_tokens;
  body["seed"] = sampling.seed;
  if (!model.reasoning_effort.empty()) body["reasoning_effort"] = model.reasoning_effort;
  Json& messages = body["messages"] = Json::array();
  if (!conversation.instructions().empty()) {
    messages.push_back(Json::object({{"role", "system"}, {"content", conversation.instructions()}}));
  }
  for (const auto& turn : conversation.turns()) std::visit(ChatTurn{messages}, turn);
  for (const Tool tool : tools) {
    body["tools"].push_back(Json::object({{"type", "function"}, {"function", function_json(tool)}}));
  }
  return body;
}

Json responses_body(const ModelSpec& model, const std::vector<Tool>& tools, const Conversation& conversation,
                    const Sampling& sampling) {
  Json body = Json::object({{"model", model.name}, {"stream", true}, {"store", false}});
  body["include"].push_back("reasoning.encrypted_content");
  body["max_output_tokens"] = sampling.max_tokens;
  if (!model.reasoning_effort.empty()) body["reasoning"]["effort"] = model.reasoning_effort;
  if (!conversation.instructions().empty()) body["instructions"] = conversation.instructions();
  Json& input = body["input"] = Json::array();
  for (const auto& turn : conversation.turns()) std::visit(ResponsesTurn{input}, turn);
  for (const Tool tool : tools) {
    Json function = function_json(tool);
    function["type"] = "function";
    function["strict"] = false;
    body["tools"].push_back(std::move(function));
  }
  return body;
}

}  // namespace

Conversation::Conversation(std::string instructions, std::string prompt)
    : instructions_(std::move(instructions)) {
  add_user(std::move(prompt));
}

Json request_body(const ModelSpec& model, const std::vector<Tool>& tools, const Conversation& conversation,
                  const Sampling& sampling) {
  Json body = model.api == Api::kChat ? chat_body(model, tools, conversation, sampling)
                                      : responses_body(model, tools, conversation, sampling);
  if (sampling.temperature) body["temperature"] = *sampling.temperature;
  return body;
}

}  // namespace capstan::agents::loop
