// OpenAI's request bodies, checked: JSON -> ChatRequest or CompletionRequest, or the error that OpenAI would
// answer.
//
//   auto request = parse_chat_request(body);
//   if (!request) return answer(request.error());
//
// Unknown fields are ignored. A field that we know and cannot honour is refused, never dropped silently.
// Knows nothing of the engine.  Threads: pure.  Bounds: kMessagesMax, kToolsMax and the others below.
// Source: the openai 6.49 client's types and the answers of api.openai.com.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "engine/server/answer_form.h"
#include "engine/server/openai_error.h"

namespace capstan::engine {

inline constexpr std::size_t kMessagesMax = 4096;
inline constexpr std::size_t kToolsMax = 128;
inline constexpr std::size_t kStopsMax = 4;
inline constexpr std::size_t kStopBytesMax = 256;
inline constexpr int kChoicesMax = 128;  // of all prompts together
inline constexpr int kBestOfMax = 20;
inline constexpr std::size_t kMetadataMax = 16;
inline constexpr int kChatTopLogprobsMax = 20;
inline constexpr int kCompletionLogprobsMax = 5;
inline constexpr std::size_t kLogitBiasEntriesMax = 1024;

struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments;  // as the model wrote them, usually JSON
};

struct ChatMessage {
  enum class Role { kSystem, kDeveloper, kUser, kAssistant, kTool };
  Role role = Role::kUser;
  std::string content;    // text parts joined
  std::string reasoning;  // of an assistant: `reasoning` or `reasoning_content`
  std::vector<ToolCall> tool_calls;
  std::string tool_name;  // of a tool: the name that its tool_call_id belongs to
};

struct ChatTool {
  std::string name;
  std::string description;
  Json parameters;      // an object, or null
  bool strict = false;  // arguments must satisfy the parameters
  bool custom = false;  // its one argument is a text: to the client "input", to the model {"input": "…"}
};

enum class Effort { kLow, kMedium, kHigh };

// Required: some function must be called; named: this one.
enum class ToolChoice { kAuto, kRequired, kNamed };

// What both kinds of request share.
struct SamplingRequest {
  std::string model;
  std::optional<double> temperature;  // 0..2; absent: the model's default
  std::optional<double> top_p;        // 0..1
  int top_k = 0;                      // 0: all (vLLM's field, -1 there means all too)
  double min_p = 0;                   // 0..1 (vLLM's)
  double presence_penalty = 0;        // -2..2
  double frequency_penalty = 0;       // -2..2
  std::vector<std::pair<std::int64_t, double>> logit_bias;  // token, -100..100
  std::optional<std::int64_t> seed;
  std::optional<std::int64_t> tokens_max;
  std::vector<std::string> stop;
  int choices = 1;
  bool stream = false;
  bool include_usage = false;
  std::string service_tier = {};  // as asked for; "" if not
  AnswerForm form = {};
};

struct ChatRequest : SamplingRequest {
  std::vector<ChatMessage> messages;
  std::vector<ChatTool> tools;  // empty too if tool_choice is "none"
  ToolChoice tool_choice = ToolChoice::kAuto;
  std::string tool_named;  // of kNamed
  bool legacy_functions = false;  // `functions` instead of tools: the answer has a function_call
  std::optional<Effort> effort;
  bool logprobs = false;
  int top_logprobs = 0;
};

struct CompletionRequest : SamplingRequest {
  struct Prompt {
    std::string text = {};
    std::vector<std::int64_t> tokens = {};  // instead of the text, if the request gave ids
  };
  std::vector<Prompt> prompts;  // at least one; each gets `choices` choices
  bool echo = false;
  std::optional<int> logprobs;  // 0..5: so many alternatives of each token, of the echoed prompt, too
  int best_of = 1;  // of so many answers to each prompt the likeliest `choices` are told
};

std::expected<ChatRequest, ApiError> parse_chat_request(std::string_view body);
std::expected<CompletionRequest, ApiError> parse_completion_request(std::string_view body);

}  // namespace capstan::engine
