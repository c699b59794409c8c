// TokenTrie: a vocabulary as a tree of bytes, for finding the tokens that an automaton accepts.
//
//   TokenTrie trie(token_bytes, marks);      // token id -> bytes, empty for tokens that never occur
//   for (const TokenTrie::Node& node : trie.all()) …
//
// Nodes stand in preorder, so a subtree is a range and leaving it is a jump. Tokens that are plain text
// inside a JSON string (whole characters, no quote, no backslash, no control character) are known beforehand,
// by their number of characters: inside a string their mask is copied, and only the other tokens are walked.
// Threads: immutable. Memory: about 12 bytes for each byte of the vocabulary. Cost: a sort of the vocabulary.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "engine/grammar/grammar.h"

namespace capstan::engine {

// A set of tokens: bit `id % 64` of word `id / 64`.
using TokenMask = std::vector<std::uint64_t>;
inline void add_token(std::span<std::uint64_t> mask, std::int32_t token) {
  mask[static_cast<std::size_t>(token) / 64] |= std::uint64_t{1} << (token % 64);
}
inline bool has_token(std::span<const std::uint64_t> mask, std::int32_t token) {
  return (mask[static_cast<std::size_t>(token) / 64] >> (token % 64) & 1) != 0;
}

// A special token and the symbol that stands for it in grammars.
struct MarkToken {
  std::int32_t token;
  Symbol symbol;
};

class TokenTrie {
 public:
  // Longer plain tokens are walked like the others.
  static constexpr std::uint32_t kPlainCharactersMax = 48;

  struct Node {
    std::uint32_t subtree_end;  // index behind the last node below
    std::int32_t token;         // -1: no token ends here
    std::uint8_t byte;
    std::uint8_t depth;  // 1 for first bytes
  };

  // Tokens longer than 255 bytes are left out: they are never chosen under a grammar.
  TokenTrie(const std::vector<std::string_view>& token_bytes, std::vector<MarkToken> marks);

  std::span<const Node> all() const { return all_; }
  std::span<const Node> not_plain() const { return not_plain_; }
  std::span<const MarkToken> marks() const { return marks_; }
  // Plain tokens of at most so many characters; every token without marks.
  const TokenMask& plain(std::uint32_t characters) const;
  const TokenMask& text() const { return text_; }
  // Tokens with a quote in them.
  const TokenMask& quoted() const { return quoted_; }

  std::size_t vocabulary() const { return bytes_.size(); }
  std::size_t mask_words() const { return (bytes_.size() + 63) / 64; }
  std::string_view bytes(std::int32_t token) const;
  // The symbol of a mark; kSymbols if it is none.
  Symbol mark(std::int32_t token) const;
  // The token of a mark's symbol; -1 if there is none.
  std::int32_t token_of(Symbol mark) const;
  // Every byte alone is a token: what a grammar allows can always be written.
  bool has_all_bytes() const { return has_all_bytes_; }

 private:
  std::vector<std::string_view> bytes_;
  std::vector<MarkToken> marks_;
  std::vector<Node> all_, not_plain_;
  std::vector<TokenMask> plain_;  // by characters, 1 first
  TokenMask text_, quoted_;
  bool has_all_bytes_ = false;
};

}  // namespace capstan::engine
