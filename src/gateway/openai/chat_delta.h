// What a replica says in answer to chat/completions, read: one piece of a stream, or a whole completion as
// one piece.
//
//   auto delta = read_chat_event(data);        // of one server-sent event
//   auto delta = read_chat_completion(body);   // of an answer that is not streamed
//
// Both of the names that servers have for reasoning are read. Only the first choice counts: who translates
// asks for one. Threads: pure.  Failure: kInvalid if it is not what an OpenAI-compatible server answers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "gateway/openai_error.h"

namespace capstan::gateway::openai {

struct CallDelta {
  std::int64_t index = 0;
  std::string id = {}, name = {};  // with the call's first piece
  std::string arguments = {};      // to append
};

struct ChatDelta {
  std::string reasoning = {}, content = {},
              refusal = {};  // to append; in a piece that has several, in this order, then the calls
  std::vector<CallDelta> calls = {};
  Json::Array logprobs = {};       // of the content's tokens
  std::string finish_reason = {};  // "" until the end
  std::string stop_sequence = {};  // which one ended it, from servers that tell
  Json usage = {};                 // null until it is told
  std::string service_tier = {};
  bool done = false;  // "[DONE]"
};

struct ChatUsage {
  std::int64_t input = 0;  // with the cached ones
  std::int64_t cached = 0;
  std::int64_t cache_write = 0;
  std::int64_t output = 0;  // with the reasoning
  std::int64_t reasoning = 0;
};
ChatUsage read_usage(const Json& usage);  // zeros for what is not told

// An event with an error gives that error.
std::expected<ChatDelta, OpenAiError> read_chat_event(std::string_view data);
std::expected<ChatDelta, OpenAiError> read_chat_completion(std::string_view body);
// The error that a replica answered, with its own message where it has one.
OpenAiError read_error(int status, std::string_view body);

}  // namespace capstan::gateway::openai
