// Weights are exp((logit - largest) / temperature); what is not allowed has the logit -infinity and so the weight 0.
// Without a cut, one pass finds where the random number falls. With a cut, a heap gives the most likely tokens one by one
// until top_k or top_p is reached.
#include "engine/batching/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/assert.h"

namespace capstan::engine {
namespace {

double log_sum_exp(std::span<const float> logits) {
  const float max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits) sum += std::exp(logit - max);
  return max + std::log(sum);
}

std::unexpected<Error> bad_field(std::string field, std::string message) {
  return std::unexpected(Error{Code::kInvalid, std::move(message), std::move(field)});
}

}  // namespace

Result<void> check_sampling(const Sampling& sampling, int vocab) {
  if (!(sampling.temperature >= 0 && sampling.temperature <= 100)) {
    return bad_field("temperature",
                     fmt::format("temperature must be in 0..100, not {}", sampling.temperature));
  }
  if (!(sampling.top_p > 0 && sampling.top_p <= 1)) {
    return bad_field("top_p", fmt::format("top_p must be above 0 and at most 1, not {}", sampling.top_p));
  }
  if (sampling.top_k < 0)
    return bad_field("top_k", fmt::format("top_k must be >= 0, not {}", sampling.top_k));
  if (!(sampling.min_p >= 0 && sampling.min_p < 1))
    return bad_field("min_p", fmt::format("min_p must be at least 0 and below 1, not {}", sampling.min_p));
  if (!(std::fabs(sampling.presence_penalty) <= 2)) {
    return bad_field("presence_penalty",
                     fmt::format("presence_penalty must be in -2..2, not {}", sampling.presence_penalty));
  }
  if (!(std::fabs(sampling.frequency_penalty) <= 2)) {
    return bad_field("frequency_penalty",
                     fmt::format("frequency_penalty must be in -2..2, not {}", sampling.frequency_penalty));
  }
  if (sampling.logit_bias.size() > kLogitBiasMax) {
    return bad_field("logit_bias", fmt::format("logit_bias has {} tokens; at most {} are allowed",
                                               sampling.logit_bias.size(), kLogitBiasMax));
  }
  for (const auto& [token, bias] : sampling.logit_bias) {
    if (token < 0 || token >= vocab)
      return bad_field("logit_bias", fmt::format("token {} is outside the vocabulary of {}", token, vocab));
    if (!(std::fabs(bias) <= 100)) {
      return bad_field("logit_bias",
                       fmt::format("the bias of token {} must be in -100..100, not {}", token, bias));
    }
  }
  return {};
}

TokenId argmax(std::span<const float> logits) {
  CAPSTAN_ASSERT(!logits.empty());
  return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

float logprob_of(std::span<const float> logits, TokenId token) {
  return static_cast<float>(logits[token] - log_sum_exp(logits));
}

std::vector<TokenLogprob> top_logprobs(std::span<const float> logits, int count) {
  std::vector<TokenId> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const std::size_t kept = std::min(ids.size(), static_cast<std::size_t>(std::max(count, 0)));
  std::partial_sort(ids.begin(), ids.begin() + kept, ids.end(), [&](TokenId a, TokenId b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  });
  const double total = log_sum_exp(logits);
  std::vector<TokenLogprob> result;
  for (std::size_t i = 0; i < kept; ++i)
    result.push_back({ids[i], static_cast<float>(logits[ids[i]] - total)});
  return result;
}

Sampler::Sampler(const Sampling& sampling) : sampling_(sampling), prng_(sampling.seed) {}

void Sampler::accept(TokenId token) {
  if (sampling_.presence_penalty != 0 || sampling_.frequency_penalty != 0) ++counts_[token];
}

// The row with bias, penalties and the mask; the row itself where nothing changes it; empty if nothing is allowed.
std::span<const float> Sampler::adjust(std::span<const float> logits, TokenConstraint* constraint) {
  bool masked = false;
  if (constraint != nullptr) {
    allowed_.assign((logits.size() + 63) / 64, ~std::uint64_t{0});
    if (logits.size() % 64 != 0) allowed_.back() >>= 64 - logits.size() % 64;
    masked = constraint->mask(allowed_);
  }
  if (!masked && sampling_.logit_bias.empty() && counts_.empty()) return logits;
  adjusted_.assign(logits.begin(), logits.end());
  for (const auto& [token, bias] : sampling_.logit_bias) adjusted_[token] += bias;
  for (const auto& [token, count] : counts_)
    adjusted_[token] -= sampling_.presence_penalty + sampling_.frequency_penalty * static_cast<float>(count);
  if (!masked) return adjusted_;
  bool any = false;
  for (std::size_t word = 0; word < allowed_.size(); ++word) {
    const std::uint64_t bits = allowed_[word];
    any |= bits != 0;
    if (bits == ~std::uint64_t{0}) continue;
    const std::size_t first = word * 64, end = std::min(first + 64, adjusted_.size());
    for (std::size_t t = first; t < end; ++t) {
      if ((bits >> (t - first) & 1) == 0) adjusted_[t] = -std::numeric_limits<float>::infinity();
    }
  }
  return any ? std::span<const float>(adjusted_) : std::span<const float>();
}

TokenId Sampler::sample(std::span<const float> row, TokenConstraint* constraint) {
  const std::span<const float> logits = adjust(row, constraint);
  if (logits.empty()) return -1;
  if (sampling_.temperature == 0) return argmax(logits);
  const double uniform = static_cast<double>(prng_.next() >> 11) * 0x1p-53;
  const float max = *std::max_element(logits.begin(), logits.end());
  candidates_.clear();
  double total = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const float weight = std::exp((logits[i] - max) / sampling_.temperature);
    if (weight == 0 || weight < sampling_.min_p) continue;
    candidates_.push_back({weight, static_cast<TokenId>(i)});
    total += weight;
  }
  if (sampling_.top_k > 0 || sampling_.top_p < 1) return sample_cut(uniform);
  double left = uniform * total;
  for (const Candidate& candidate : candidates_) {
    left -= candidate.probability;
    if (left < 0) return candidate.token;
  }
  return argmax(logits);  // rounding left a crumb
}

TokenId Sampler::sample_cut(double uniform) {
  const auto less_likely = [](const Candidate& a, const Candidate& b) {
    return a.probability != b.probability ? a.probability < b.probability : a.token > b.token;
  };
  std::size_t kept_max = candidates_.size();
  double total = 0;
  if (sampling_.top_k > 0 && static_cast<std::size_t>(sampling_.top_k) < kept_max) {
    kept_max = sampling_.top_k;
    std::nth_element(candidates_.begin(), candidates_.begin() + (kept_max - 1), candidates_.end(),
                     [&](const Candidate& a, const Candidate& b) { return less_likely(b, a); });
    candidates_.resize(kept_max);
  }
  for (const Candidate& candidate : candidates_) total += candidate.probability;
  // Popped candidates gather at the back, most likely last.
  std::make_heap(candidates_.begin(), candidates_.end(), less_likely);
  auto heap_end = candidates_.end();
  double mass = 0;
  while (heap_end != candidates_.begin() &&
         (heap_end == candidates_.end() || mass < sampling_.top_p * total)) {
    std::pop_heap(candidates_.begin(), heap_end, less_likely);
    mass += (--heap_end)->probability;
  }
  double left = uniform * mass;
  for (auto at = candidates_.end(); at != heap_end;) {
    left -= (--at)->probability;
    if (left < 0) return at->token;
  }
  return candidates_.back().token;
}

}  // namespace capstan::engine
