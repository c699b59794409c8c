// Weights are exp((logit - largest) / temperature); what is not allowed has the logit -infinity and so the weight 0.
// Without a cut, one pass finds where the random number falls. With a cut, a heap gives the most likely tokens one by one
// until top_k or top_p is reached.
// With screened logits whatever may be the largest becomes true first, so that at temperature 0 nothing is left to find.
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

constexpr std::size_t kFirstRefined = 16;  // of screened logits; their panels' 256 tell how far near ones are off

std::size_t first_of(int panel) { return static_cast<std::size_t>(panel) * kPanelRows; }
std::size_t end_of(int panel, std::span<const float> logits) { return std::min(first_of(panel + 1), logits.size()); }

// Whether one of a panel's logits passes a test; whole panels without branches, many at once.
template <class Test>
bool any_of_panel(std::size_t first, std::size_t end, const Test& test) {
  bool any = false;
  if (end - first == kPanelRows) {
    for (std::size_t i = first; i < first + kPanelRows; ++i) any |= test(i);
  } else {
    for (std::size_t i = first; i < end; ++i) any |= test(i);
  }
  return any;
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
  std::size_t best = 0;
  float most = logits[0];
  for (int panel = 0; first_of(panel) < logits.size(); ++panel) {
    const std::size_t first = first_of(panel), end = end_of(panel, logits);
    if (!any_of_panel(first, end, [&](std::size_t i) { return logits[i] > most; })) continue;
    for (std::size_t i = first; i < end; ++i) {
      if (logits[i] > most) best = i, most = logits[i];
    }
  }
  return static_cast<TokenId>(best);
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

void Sampler::find_allowed(std::size_t vocab, TokenConstraint* constraint) {
  masked_ = false;
  if (constraint == nullptr) return;
  allowed_.assign((vocab + 63) / 64, ~std::uint64_t{0});
  if (vocab % 64 != 0) allowed_.back() >>= 64 - vocab % 64;
  masked_ = constraint->mask(allowed_);
}

// The row with bias, penalties and the mask; the row itself where nothing changes it; empty if nothing is allowed.
std::span<const float> Sampler::adjust(std::span<const float> logits) {
  if (!masked_ && sampling_.logit_bias.empty() && counts_.empty()) return logits;
  adjusted_.assign(logits.begin(), logits.end());
  for (const auto& [token, bias] : sampling_.logit_bias) adjusted_[token] += bias;
  for (const auto& [token, count] : counts_)
    adjusted_[token] -= sampling_.presence_penalty + sampling_.frequency_penalty * static_cast<float>(count);
  if (!masked_) return adjusted_;
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
  find_allowed(row.size(), constraint);
  const std::span<const float> logits = adjust(row);
  if (logits.empty()) return -1;
  if (sampling_.temperature == 0) return argmax(logits);
  const double drawn = uniform();
  const float max = *std::max_element(logits.begin(), logits.end());
  candidates_.clear();
  double total = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const float weight = std::exp((logits[i] - max) / sampling_.temperature);
    if (weight == 0 || weight < sampling_.min_p) continue;
    candidates_.push_back({weight, static_cast<TokenId>(i)});
    total += weight;
  }
  if (sampling_.top_k > 0 || sampling_.top_p < 1) return sample_cut(drawn);
  double left = drawn * total;
  for (const Candidate& candidate : candidates_) {
    left -= candidate.value;
    if (left < 0) return candidate.token;
  }
  return argmax(logits);  // rounding left a crumb
}

TokenId Sampler::sample_cut(double uniform) {
  const auto less_likely = [](const Candidate& a, const Candidate& b) {
    return a.value != b.value ? a.value < b.value : a.token > b.token;
  };
  std::size_t kept_max = candidates_.size();
  double total = 0;
  if (sampling_.top_k > 0 && static_cast<std::size_t>(sampling_.top_k) < kept_max) {
    kept_max = sampling_.top_k;
    std::nth_element(candidates_.begin(), candidates_.begin() + (kept_max - 1), candidates_.end(),
                     [&](const Candidate& a, const Candidate& b) { return less_likely(b, a); });
    candidates_.resize(kept_max);
  }
  for (const Candidate& candidate : candidates_) total += candidate.value;
  // Popped candidates gather at the back, most likely last.
  std::make_heap(candidates_.begin(), candidates_.end(), less_likely);
  auto heap_end = candidates_.end();
  double mass = 0;
  while (heap_end != candidates_.begin() &&
         (heap_end == candidates_.end() || mass < sampling_.top_p * total)) {
    std::pop_heap(candidates_.begin(), heap_end, less_likely);
    mass += (--heap_end)->value;
  }
  double left = uniform * mass;
  for (auto at = candidates_.end(); at != heap_end;) {
    left -= (--at)->value;
    if (left < 0) return at->token;
  }
  return candidates_.back().token;
}

