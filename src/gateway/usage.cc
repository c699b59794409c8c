#include "gateway/usage.h"

#include <simdjson.h>

#include <algorithm>

namespace capstan::gateway {
namespace {

using simdjson::dom::object;

std::int64_t count(const object& from, std::string_view key) {
  std::int64_t value = 0;
  return from[key].get(value) == simdjson::SUCCESS ? std::max<std::int64_t>(value, 0) : 0;
}

std::int64_t count_of_detail(const object& from, std::string_view details, std::string_view key) {
  object inner;
  return from[details].get(inner) == simdjson::SUCCESS ? count(inner, key) : 0;
}

}  // namespace

Usage read_usage(std::string_view text) {
  thread_local simdjson::dom::parser parser;  // its memory serves the next answer
  object usage;
  std::int64_t prompt_tokens = 0;
  if (parser.parse(text.data(), text.size()).get(usage) != simdjson::SUCCESS ||
      usage["prompt_tokens"].get(prompt_tokens) != simdjson::SUCCESS)
    return {};
  return {.prompt_tokens = std::max<std::int64_t>(prompt_tokens, 0),
          .cached_tokens = count_of_detail(usage, "prompt_tokens_details", "cached_tokens"),
          .completion_tokens = count(usage, "completion_tokens"),
          .reasoning_tokens = count_of_detail(usage, "completion_tokens_details", "reasoning_tokens"),
          .exact = true};
}

}  // namespace capstan::gateway
