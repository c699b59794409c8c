// The Responses API's code_interpreter: model turns and Python, until the model answers or a budget is used up.
//
//   CodeLoop::start({.gateway = gateway, .runner = runner, .keep = …}, {call, chat, answer, caller}, writer, request);
//
// Each turn is a request of its own to the gateway (admission, limits, routing, metering, an access line); the
// response's usage is their sum. Between turns the code that the model called runs in its container, one piece after
// the other. What ends it: an answer; a call of a function of the client's; max_output_tokens over all turns;
// max_tool_calls (the model is then asked for an answer without tools); kLoopTimeMs; the client's leaving.
//
// Threads: start from any; all else on the gateway's event loop, and nothing blocks.  Ownership: it holds itself until
// its end; gateway and runner outlive it.  Bounds: kLoopsMax at once, kCodeCallsMax calls, kCodeTimeMs a call.
// Failure: before the first byte as an error of OpenAI's shape, then as response.failed; a later turn that is refused for lack of
// room is asked again.
#pragma once

#include <functional>
#include <memory>

#include "gateway/gateway.h"
#include "gateway/openai/code_runner.h"
#include "gateway/openai/responses_answer.h"

namespace capstan::gateway::openai {

inline constexpr int kLoopsMax = 1'000;
inline constexpr std::int64_t kCodeCallsMax = 128;  // of one response, and fewer if it says so
inline constexpr std::int64_t kLoopTimeMs = 600'000;
inline constexpr std::size_t kLoopImageBytesMax = 16u << 20;  // of one response; images beyond it are left out

struct CodeLoopParts {
  Gateway& gateway;
  CodeRunner& runner;
  std::function<void(const Json& response)> keep = {};  // the whole response, when it has ended; empty: it is not kept
  std::int64_t time_ms = kLoopTimeMs;
};

struct CodeLoopTask {
  ResponsesCall call;  // with its container
  Json chat;           // the first turn's body
  ResponsesAnswer answer;
  CallerPtr caller;
  std::vector<CodeRunner::File> files = {};  // of the container
};

class CodeLoop {
 public:
  // `request`: the client's, for its id and its trace. kUnavailable if the server does not run, kExhausted.
  static Result<void> start(CodeLoopParts parts, CodeLoopTask task, const http::ResponseWriterPtr& writer,
                            const http::Request& request);
};

}  // namespace capstan::gateway::openai
