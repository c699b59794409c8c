#include "engine/batching/prompt_lookup.h"

#include <algorithm>

#include "base/prng.h"

namespace capstan::engine {
namespace {

constexpr std::size_t kGram = 3;
constexpr int kPauseShiftMax = 7;

// Equal keys of unequal grams only make a bad guess.
std::uint64_t key_of(std::span<const TokenId> gram) {
  std::uint64_t key = 0;
  for (const TokenId token : gram) key = Prng::mix(key + static_cast<std::uint32_t>(token) + 1);
  return key;
}

}  // namespace

std::span<const TokenId> PromptLookup::propose(std::span<const TokenId> tokens) {
  tokens_ = tokens.size();
  if (length_max_ == 0 || tokens_ < resume_at_ || tokens_ <= kGram) return {};
  for (indexed_ = std::max(indexed_, kGram); indexed_ < tokens_; ++indexed_)
    after_[key_of(tokens.subspan(indexed_ - kGram, kGram))] = static_cast<std::uint32_t>(indexed_);
  const auto found = after_.find(key_of(tokens.last(kGram)));
  if (found == after_.end()) return {};
  const std::size_t count = std::min<std::size_t>(length_, tokens_ - found->second);
  return tokens.subspan(found->second, count);
}

void PromptLookup::observe(std::size_t proposed, std::size_t accepted) {
  if (proposed == 0) return;
  if (accepted == 0) {
    failures_ = std::min(failures_ + 1, kPauseShiftMax);
    resume_at_ = tokens_ + (std::size_t{1} << failures_);
    length_ = 1;
  } else {
    failures_ = 0;
    length_ = accepted == proposed ? std::min(length_max_, 2 * length_) : std::max(1, static_cast<int>(accepted));
  }
}

}  // namespace capstan::engine
