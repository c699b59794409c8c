// The rules of JSON itself, made in a GrammarBuilder when they are first asked for.
//
// Bounds that keep any answer finite and readable by every parser: blanks between parts are none, one space,
// or a line end and up to kIndentMax spaces; numbers have up to 15 digits before and behind the point and two
// of an exponent. Strings hold any character; \uXXXX escapes are allowed where they stand for a whole
// character. Threads: one owner.
#pragma once

#include <map>
#include <optional>

#include "engine/grammar/grammar.h"

namespace capstan::engine {

inline constexpr int kIndentMax = 24;
inline constexpr std::uint32_t kCharactersMax = 8'192;  // longer bounds of strings are read as this one

class JsonRules {
 public:
  explicit JsonRules(GrammarBuilder& build) : build_(build) {}

  RuleId blank();
  // With its quotes. max kNoBound: no limit. min and a finite max are at most kCharactersMax.
  RuleId string(std::uint32_t min = 0, std::uint32_t max = kNoBound);
  RuleId number();
  RuleId integer();
  RuleId any_value();
  RuleId any_object();

 private:
  RuleId character();
  NodeId rest_of_string(std::uint32_t more, NodeId end);
  RuleId of_regex(std::optional<RuleId>& kept, std::string_view pattern);

  GrammarBuilder& build_;
  std::optional<RuleId> blank_, character_, number_, integer_, any_value_, any_object_;
  std::map<std::pair<std::uint32_t, std::uint32_t>, RuleId> strings_;
  std::vector<NodeId> chain_;  // [i]: i more characters may come, then the quote
  NodeId chain_end_ = 0;
};

}  // namespace capstan::engine
