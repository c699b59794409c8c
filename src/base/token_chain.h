// The names of a token sequence's blocks, the same in every process: what an engine has cached and what a router asks for.
//
//   std::vector<std::uint64_t> chain = token_chain(prompt, 64);   // one name a whole block; a rest has none
//
// A block's name stands for its tokens and all before it, so equal names mean (but for one chance in 2^64 a pair) equal
// prefixes. Not against an adversary: who trusts a name compares tokens, as the engine does. docs/formats/kv-report.md gives the
// function in words.  Pure.  Cost: a few operations a token.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/prng.h"

namespace capstan {

inline constexpr std::uint64_t kTokenChainStart = 0x43617073'74616E31u;  // the name before the first block

inline std::uint64_t next_block_name(std::uint64_t before, std::span<const std::int32_t> tokens) {
  std::uint64_t name = before;
  for (const std::int32_t token : tokens) name = Prng::mix(name ^ static_cast<std::uint32_t>(token)) + 0x9E3779B97F4A7C15u;
  return Prng::mix(name);
}

inline std::vector<std::uint64_t> token_chain(std::span<const std::int32_t> tokens, std::size_t block_tokens) {
  std::vector<std::uint64_t> chain;
  std::uint64_t name = kTokenChainStart;
  for (std::size_t done = 0; done + block_tokens <= tokens.size(); done += block_tokens) {
    name = next_block_name(name, tokens.subspan(done, block_tokens));
    chain.push_back(name);
  }
  return chain;
}

}  // namespace capstan
