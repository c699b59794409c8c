// What is wrong with the plain members of a request of the Responses API: types, ranges, names, each with OpenAI's param and
// code. What is null counts as absent. Threads: pure.  Source: OpenAI's specification (CreateResponse).
#pragma once

#include <expected>

#include "base/json.h"
#include "gateway/openai_error.h"

namespace capstan::gateway::openai {

inline constexpr std::size_t kMetadataMax = 16;

std::expected<void, OpenAiError> check_responses_fields(const Json& body);
// At most kMetadataMax pairs of strings, of 64 and 512 characters.
std::expected<void, OpenAiError> check_metadata(const Json& body);
// The member if it is there and not null.
const Json* given(const Json& body, std::string_view key);
// "a", "web_search_1": what functions and schemas may be called.
bool is_plain_name(std::string_view name);

std::unexpected<OpenAiError> wrong(std::string param, std::string message, std::string code = "invalid_value");
std::unexpected<OpenAiError> missing(std::string param);
std::unexpected<OpenAiError> too_many(std::string param, std::size_t most, std::size_t got);  // elements of an array
std::unexpected<OpenAiError> wrong_type(std::string param, std::string_view expected, const Json& got);

}  // namespace capstan::gateway::openai
