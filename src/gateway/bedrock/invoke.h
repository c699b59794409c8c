// InvokeModel and InvokeModelWithResponseStream of OpenAI's models: a chat/completions body in, a
// chat.completion out, with the reasoning in `<reasoning>` tags before the text.
//
//   auto chat = chat_of_invoke("gpt-oss-20b", body, false);
//   Json answer = invoke_answer(completion);
//   InvokeStream stream;  for (…) writer->write(encode_event("chunk", stream.push(event_json)));
//
// Threads: pure; InvokeStream: one owner.  Failure: kInvalid, with the field in the message.
// Source: AWS's user guide, "OpenAI models"; the AWS SDK's models of bedrock-runtime.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace capstan::gateway::bedrock {

// `model` and `stream` may be left out of the body, but must agree with the path where they are there:
// `model` with one of `path_names` (the model's id as it stood in the path, and the name that it is served
// under, which `model` is).
Result<Json> chat_of_invoke(std::string_view model, std::string_view path_name, std::string_view body,
                            bool stream);

// The completion with reasoning moved into the content.
Json invoke_answer(Json completion);

// {"bytes": base64 of `chunk`}, the payload of a stream's event "chunk".
std::string chunk_payload(const Json& chunk);

// Moves the reasoning of a streamed completion's pieces into their content; opens and closes the tags.
class InvokeStream {
 public:
  // The chunk to send; null for one that says nothing (its usage is kept).
  Json push(Json chunk);
  // The last chunk's numbers: {"inputTokenCount", "outputTokenCount", "invocationLatency",
  // "firstByteLatency"}.
  Json metrics(std::int64_t latency_ms, std::int64_t first_byte_ms) const;
  bool ended() const { return ended_; }

 private:
  bool reasoning_ = false;  // inside the tags
  bool ended_ = false;      // a finish_reason came
  Json usage_;
};

}  // namespace capstan::gateway::bedrock
