// A request of the Responses API, checked, and the chat/completions body that it becomes.
//
//   auto call = parse_responses_request(body);
//   auto chat = chat_of_responses(*call, items_of_previous_response, sources);
//
// Tools: functions, custom tools (a function with one text), and code_interpreter (to the model a function named
// kCodeFunction, which harmony's models have built in); all other types are ignored, since only their host could run
// them. `text.format` becomes response_format, `reasoning.effort` reasoning_effort; both
// are enforced by the replica. Threads: pure.  Bounds: those of OpenAI for metadata and tools.  Failure:
// OpenAI's error, with the field's path. Source: the openai 6.49 client's types.
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "gateway/openai/responses_items.h"
#include "gateway/openai_error.h"

namespace capstan::gateway::openai {

inline constexpr std::size_t kResponsesToolsMax = 512;
inline constexpr std::size_t kContainerFilesMax = 50;

struct ResponsesCall {
  std::string model;
  std::string instructions;
  std::string previous_response_id;
  std::string conversation = {};               // its id; "" if none
  Json::Array input = {};                      // items, each with an id
  Json settings = {};                          // members of the chat body beside model and messages
  Json echo = {};                              // members of the response that repeat the request
  std::vector<std::string> custom_tools = {};  // names
  bool stream = false;
  bool store = true;
  bool background = false;
  bool encrypted_reasoning = false;  // asked for by `include`
  bool logprobs = false;             // asked for by `include`
  bool may_truncate = false;         // truncation: "auto"
  bool code = false;                 // it has the tool code_interpreter
  bool code_outputs = false;         // asked for by `include`
  std::string container = {};        // of that tool: its id; empty: "auto"
  std::vector<std::string> container_files = {};  // ids of files that are put into it
  std::int64_t tool_calls_max = 0;   // of that tool; 0: not bounded by the request
  bool streams() const { return stream || background; }  // the answer is made event by event, whoever hears them
};

std::expected<ResponsesCall, OpenAiError> parse_responses_request(std::string_view body);
// Whether a request has the tool code_interpreter. Cheap where that word is not in it.
bool asks_for_code(std::string_view body);
bool is_container_id(std::string_view text);

// `previous`: input and output items of all responses before this one.
std::expected<Json, OpenAiError> chat_of_responses(const ResponsesCall& call, const Json::Array& previous,
                                                   const ItemSources& sources);

}  // namespace capstan::gateway::openai
