// OpenAI's error object and the headers that its clients understand.
#pragma once

#include "gateway/api_error.h"
#include "http/message.h"

namespace capstan::gateway {

using OpenAiError = ApiError;

// {"error":{"message","type","param","code"}}
Json to_json(const ApiError& error);

// The same as an answer; 429 and 503 also get retry-after, retry-after-ms and x-should-retry.
http::Response to_response(const ApiError& error);

// Whether an answer is a refusal that time heals: 503, or 429 for a rate and not for a budget.
bool lacks_room(const http::Response& answer);

}  // namespace capstan::gateway
