// The names of a text's pieces, for replicas whose cache is estimated: texts that begin alike share their first names.
//
//   std::vector<std::uint64_t> chain = text_chain(body);   // for BlockCache
//
// A piece is about a block of tokens (four bytes a token). A name stands for its piece and all before it; a rest has none.
// Pure.  Cost: a step for eight bytes.  Bounds: kPiecesMax; what a text has beyond counts as new.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "base/prng.h"

namespace capstan::routing {

inline constexpr std::size_t kPieceBytes = 256;
inline constexpr std::int64_t kPieceTokens = 64;
inline constexpr std::size_t kPiecesMax = 4'096;

inline std::vector<std::uint64_t> text_chain(std::string_view text) {
  std::vector<std::uint64_t> chain;
  std::uint64_t name = 0;
  while (text.size() >= kPieceBytes && chain.size() < kPiecesMax) {
    for (std::size_t at = 0; at < kPieceBytes; at += sizeof(std::uint64_t)) {
      std::uint64_t word = 0;
      std::memcpy(&word, text.data() + at, sizeof word);
      name = Prng::mix(name ^ word) + 0x9E3779B97F4A7C15u;
    }
    chain.push_back(name);
    text.remove_prefix(kPieceBytes);
  }
  return chain;
}

}  // namespace capstan::routing
