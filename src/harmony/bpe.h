// Byte-pair encoding of one piece of text: join the neighbouring pair of lowest rank until none is left.
//
// Ranks come either from a list of merges (tokenizer.json), or from the tokens themselves, where the rank of
// a pair is the id of its joined bytes (tiktoken). Cost: O(n log n) for n bytes, so a megabyte of one letter
// is no attack. Threads: read by any.
#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "harmony/vocabulary.h"

namespace capstan::harmony {

class Merges {
 public:
  // Ranks are token ids: no list is needed.
  static Merges by_token_id() { return Merges(); }
  // Ranks are positions in a list that add() fills.
  static Merges by_list() {
    Merges merges;
    merges.listed_ = true;
    return merges;
  }
  // The next merge: tokens `left` and `right` make `joined`. A repeated pair keeps its first rank.
  void add(TokenId left, TokenId right, TokenId joined);
  // Drops the merges that would make a special token out of text.
  void drop_specials(const Vocabulary& vocabulary);

  struct Joined {
    std::uint32_t rank;
    TokenId token;
  };
  static constexpr std::uint32_t kNoRank = UINT32_MAX;
  // What the pair makes; `bytes` are those of both tokens. rank is kNoRank if they do not join.
  Joined find(const Vocabulary& vocabulary, TokenId left, TokenId right, std::string_view bytes) const;

 private:
  bool listed_ = false;
  std::uint32_t next_rank_ = 0;
  std::unordered_map<std::uint64_t, Joined> pairs_;
};

// Appends the tokens of `piece` to `out`. With `whole_first` a piece that is a token is that token before any
// merge (tiktoken; "ignore_merges" in tokenizer.json). Every single byte must have a token.
void encode_piece(const Vocabulary& vocabulary, const Merges& merges, bool whole_first,
                  std::string_view piece, std::vector<TokenId>& out);

}  // namespace capstan::harmony
