// The lines of a batch's input file, checked: JSONL of {custom_id, method, url, body}.
//
// Pure.  Bounds: kBatchLinesMax lines, kBatchBytesMax together, kBatchErrorsMax errors are told.  Failure: the
// errors, each with its line, as OpenAI tells them.
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace capstan::gateway::openai {

inline constexpr std::size_t kBatchLinesMax = 50'000;
inline constexpr std::size_t kBatchBytesMax = 200u << 20;
inline constexpr std::size_t kBatchErrorsMax = 100;

struct BatchLine {
  std::string custom_id;
  std::string body;  // of the request, without `stream`
};

// `endpoint`: "/v1/chat/completions", which every line's url must be. The error: [{code, line, message,
// param}].
std::expected<std::vector<BatchLine>, Json> parse_batch_lines(std::string_view text,
                                                              std::string_view endpoint);

}  // namespace capstan::gateway::openai