TokenId Sampler::sample(ScreenedLogits& row, TokenConstraint* constraint) {
  CAPSTAN_ASSERT(takes_screened(sampling_));
  find_allowed(row.values().size(), constraint);
  const std::span<const float> near = adjust(row.values());
  if (near.empty()) return -1;
  find_largest(near, kFirstRefined);
  const Candidate best = refine_candidates(row);
  return sampling_.temperature == 0 ? best.token : sample_likely(row, best);
}

// Makes true refined_, and then whatever might still be the largest logit, which it returns (ties to the lowest id); all others
// are surely smaller then.
Sampler::Candidate Sampler::refine_candidates(ScreenedLogits& row) {
  for (;;) {
    row.refine(refined_);
    const std::span<const float> logits = adjust(row.values());
    Candidate best{-std::numeric_limits<float>::infinity(), 0};
    for (const int panel : row.true_panels()) {
      for (std::size_t i = first_of(panel); i < end_of(panel, logits); ++i) {
        const auto token = static_cast<TokenId>(i);
        if (logits[i] > best.value || (logits[i] == best.value && token < best.token)) best = {logits[i], token};
      }
    }
    refined_.clear();
    const float* doubts = row.doubts().data();
    const float deviation = row.deviation();
    for (int panel = 0; first_of(panel) < logits.size(); ++panel) {
      if (row.is_true(panel)) continue;
      const std::size_t first = first_of(panel);
      const float* values = logits.data();
      const auto may_win = [&](std::size_t i) { return values[i] + deviation * doubts[i] >= best.value; };
      if (any_of_panel(first, end_of(panel, logits), may_win)) refined_.push_back(static_cast<TokenId>(first));
    }
    if (refined_.empty()) return best;
  }
}

// Into refined_. The first of many equal ones may be missing; they are then found again as candidates.
void Sampler::find_largest(std::span<const float> logits, std::size_t count) {
  const auto larger = [](const Candidate& a, const Candidate& b) { return a.value > b.value; };
  candidates_.clear();  // a heap with the smallest in front
  float least = -std::numeric_limits<float>::infinity();  // of candidates_ once they are full
  for (int panel = 0; first_of(panel) < logits.size(); ++panel) {
    const std::size_t first = first_of(panel), end = end_of(panel, logits);
    if (candidates_.size() == count && !any_of_panel(first, end, [&](std::size_t i) { return logits[i] > least; })) continue;
    for (std::size_t i = first; i < end; ++i) {
      if (candidates_.size() == count) {
        if (logits[i] <= least) continue;
        std::ranges::pop_heap(candidates_, larger);
        candidates_.pop_back();
      }
      candidates_.push_back({logits[i], static_cast<TokenId>(i)});
      std::ranges::push_heap(candidates_, larger);
      least = candidates_.front().value;
    }
  }
  refined_.clear();
  for (const Candidate& candidate : candidates_) refined_.push_back(candidate.token);
}

// Draws among weights of which near ones are as large as they could be; what falls on such a one makes it true, and stands with
// the part that is left of it. So each token is drawn with its true probability.
TokenId Sampler::sample_likely(ScreenedLogits& row, const Candidate& best) {
  std::span<const float> logits = adjust(row.values());
  weights_.resize(logits.size());
  const auto weigh = [&](int panel) {
    const float deviation = row.is_true(panel) ? 0 : row.deviation();
    for (std::size_t i = first_of(panel); i < end_of(panel, logits); ++i) {
      const float weight = std::exp((logits[i] + deviation * row.doubts()[i] - best.value) / sampling_.temperature);
      weights_[i] = weight < sampling_.min_p ? 0 : weight;
    }
  };
  for (int panel = 0; first_of(panel) < logits.size(); ++panel) weigh(panel);
  for (;;) {
    double left = uniform() * std::accumulate(weights_.begin(), weights_.end(), 0.0);
    std::size_t at = 0;
    while (at < weights_.size() && (left -= weights_[at]) >= 0) ++at;
    if (at == weights_.size()) return best.token;  // rounding left a crumb
    const auto token = static_cast<TokenId>(at);
    const int panel = token / kPanelRows;
    if (row.is_true(panel)) return token;
    const float most = weights_[at];
    row.refine(std::span(&token, 1));
    logits = adjust(row.values());
    weigh(panel);
    if (uniform() * most < weights_[at]) return token;
  }
}

}  // namespace capstan::engine
