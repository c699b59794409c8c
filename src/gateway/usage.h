// What a request used, in tokens: as the replica reports it, or estimated where it could not report any more.
#pragma once

#include <cstdint>
#include <string_view>


namespace capstan::gateway {

struct Usage {
  std::int64_t prompt_tokens = 0;      // of them cached_tokens were in a cache
  std::int64_t cached_tokens = 0;
  std::int64_t completion_tokens = 0;  // of them reasoning_tokens were not shown as answer
  std::int64_t reasoning_tokens = 0;
  bool exact = false;  // reported by the replica; else estimated (bytes of the prompt, events of the stream)
};

// Reads OpenAI's `usage` object; not exact if it is none, or has no prompt_tokens.
Usage read_usage(std::string_view json);

}  // namespace capstan::gateway
