// Regular expressions of JSON schemas (a regular subset of ECMAScript's with the u flag) -> Expression.
//
//   CAPSTAN_TRY(Expression expression, parse_regex("^[a-z]+$"));
//
// Read: characters, ., [classes], \d \w \s and their opposites, escapes (\n \t \xHH \uHHHH \u{H…}), groups
// (also named; they capture nothing), |, * + ? {m,n} (lazy ones match the same texts), ^ at the start and $
// at the end of the pattern or of a top-level alternative. Where an anchor is missing, any text may stand, as
// JSON schema wants. Refused by name: look-around, back references, \b, \p, anchors elsewhere.
// Bounds: kRegexBytesMax, groups nested to kRegexDepthMax.
#pragma once

#include "engine/grammar/expression.h"

namespace capstan::engine {

inline constexpr std::size_t kRegexBytesMax = 4'096;
inline constexpr int kRegexDepthMax = 32;

// `whole`: the pattern is the whole text, with or without anchors (vLLM's guided_regex).
Result<Expression> parse_regex(std::string_view pattern, bool whole = false);

}  // namespace capstan::engine
