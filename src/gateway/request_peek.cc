// How: the on-demand parser walks the members of the outermost object once; values that do not matter are
// skipped by their brackets. UTF-8 is checked for the whole body in its first stage.
#include "gateway/request_peek.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "base/json.h"

namespace capstan::gateway {
namespace {

namespace ondemand = simdjson::ondemand;

constexpr std::int64_t kTokensMax = 1 << 24;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr std::size_t kParserBytesMax = 64u << 20;

std::unexpected<ApiError> refuse(std::string message, std::string param = {}, std::string code = {}) {
  return std::unexpected(
      ApiError{.message = std::move(message), .param = std::move(param), .code = std::move(code)});
}

// The members that decide; the bit of each says that it was seen.
enum Member : unsigned {
  kModel, kStream, kStreamOptions, kMaxTokens, kMaxCompletionTokens, kN, kTier, kCacheKey, kStore, kMembers
};
constexpr std::array<std::string_view, kMembers> kNames = {
    "model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "service_tier",
    "prompt_cache_key", "store"};

struct Reading {
  RequestPeek peek;
  unsigned seen = 0;
  std::int64_t max_tokens = 0;
  std::int64_t max_completion_tokens = 0;
  std::int64_t n = 1;
};

using Refusal = std::optional<ApiError>;

ApiError wrong(Member member, std::string_view wanted) {
  return {.message = fmt::format("Invalid type for '{}': expected {}.", kNames[member], wanted),
          .param = std::string(kNames[member]),
          .code = "invalid_type"};
}

ApiError out_of_range(Member member, std::string_view side, std::string_view bound) {
  return {.message = fmt::format("Invalid '{}': integer {} value. Expected a value {}.", kNames[member], side, bound),
          .param = std::string(kNames[member]),
          .code = side.starts_with("above") ? "integer_above_max_value" : "integer_below_min_value"};
}

Refusal read_text(ondemand::value value, Member member, std::string& out) {
  std::string_view text;
  if (value.is_null().value_unsafe()) return std::nullopt;
  if (value.get_string().get(text) != simdjson::SUCCESS) return wrong(member, "a string");
  out = text;
  return std::nullopt;
}

Refusal read_count(ondemand::value value, Member member, std::int64_t& out) {
  if (value.is_null().value_unsafe()) return std::nullopt;
  double number = 0;  // 5.0 is an integer, too
  if (value.get_double().get(number) != simdjson::SUCCESS || number != std::trunc(number)) return wrong(member, "an integer");
  if (number < 0) return out_of_range(member, "below minimum", ">= 1");
  if (number > INT32_MAX) return out_of_range(member, "above maximum", fmt::format("<= {}", INT32_MAX));
  out = std::min(static_cast<std::int64_t>(number), kTokensMax);
  return std::nullopt;
}

Refusal read_stream_options(ondemand::value value, RequestPeek& peek) {
  if (const std::string_view text = value.raw_json_token(); text.starts_with("null")) {
    peek.stream_options = text.substr(0, 4);
    return std::nullopt;
  }
  ondemand::object options;
  if (value.get_object().get(options) != simdjson::SUCCESS) return wrong(kStreamOptions, "an object");
  if (options.raw_json().get(peek.stream_options) != simdjson::SUCCESS) return wrong(kStreamOptions, "an object");
  if (options.reset().error() != simdjson::SUCCESS) return wrong(kStreamOptions, "an object");
  for (auto field : options) {
    std::string_view key;
    if (field.unescaped_key().get(key) != simdjson::SUCCESS) return wrong(kStreamOptions, "an object");
    if (key != "include_usage") continue;
    ondemand::value flag;
    if (field.value().get(flag) != simdjson::SUCCESS) return wrong(kStreamOptions, "an object");
    const std::string_view text = flag.raw_json_token();
    if (!text.starts_with("null") && flag.get_bool().get(peek.include_usage) != simdjson::SUCCESS)
      return ApiError{.message = "Invalid type for 'stream_options.include_usage': expected a boolean.",
                      .param = "stream_options.include_usage",
                      .code = "invalid_type"};
    if (!peek.include_usage) peek.usage_flag = text.substr(0, text.starts_with("null") ? 4 : 5);
  }
  return std::nullopt;
}

Refusal read_tier(ondemand::value value, RequestPeek& peek) {
  std::string name;
  if (auto refused = read_text(value, kTier, name)) return refused;
  constexpr std::array<std::string_view, 6> kTiers = {"", "auto", "default", "flex", "scale", "priority"};
  if (std::ranges::find(kTiers, name) == kTiers.end())
    return ApiError{.message = fmt::format("Invalid value: '{}'. Supported values are: 'auto', 'default', 'flex', 'scale', and "
                                           "'priority'.",
                                           name),
                    .param = "service_tier",
                    .code = "invalid_value"};
  if (name == "priority") peek.tier = ServiceTier::kPriority;
  if (name == "flex") peek.tier = ServiceTier::kFlex;
  return std::nullopt;
}

Refusal read_member(Member member, ondemand::value value, Reading& reading) {
  switch (member) {
    case kModel:
      return read_text(value, member, reading.peek.model);
    case kStream:
      if (value.is_null().value_unsafe()) return std::nullopt;
      if (value.get_bool().get(reading.peek.stream) != simdjson::SUCCESS) return wrong(member, "a boolean");
      return std::nullopt;
    case kStreamOptions:
      return read_stream_options(value, reading.peek);
    case kMaxTokens:
      return read_count(value, member, reading.max_tokens);
    case kMaxCompletionTokens:
      return read_count(value, member, reading.max_completion_tokens);
    case kN:
      return read_count(value, member, reading.n);
    case kTier:
      return read_tier(value, reading.peek);
    case kCacheKey:
      return read_text(value, member, reading.peek.cache_key);
    case kStore:
      if (value.is_null().value_unsafe()) return std::nullopt;
      if (value.get_bool().get(reading.peek.store) != simdjson::SUCCESS) return wrong(member, "a boolean");
      return std::nullopt;
    case kMembers:
      break;
  }
  return std::nullopt;
}

std::unexpected<ApiError> broken(simdjson::error_code error) {
  if (error == simdjson::UTF8_ERROR) return refuse("the body is not valid UTF-8");
  return refuse(fmt::format("the body is no valid JSON: {}", simdjson::error_message(error)));
}

}  // namespace

std::expected<RequestPeek, ApiError> peek_request(std::string& body) {
  if (body.starts_with(kByteOrderMark)) body.erase(0, kByteOrderMark.size());
  thread_local ondemand::parser parser(kParserBytesMax);
  if (body.capacity() < body.size() + simdjson::SIMDJSON_PADDING) body.reserve(body.size() + simdjson::SIMDJSON_PADDING);
  ondemand::document document;
  if (const auto error =
          parser.iterate(simdjson::padded_string_view(body.data(), body.size(), body.capacity())).get(document))
    return broken(error);
  ondemand::object object;
  if (document.get_object().get(object) != simdjson::SUCCESS) return refuse("the body must be a JSON object");
  Reading reading;
  reading.peek.first_member = body.find('{') + 1;
  for (auto entry : object) {
    ondemand::field field;
    if (const auto error = std::move(entry).get(field)) return broken(error);
    std::string_view key;
    if (const auto error = field.unescaped_key().get(key)) return broken(error);
    const auto name = std::ranges::find(kNames, key);
    if (name == kNames.end()) continue;
    const auto member = static_cast<Member>(name - kNames.begin());
    if ((reading.seen & (1u << member)) != 0)
      return refuse(fmt::format("'{}' stands in the body twice", *name), std::string(*name));
    reading.seen |= 1u << member;
    if (auto refused = read_member(member, field.value(), reading)) return std::unexpected(*std::move(refused));
  }
  if (reading.peek.model.empty())
    return refuse("'model' is missing; name one of GET /v1/models", "model", "missing_required_parameter");
  const std::int64_t limit = reading.max_completion_tokens > 0 ? reading.max_completion_tokens : reading.max_tokens;
  reading.peek.completion_tokens_max = std::min(limit * std::max<std::int64_t>(reading.n, 1), kTokensMax);
  return std::move(reading.peek);
}

void ask_for_usage(std::string& body, const RequestPeek& peek) {
  if (peek.include_usage) return;
  static constexpr std::string_view kAsk = R"("include_usage":true)";
  const auto offset = [&](std::string_view part) { return static_cast<std::size_t>(part.data() - body.data()); };
  if (!peek.usage_flag.empty()) {
    body.replace(offset(peek.usage_flag), peek.usage_flag.size(), "true");
  } else if (peek.stream_options == "null") {
    body.replace(offset(peek.stream_options), peek.stream_options.size(), fmt::format("{{{}}}", kAsk));
  } else if (!peek.stream_options.empty()) {
    const bool empty = peek.stream_options.find('"') == std::string_view::npos;
    body.insert(offset(peek.stream_options) + 1, fmt::format("{}{}", kAsk, empty ? "" : ","));
  } else {
    body.insert(peek.first_member, fmt::format(R"("stream_options":{{{}}},)", kAsk));
  }
}

void replace_model(std::string& body, std::string_view name) {
  thread_local ondemand::parser parser(kParserBytesMax);
  body.reserve(body.size() + simdjson::SIMDJSON_PADDING);
  ondemand::document document;
  ondemand::value value;
  const simdjson::padded_string_view padded(body.data(), body.size(), body.capacity());
  if (parser.iterate(padded).get(document) != simdjson::SUCCESS ||
      document.find_field_unordered("model").get(value) != simdjson::SUCCESS)
    return;
  const std::string_view token = value.raw_json_token();  // with what follows the string
  const auto begin = static_cast<std::size_t>(token.data() - body.data());
  std::size_t end = begin + 1;
  while (end < body.size() && body[end] != '"') end += body[end] == '\\' ? 2 : 1;
  std::string quoted;
  append_json_string(quoted, name);
  body.replace(begin, std::min(end + 1, body.size()) - begin, quoted);
}

}  // namespace capstan::gateway
