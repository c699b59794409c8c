// Bedrock's errors: {"message": …} with the exception's name in x-amzn-errortype, as the AWS SDKs read them.
//
//   return to_response(throttled("…"), request_id);
//
// Threads: values.  Source: the AWS SDK's models of bedrock-runtime; what the SDK does with them is in
// docs/bedrock.md.
#pragma once

#include <string>
#include <string_view>

#include "gateway/openai_error.h"
#include "http/message.h"

namespace capstan::gateway::bedrock {

struct BedrockError {
  int status = 400;
  std::string type = "ValidationException";  // or "ThrottlingException", …
  std::string message = {};
};

// The status and type that Bedrock has for what went wrong behind an OpenAI error. A code that is the name of
// an exception stays.
BedrockError from_openai(const OpenAiError& error);
// The same for an error that a replica answered itself, as its status and body.
BedrockError from_upstream(int status, std::string_view body);

// An answer with x-amzn-errortype, x-amzn-requestid (a new one if `request_id` is empty) and the message; 429
// and 503 also say when to come again.
http::Response to_response(const BedrockError& error, std::string_view request_id);

// The name of the exception as a member of a stream's union: "throttlingException". Streams know fewer
// exceptions than whole answers; others become internalServerException.
std::string stream_member(const BedrockError& error);

}  // namespace capstan::gateway::bedrock
