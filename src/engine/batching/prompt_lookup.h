// PromptLookup: guesses a sequence's next tokens from its own past: what followed the last three tokens when they stood there
// before (prompt lookup decoding, Saxena 2023). Costs no model; pays where answers repeat their prompt: code, quotes, JSON.
//
//   PromptLookup lookup(4);
//   std::span<const TokenId> draft = lookup.propose(tokens);     // empty: no guess
//   lookup.observe(draft.size(), accepted);
//
// Adaptive: full success doubles the next guess up to `length_max`; a guess without any success is followed by a pause that
// doubles each time, up to 128 tokens.
// Cost: amortised O(1) a token; about 40 bytes a token. Threads: one owner.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>

#include "engine/tensor/model_config.h"

namespace capstan::engine {

class PromptLookup {
 public:
  explicit PromptLookup(int length_max) : length_max_(length_max) {}

  // A part of `tokens`, which must be what it was at the last call, and more.
  std::span<const TokenId> propose(std::span<const TokenId> tokens);
  void observe(std::size_t proposed, std::size_t accepted);

 private:
  int length_max_;
  int length_ = 2;
  int failures_ = 0;
  std::size_t resume_at_ = 0;  // no guesses before the sequence has so many tokens
  std::size_t tokens_ = 0;     // at the last call
  std::size_t indexed_ = 0;
  std::unordered_map<std::uint64_t, std::uint32_t> after_;  // of three tokens: the position behind them, the latest
};

}  // namespace capstan::engine
