// Regular expressions of JSON schemas (ECMAScript's with the u flag, as far as they are regular) -> a Dfa.
//
//   CAPSTAN_TRY(Dfa dfa, parse_pattern("^[a-z]+$"));
//
// Read: characters, ., [classes], \d \w \s and their opposites, \p{L} and other properties, escapes (\n \t
// \xHH \uHHHH \u{H…}), groups (also named; they capture nothing), |, * + ? {m,n} (lazy ones match the same
// texts), ^ and $ anywhere, look-ahead at the start of the pattern or of a top-level alternative, look-behind
// at its end. Where an anchor is missing, any text may stand, as JSON schema wants. Refused by name:
// look-around elsewhere, back references, \b. Bounds: kRegexBytesMax, groups nested to kRegexDepthMax,
// dfa.h's.
#pragma once

#include "engine/grammar/dfa.h"

namespace capstan::engine {

inline constexpr std::size_t kRegexBytesMax = 4'096;
inline constexpr int kRegexDepthMax = 32;

// `whole`: the pattern is the whole text, with or without anchors (vLLM's guided_regex).
Result<Dfa> parse_pattern(std::string_view pattern, bool whole = false);

// The code points with a property of Unicode, as \p{name} has it: "L", "Lu", "Greek", "Script=Greek",
// "Letter".
Result<CodePointSet> unicode_property(std::string_view name);

}  // namespace capstan::engine
