#include "gateway/usage.h"

#include <algorithm>

namespace capstan::gateway {
namespace {

std::int64_t count(const Json* object, std::string_view key) {
  return object == nullptr ? 0 : std::max<std::int64_t>(object->get_int(key).value_or(0), 0);
}

}  // namespace

Usage read_usage(const Json& usage) {
  return {.prompt_tokens = count(&usage, "prompt_tokens"),
          .cached_tokens = count(usage.find("prompt_tokens_details"), "cached_tokens"),
          .completion_tokens = count(&usage, "completion_tokens"),
          .reasoning_tokens = count(usage.find("completion_tokens_details"), "reasoning_tokens"),
          .exact = usage.get_int("prompt_tokens").has_value()};
}

}  // namespace capstan::gateway
