// Converse and ConverseStream requests as chat/completions bodies.
//
//   auto call = chat_of_converse("gpt-oss-20b", body, {.stream = true});
//   if (!call) return to_response({400, "ValidationException", call.error().message}, id);
//
// Text, images (as data URLs), documents of text, tool uses and results, reasoning; system prompts;
// inferenceConfig; tools and toolChoice; outputConfig (a JSON schema, given as text); serviceTier;
// additionalModelRequestFields (merged in, but for what Converse has fields of its own for). Cache points are
// skipped: caches find prefixes by themselves. What this server cannot honour is refused with a reason, never
// dropped: guardrails, prompt variables, videos, audio, binary documents. Threads: pure.  Bounds: those of
// JSON; the replica checks lengths.  Failure: kInvalid, with the field's path in the message. Source: the AWS
// SDK's models of bedrock-runtime (3.1164), AWS's user guide on OpenAI models.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace capstan::gateway::bedrock {

struct ConverseCall {
  Json chat;                 // the body for chat/completions
  std::string service_tier;  // as asked for: "default", "priority", "flex", "reserved"; "" if not
  std::vector<std::string> response_field_paths;  // additionalModelResponseFieldPaths
  Json performance_config;                        // to repeat; null if absent
};

Result<ConverseCall> chat_of_converse(std::string_view model, std::string_view body, bool stream);

}  // namespace capstan::gateway::bedrock
