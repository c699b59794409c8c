// The vocabulary of a byte-level tokenizer: token id <-> bytes, and the added tokens (specials and others).
//
// Ids may have gaps; a gap has no bytes. Bytes are real bytes, not the printable alphabet of tokenizer.json.
// Threads: built by one, then read by any.  Cost: one hash look-up per question.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"

namespace capstan::harmony {

using TokenId = std::int32_t;

// No real vocabulary comes near it; a larger id in a file is a mistake, not a reason to allocate.
inline constexpr TokenId kTokenIdEnd = 1 << 22;

class Vocabulary {
 public:
  // Ordinary tokens. Two ids for the same bytes, or two byte strings for one id, are kCorrupt.
  Result<void> add(TokenId id, std::string bytes);
  // An added token: `special` ones exist only as ids, never from a user's text; others are found in text.
  // It may repeat an ordinary token (same id), which it then replaces.
  Result<void> add_added(TokenId id, std::string content, bool special);

  std::optional<TokenId> find(std::string_view bytes) const;
  std::optional<TokenId> find_added(std::string_view content) const;
  // The bytes or the content; empty for gaps and ids outside.
  std::string_view bytes(TokenId id) const;
  bool is_special(TokenId id) const;
  bool is_used(TokenId id) const;
  // One past the largest id.
  TokenId size() const { return static_cast<TokenId>(entries_.size()); }
  // The first of the 256 single bytes without an ordinary token; nullopt if all have one.
  std::optional<std::uint8_t> missing_byte() const;

  struct AddedMatch {
    std::size_t offset;
    std::size_t length;
    TokenId id;
  };
  // The leftmost, then longest, added token in text[from..]; with `specials` false only the non-special ones.
  std::optional<AddedMatch> next_added(std::string_view text, std::size_t from, bool specials) const;

 private:
  enum class Kind : std::uint8_t { kGap, kOrdinary, kAdded, kSpecial };
  struct Entry {
    std::string_view bytes;
    Kind kind = Kind::kGap;
  };
  struct AddedLength {  // what next_added tries at a position, longest first
    std::size_t length;
    bool any_plain;  // a non-special added token has this length
  };

  std::string_view keep(std::string bytes);

  std::deque<std::string> arena_;  // owns what the views name; a deque never moves its strings
  std::vector<Entry> entries_;
  std::unordered_map<std::string_view, TokenId> ordinary_;
  std::unordered_map<std::string_view, TokenId> added_;
  std::vector<AddedLength> added_lengths_;
  bool added_first_bytes_[256] = {};
};

}  // namespace capstan::harmony
