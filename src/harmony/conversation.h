// A conversation in harmony's own terms: messages with roles, channels and recipients, and what the model is
// told.
//
// Source: openai/harmony, docs/format.md.  Threads: values.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace capstan::harmony {

enum class Role { kSystem, kDeveloper, kUser, kAssistant, kTool };

// "system", "developer", "user", "assistant", "tool".
std::string_view role_name(Role role);

inline constexpr std::string_view kAnalysis = "analysis";  // chain of thought: not for the user
inline constexpr std::string_view kCommentary =
    "commentary";  // function calls; without a recipient, a preamble for the user
inline constexpr std::string_view kFinal = "final";    // the answer
inline constexpr std::string_view kPython = "python";  // the built-in tool's recipient and role name

struct Message {
  Role role = Role::kUser;
  std::string name = {};  // of a tool ("functions.get_weather", "python"): it stands in place of the role
  std::string recipient = {};     // "functions.get_weather", "python", "assistant"; empty: none
  std::string channel = {};       // empty: none
  std::string content_type = {};  // "<|constrain|>json" or "code"; empty: none
  std::string text = {};
  // Where an assistant's recipient is written: `to=` behind the channel (as models write calls of built-in
  // tools) or behind the role (openai/harmony's own rendering of function calls). Parsers must take both.
  bool recipient_after_channel = false;
};

struct FunctionTool {
  std::string name;
  std::string description;
  Json parameters;  // JSON schema; null: the function takes no argument
};

struct ResponseFormat {
  std::string name;
  std::string description;
  Json schema;
};

enum class ReasoningEffort { kLow, kMedium, kHigh };

// Whether a model was trained with harmony's system message. kOmit: it was not, and gets none, unless it is
// offered the python tool, which then is the whole system text.
enum class SystemMessage { kFull, kOmit };

// What the model is told before the conversation.
struct Preamble {
  SystemMessage system_message = SystemMessage::kFull;
  std::string model_identity = "You are ChatGPT, a large language model trained by OpenAI.";
  std::string knowledge_cutoff = "2024-06";
  std::string current_date;  // "YYYY-MM-DD"; empty: the line is left out
  ReasoningEffort effort = ReasoningEffort::kMedium;
  std::vector<std::string> channels = {"analysis", "commentary", "final"};
  bool python = false;  // the built-in python tool is offered

  std::string instructions;  // the API's system prompt
  std::vector<FunctionTool> functions;
  std::vector<ResponseFormat> response_formats;
};

struct Conversation {
  Preamble preamble;
  std::vector<Message> messages;
};

}  // namespace capstan::harmony
