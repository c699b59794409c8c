// Dfa: a set of texts as a deterministic automaton over the bytes of UTF-8, for patterns, lengths and keys.
//
//   CAPSTAN_TRY(Dfa words, Dfa::of(expression));
//   CAPSTAN_TRY(Dfa short_words, words.both(Dfa::length(0, 10)));
//   const NodeId behind = short_words.emit_json_string(build, from);   // inside the quotes, escaped
//
// Threads: values. Bounds: kDfaStatesMax states; beyond, kInvalid. Cost: states × 256 entries of 2 bytes.
#pragma once

#include <array>
#include <optional>
#include <string_view>

#include "engine/grammar/expression.h"

namespace capstan::engine {

inline constexpr std::size_t kDfaStatesMax = 16'384;

class Dfa {
 public:
  static Result<Dfa> of(const Expression& expression);
  // Bytes with so many characters among them (whether they are UTF-8 is for the other set to say); max
  // kNoBound: no limit. min and a finite max are below kDfaStatesMax.
  static Dfa length(std::uint32_t min, std::uint32_t max);
  static Result<Dfa> of_texts(const std::vector<std::string>& texts);
  static Dfa every_text();
  // Texts whose number of characters leaves `rest` when divided by `by`.
  static Dfa length_class(std::uint32_t by, std::uint32_t rest);

  // The texts of both; those of this that are not in the other; those of either.
  Result<Dfa> both(const Dfa& other) const { return combined(other, Wanted::kBoth); }
  Result<Dfa> without(const Dfa& other) const { return combined(other, Wanted::kFirst); }
  Result<Dfa> either(const Dfa& other) const { return combined(other, Wanted::kEither); }
  // The texts t of which begin + t + end is in this set; no text has these two bytes.
  Dfa between(std::uint8_t begin, std::uint8_t end) const;

  bool matches(std::string_view text) const;
  bool is_empty() const;  // no text at all
  // All texts, if there are at most so many.
  std::optional<std::vector<std::string>> all_texts(std::size_t count_max) const;
  std::size_t size() const { return states_.size(); }

  // The text as the inside of a JSON string: quotes, backslashes and control characters in their shortest
  // escape.
  NodeId emit_json_string(GrammarBuilder& build, NodeId from) const;
  NodeId emit_raw(GrammarBuilder& build, NodeId from) const;

 private:
  using Index = std::uint16_t;
  static constexpr Index kNone = 0xFFFF;
  struct State {
    std::array<Index, 256> next;
    bool final = false;
  };

  Index add();
  // Without the states that lead to no end.
  void trim();
  enum class Wanted { kBoth, kFirst, kEither };
  Result<Dfa> combined(const Dfa& other, Wanted wanted) const;

  std::vector<State> states_;  // the first is the start
};

}  // namespace capstan::engine
