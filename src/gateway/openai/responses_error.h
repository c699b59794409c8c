// A replica's refusal of the chat request that a response became, in the Responses API's terms: `messages` is `input`,
// `reasoning_effort` is `reasoning.effort`, and so on, in `param` and in the message. Threads: pure.
#pragma once

#include "gateway/openai_error.h"

namespace capstan::gateway::openai {

OpenAiError in_responses_terms(OpenAiError error);
// The same for a whole answer; one without OpenAI's error passes as it is.
http::Response in_responses_terms(http::Response answer);

}  // namespace capstan::gateway::openai
