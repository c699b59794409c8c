// TokenMatcher: which tokens may come next under a grammar and a budget of tokens. One per answer.
//
//   auto plan = std::make_shared<TokenPlan>(grammar, trie);     // shared by all answers with this grammar
//   TokenMatcher matcher(plan);
//   matcher.allowed(mask, tokens_left);                         // a bit for every token that may come next
//   matcher.accept(token);
//   matcher.is_end()                                            // what was accepted is a whole answer
//
// The budget: a token is allowed only if the answer can still be ended within `tokens_left`, it included.
// What an end costs is counted in tokens along the shortest way (longest tokens first), so closing starts as
// late as possible, and from a state that can be ended one always gets to an end. If no end is within the
// budget (it was too small from the start), only tokens that come nearest to it are allowed. In reasoning
// (free text before the answer) `reserve` further tokens are kept, so that the answer is more than its
// shortest form.
//
// Cost: a mask that was asked before in the same state is copied (25 KB for 200,000 tokens); a new one walks
// the vocabulary as far as the grammar goes along: microseconds in structure, 0.1 ms in strings, some ms
// where a pattern admits most tokens. Memory: masks of a plan are kept up to kMaskBytesMax, states as
// automaton.h says. Failure: a grammar so ambiguous that its states outgrow their bounds; then nothing is
// allowed and failed() is true. Threads: a plan may be shared by matchers on several threads (it locks); a
// matcher has one owner.
#pragma once

#include <memory>
#include <mutex>

#include "engine/grammar/automaton.h"
#include "engine/grammar/token_trie.h"
#include "engine/grammar/unique_items.h"

namespace capstan::engine {

inline constexpr std::size_t kMaskBytesMax = 16u << 20;
inline constexpr std::size_t kForcedBytesMax = 256;
// Arrays of different items need more than the shortest way, which repeats one: so many tokens are kept for
// them.
inline constexpr std::uint32_t kUniqueReserve = 16;

class TokenPlan {
 public:
  // Needs a vocabulary in which every byte is a token (TokenTrie::has_all_bytes).
  TokenPlan(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTrie> trie);

 private:
  friend class TokenMatcher;
  struct StateMasks;
  struct Ground;  // an automaton with its masks

  std::shared_ptr<Ground> new_ground() const;

  std::shared_ptr<const Grammar> grammar_;
  std::shared_ptr<const TokenTrie> trie_;
  // The ground that new matchers start on. A ground lives as long as a matcher stands on it.
  std::mutex mutex_;
  std::shared_ptr<Ground> ground_;
};

class TokenMatcher {
 public:
  explicit TokenMatcher(std::shared_ptr<TokenPlan> plan);

  // Sets `mask` (words of 64 tokens; those beyond the vocabulary get zeros). `tokens_left` >= 1.
  void allowed(std::span<std::uint64_t> mask, std::uint32_t tokens_left, std::uint32_t reserve = 0);
  // False if the token is not allowed; then nothing changes.
  bool accept(std::int32_t token);
  bool accept_bytes(std::string_view bytes);

  // The text that comes next whatever the model says, at most kForcedBytesMax bytes of it, and the mark
  // behind it (kSymbols: none is sure).
  struct Forced {
    std::string bytes = {};
    Symbol mark = kSymbols;
  };
  Forced forced() const;

  bool is_end() const;
  bool reasoning() const;
  bool failed() const;
  // Tokens of the shortest way to an end from here.
  std::uint32_t tokens_to_end();

 private:
  bool accept_symbols(std::string_view bytes, Symbol mark);
  void find_allowed(std::span<std::uint64_t> mask, std::uint32_t tokens_left, std::uint32_t reserve);
  void drop_repetitions(std::span<std::uint64_t> mask) const;
  bool leads_to_repetition(StateId state, UniqueItems items) const;
  void leave_full_ground();

  std::shared_ptr<TokenPlan> plan_;
  std::shared_ptr<TokenPlan::Ground> ground_;
  StateId state_;
  UniqueItems items_;
};

}  // namespace capstan::engine
