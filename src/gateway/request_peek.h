// What the gateway reads of a request's body without building a document: one pass over its members.
//
// Bodies go to replicas as they came, so what is read here must be what the replica reads: a member that decides
// (model, stream, …) and stands there twice is refused.
// Cost: simdjson's on-demand parser, about a gigabyte a second; no allocation in steady state.
// Bounds: nesting is skipped, not followed. Failure: 400 with what is wrong; broken JSON inside members that are
// skipped is left to the replica. Invalid UTF-8 is refused.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

#include "gateway/admission.h"
#include "gateway/api_error.h"

namespace capstan::gateway {

struct RequestPeek {
  std::string model;
  bool stream = false;
  bool include_usage = false;
  bool store = false;  // the answer is to be kept
  std::int64_t completion_tokens_max = 0;  // max_completion_tokens or max_tokens, times n; 0: none given
  ServiceTier tier = ServiceTier::kDefault;
  std::string cache_key;  // prompt_cache_key: requests with the same one share a prompt's beginning
  // Views into the body:
  std::string_view stream_options;  // the object's text or null; empty if there is none
  std::string_view usage_flag;      // stream_options.include_usage, if it is there and not true
  std::size_t first_member = 0;     // where another member may be put, followed by a comma
};

// `body` may get room behind its end; its bytes stay.
std::expected<RequestPeek, ApiError> peek_request(std::string& body);

// Makes the replica report usage at the end of its stream, whether or not the client asked for it.
void ask_for_usage(std::string& body, const RequestPeek& peek);

// Puts another model's name into a body that was peeked at or composed.
void replace_model(std::string& body, std::string_view name);

}  // namespace capstan::gateway
