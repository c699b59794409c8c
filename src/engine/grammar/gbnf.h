// Grammars as llama.cpp's users write them (GBNF) -> Grammar.
//
//   CAPSTAN_TRY(auto grammar, compile_gbnf("root ::= \"yes\" | \"no\" ws\nws ::= [ \\t\\n]{0,3}"));
//
// Read: rules `name ::= …` (a rule ends at a line's end outside parentheses, unless it ends in | or the next
// line starts with one), "literals" and [classes] with the escapes \n \r \t \\ \" \[ \] \- \xHH \uHHHH
// \UHHHHHHHH, . for any character, ( ), |, * + ? {m} {m,} {m,n} {,n}, # comments. The rule `root` is the
// answer. Written by ourselves after llama.cpp's grammars/README.md; tokens (<[12]>, <think>) are not part of
// it. Failure: kInvalid with line and column; rules that are missing, given twice, or left-recursive are
// refused. Bounds: kGbnfBytesMax, parentheses nested to kGbnfDepthMax, grammar.h's kNodesMax.
#pragma once

#include "engine/grammar/expression.h"

namespace capstan::engine {

inline constexpr std::size_t kGbnfBytesMax = 256u << 10;
inline constexpr int kGbnfDepthMax = 64;

Result<std::shared_ptr<const Grammar>> compile_gbnf(std::string_view text);
// The same into a builder that holds other rules, too: the rule for `root`.
Result<RuleId> add_gbnf(GrammarBuilder& build, std::string_view text);

}  // namespace capstan::engine
