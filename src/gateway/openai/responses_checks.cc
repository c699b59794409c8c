// Tables of members and what they may be.
#include "gateway/openai/responses_checks.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <span>

namespace capstan::gateway::openai {
namespace {

using Status = std::expected<void, OpenAiError>;
using Names = std::initializer_list<std::string_view>;

bool is_whole(const Json& value) { return value.is_number() && value.as_double() == std::trunc(value.as_double()); }

struct Type {
  bool (*is)(const Json&);
  std::string_view name;
};
constexpr Type kText{[](const Json& value) { return value.is_string(); }, "a string"};
constexpr Type kFlag{[](const Json& value) { return value.is_bool(); }, "a boolean"};
constexpr Type kList{[](const Json& value) { return value.is_array(); }, "an array"};
constexpr Type kObject{[](const Json& value) { return value.is_object(); }, "an object"};
constexpr Type kNumber{[](const Json& value) { return value.is_number(); }, "a number"};
constexpr Type kInteger{is_whole, "an integer"};

struct Field {
  std::string_view key;
  const Type& type;
  double least = -1e18, most = 1e18;
};
constexpr Field kFields[] = {{"model", kText},
                             {"instructions", kText},
                             {"previous_response_id", kText},
                             {"stream", kFlag},
                             {"stream_options", kObject},
                             {"store", kFlag},
                             {"background", kFlag},
                             {"include", kList},
                             {"max_output_tokens", kInteger, 1, INT32_MAX},
                             {"max_tool_calls", kInteger, 1, INT32_MAX},
                             {"temperature", kNumber, 0, 2},
                             {"top_p", kNumber, 0, 1},
                             {"top_logprobs", kInteger, 0, 20},
                             {"parallel_tool_calls", kFlag},
                             {"tools", kList},
                             {"reasoning", kObject},
                             {"text", kObject},
                             {"metadata", kObject},
                             {"service_tier", kText},
                             {"truncation", kText},
                             {"prompt_cache_key", kText},
                             {"safety_identifier", kText},
                             {"user", kText}};

Status check_field(const Json& body, const Field& field) {
  const Json* value = given(body, field.key);
  if (value == nullptr) return {};
  if (!field.type.is(*value)) return wrong_type(std::string(field.key), field.type.name, *value);
  if (!value->is_number()) return {};
  const double number = value->as_double();
  if (number >= field.least && number <= field.most) return {};
  const bool above = number > field.most;
  const std::string_view kind = &field.type == &kInteger ? "integer" : "decimal";
  return wrong(std::string(field.key),
               fmt::format("Invalid '{}': {} {} value. Expected a value {} {}, but got {} instead.",
                           field.key, kind, above ? "above maximum" : "below minimum",
                           above ? "<=" : ">=", above ? field.most : field.least, number),
               fmt::format("{}_{}_value", kind, above ? "above_max" : "below_min"));
}

Status check_name(const Json& object, std::string_view key, const std::string& param, Names names) {
  const Json* value = given(object, key);
  if (value == nullptr) return {};
  if (!value->is_string()) return wrong_type(param, "a string", *value);
  if (std::ranges::find(names, value->as_string()) != names.end()) return {};
  std::string told;
  for (const std::string_view name : names) told += fmt::format("{}'{}'", told.empty() ? "" : ", ", name);
  return wrong(param, fmt::format("Invalid value: '{}'. Supported values are: {}.", value->as_string(), told));
}

Status check_names(const Json& body) {
  if (auto checked = check_name(body, "service_tier", "service_tier",
                                {"auto", "default", "flex", "scale", "priority", "fast"});
      !checked)
    return checked;
  if (auto checked = check_name(body, "truncation", "truncation", {"auto", "disabled"}); !checked) return checked;
  if (const Json* reasoning = given(body, "reasoning")) {
    if (auto checked = check_name(*reasoning, "effort", "reasoning.effort",
                                  {"none", "minimal", "low", "medium", "high", "xhigh", "max"});
        !checked)
      return checked;
    for (const std::string_view key : {"summary", "generate_summary"}) {
      if (auto checked = check_name(*reasoning, key, fmt::format("reasoning.{}", key), {"auto", "concise", "detailed"}); !checked)
        return checked;
    }
  }
  const Json* text = given(body, "text");
  return text == nullptr ? Status() : check_name(*text, "verbosity", "text.verbosity", {"low", "medium", "high"});
}

Status check_include(const Json& body) {
  constexpr std::array<std::string_view, 8> kIncludes = {
      "file_search_call.results",      "web_search_call.results",     "web_search_call.action.sources",
      "message.input_image.image_url", "computer_call_output.output.image_url", "code_interpreter_call.outputs",
      "reasoning.encrypted_content",   "message.output_text.logprobs"};
  const Json* include = given(body, "include");
  for (std::size_t i = 0; include != nullptr && i < include->size(); ++i) {
    const Json& item = include->items()[i];
    const std::string param = fmt::format("include[{}]", i);
    if (!item.is_string()) return wrong_type(param, "a string", item);
    if (std::ranges::find(kIncludes, item.as_string()) != kIncludes.end()) continue;
    std::string told;
    for (const std::string_view name : kIncludes) told += fmt::format("{}'{}'", told.empty() ? "" : ", ", name);
    return wrong(param, fmt::format("Invalid value: '{}'. Supported values are: {}.", item.as_string(), told));
  }
  return {};
}

}  // namespace

std::unexpected<OpenAiError> wrong(std::string param, std::string message, std::string code) {
  return std::unexpected(OpenAiError{.message = std::move(message), .param = std::move(param), .code = std::move(code)});
}

std::unexpected<OpenAiError> missing(std::string param) {
  std::string message = fmt::format("Missing required parameter: '{}'.", param);
  return wrong(std::move(param), std::move(message), "missing_required_parameter");
}

std::unexpected<OpenAiError> too_many(std::string param, std::size_t most, std::size_t got) {
  std::string message = fmt::format(
      "Invalid '{}': array too long. Expected an array with maximum length {}, but got an array with length {} instead.", param,
      most, got);
  return wrong(std::move(param), std::move(message), "array_above_max_length");
}

std::unexpected<OpenAiError> wrong_type(std::string param, std::string_view expected, const Json& got) {
  std::string message = fmt::format("Invalid type for '{}': expected {}, but got {} instead.", param, expected, got.type_name());
  return wrong(std::move(param), std::move(message), "invalid_type");
}

const Json* given(const Json& body, std::string_view key) {
  const Json* value = body.find(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

bool is_plain_name(std::string_view name) {
  return !name.empty() && name.size() <= 64 && std::ranges::all_of(name, [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
}

Status check_metadata(const Json& body) {
  const Json* metadata = given(body, "metadata");
  if (metadata == nullptr) return {};
  if (!metadata->is_object()) return wrong_type("metadata", "an object", *metadata);
  if (metadata->size() > kMetadataMax)
    return wrong("metadata",
                 fmt::format("Invalid 'metadata': too many properties. Expected an object with at most {} properties, but got an "
                             "object with {} properties instead.",
                             kMetadataMax, metadata->size()),
                 "object_above_max_properties");
  for (const auto& [key, value] : metadata->members()) {
    const std::string param = "metadata." + key;
    if (!value.is_string()) return wrong_type(param, "a string", value);
    if (key.size() > 64 || value.as_string().size() > 512)
      return wrong(param, "keys of 'metadata' have at most 64 bytes, values are strings of at most 512",
                   "string_above_max_length");
  }
  return {};
}

std::expected<void, OpenAiError> check_responses_fields(const Json& body) {
  for (const Field& field : kFields) {
    if (auto checked = check_field(body, field); !checked) return checked;
  }
  for (const auto check : {check_names, check_include, check_metadata}) {
    if (auto checked = check(body); !checked) return checked;
  }
  return {};
}

}  // namespace capstan::gateway::openai
