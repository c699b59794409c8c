// JSON schema -> the TypeScript that gpt-oss reads tools in.
//
//   type get_current_weather = (_: {
//   // The city and state, e.g. San Francisco, CA
//   location: string,
//   format?: "celsius" | "fahrenheit", // default: celsius
//   }) => any;
//
// Follows openai/harmony's renderer line by line (titles, descriptions, examples, defaults, nullable, oneOf)
// and adds anyOf and const, which that one prints as `any`. What it does not know becomes `any`; nothing
// fails. Cost: linear; depth is bounded by the JSON parser.
#pragma once

#include <span>
#include <string>

#include "harmony/conversation.h"

namespace capstan::harmony {

// The schema as a type, its lines starting with `indent`.
std::string typescript_type(const Json& schema, const std::string& indent);

// "## functions\n\nnamespace functions {\n\n…} // namespace functions"
std::string typescript_namespace(std::string_view name, std::span<const FunctionTool> tools);

}  // namespace capstan::harmony
