// Expression: what regular expressions and grammars in GBNF are read into, and its way into a GrammarBuilder.
//
// Threads: values.  Cost: emitting a repetition {m,n} copies what it repeats n times, unless that is large:
// then it becomes a rule that is called n times (only where the builder's grammar may have calls).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/grammar/grammar.h"

namespace capstan::engine {

struct CodePointRange {
  std::uint32_t low, high;  // both included
};
using CodePointSet = std::vector<CodePointRange>;

inline constexpr std::uint32_t kCodePointMax = 0x10FFFF;
inline constexpr int kUnlimited = -1;

// Sorted, disjoint, not touching.
CodePointSet normalised(CodePointSet set);
// All other code points.
CodePointSet inverted(CodePointSet set);

struct Expression {
  enum class Kind { kCharacter, kSequence, kAlternatives, kRepeat, kRule, kByte };
  Kind kind = Kind::kSequence;  // without parts: the empty text
  CodePointSet set = {};        // of kCharacter: one of these
  std::vector<Expression> parts = {};
  int min = 0, max = kUnlimited;  // of kRepeat, of its one part
  RuleId rule = 0;                // of kRule
  std::uint8_t byte = 0;          // of kByte: this one, which need be no part of UTF-8

  static Expression character(CodePointSet set) { return {.kind = Kind::kCharacter, .set = std::move(set)}; }
  static Expression sequence(std::vector<Expression> parts) {
    return {.kind = Kind::kSequence, .parts = std::move(parts)};
  }
  static Expression alternatives(std::vector<Expression> parts);
  static Expression repeat(Expression part, int min, int max);
  static Expression raw(std::uint8_t byte) { return {.kind = Kind::kByte, .byte = byte}; }
  static Expression call(RuleId rule) { return {.kind = Kind::kRule, .rule = rule}; }
};

// Goes on from `from`; the node behind. `calls`: long repetitions may become rules.
NodeId emit(GrammarBuilder& build, NodeId from, const Expression& expression, bool calls);

// Reads the digits of {m}, {m,} or {m,n} behind the brace, and the closing brace. Bounds beyond kRepeatMax
// are refused.
inline constexpr int kRepeatMax = 10'000;
struct RepeatBounds {
  int min = 0, max = 0;
};
Result<RepeatBounds> read_bounds(std::string_view text, std::size_t& at);

// One character of UTF-8 text, moving on; a byte that begins none is kInvalid.
Result<std::uint32_t> read_code_point(std::string_view text, std::size_t& at);
// `digits` hexadecimal digits.
Result<std::uint32_t> read_hex(std::string_view text, std::size_t& at, int digits);

}  // namespace capstan::engine
