// Cuts text into the pieces inside which byte-pair encoding works, by regular expressions.
//
// A chain of steps; each step cuts every piece of the step before. Built from tokenizer.json's
// `pre_tokenizer` (Sequence, Split, ByteLevel, Digits) or from a pattern.
//   CAPSTAN_TRY(auto cutter, Pretokenizer::from_pattern(kO200kPattern));
//   std::vector<std::string_view> pieces = cutter.cut("Hello world");   // "Hello", " world"
//
// The pieces joined are the text, whatever the pattern: what a pattern does not match becomes a piece too,
// also bytes that are no UTF-8. A search that exceeds the matcher's limits gives pieces of kFallbackBytes
// instead of an error. No piece is longer than kPieceBytesMax. Threads: read by any.  Cost: linear for the
// patterns in use; one match block per call.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace capstan::harmony {

// o200k_base's pattern (tiktoken).
extern const std::string_view kO200kPattern;
// GPT-2's, which ByteLevel with use_regex means.
extern const std::string_view kGpt2Pattern;

// Longer pieces are cut at a character's end. Real text has none; it bounds what one letter repeated can
// cost.
inline constexpr std::size_t kPieceBytesMax = 1 << 16;
inline constexpr std::size_t kFallbackBytes = 512;

class Pretokenizer {
 public:
  static Result<Pretokenizer> from_pattern(std::string_view pattern);
  // The `pre_tokenizer` member of tokenizer.json. Kinds that are not listed above are kUnsupported.
  static Result<Pretokenizer> from_json(const Json& json);
  ~Pretokenizer();
  Pretokenizer(Pretokenizer&&) noexcept;
  Pretokenizer& operator=(Pretokenizer&&) noexcept;

  // Views into `text`.
  std::vector<std::string_view> cut(std::string_view text) const;
  // ByteLevel's add_prefix_space: a text that does not begin with a space gets one.
  bool add_prefix_space() const { return add_prefix_space_; }

 private:
  class Step;
  Pretokenizer();
  Result<void> add_step(std::string_view pattern);
  Result<void> add_json(const Json& json);

  std::vector<std::unique_ptr<Step>> steps_;
  bool add_prefix_space_ = false;
};

}  // namespace capstan::harmony
