// Chooses the next token from one row of logits.
//
//   Sampler sampler({.temperature = 1.0f, .top_p = 0.95f, .seed = 7});
//   TokenId token = sampler.sample(logits.row(0));
//   sampler.accept(token);   // for the penalties
//
// In this order: logit_bias is added; tokens of the answer so far lose presence_penalty once and frequency_penalty per
// occurrence; a constraint's mask leaves what it allows; temperature 0 then takes the largest logit, ties to the lowest id.
// Otherwise softmax(logits / temperature), cut to tokens of at least min_p times the most likely one's probability, to the top_k
// most likely, then to the smallest set of most likely tokens whose mass reaches top_p. One random number a token, from
// base/prng.h: the sequence depends on the seed and the logits alone, not on the batch. Threads: one owner.  Cost: one pass over
// the vocabulary; with top_k or top_p, a heap over it; with bias, penalties or a mask, a copy of the row.
//
// Screened logits (engine/model/screened_head.h) give the token that the true ones would at temperature 0, and above it each
// token with its true probability, but other ones for the same seed.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "base/prng.h"
#include "base/result.h"
#include "engine/batching/token_constraint.h"
#include "engine/model/screened_head.h"
#include "engine/tensor/model_config.h"

namespace capstan::engine {

inline constexpr int kTopLogprobsMax = 20;
inline constexpr std::size_t kLogitBiasMax = 1024;

struct Sampling {
  float temperature = 1.0f;  // >= 0; 0: greedy
  float top_p = 1.0f;        // (0, 1]
  int top_k = 0;             // 0: all
  float min_p = 0;           // [0, 1)
  float presence_penalty = 0;   // -2..2
  float frequency_penalty = 0;  // -2..2
  std::vector<std::pair<TokenId, float>> logit_bias = {};  // -100..100 each
  std::uint64_t seed = 0;
};

// kInvalid with the field's name: "temperature", "top_p", "logit_bias" and so on.
Result<void> check_sampling(const Sampling& sampling, int vocab);

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0;  // natural logarithm of softmax(logits) at temperature 1
};

class Sampler {
 public:
  explicit Sampler(const Sampling& sampling);
  // -1 if the constraint allows nothing.
  TokenId sample(std::span<const float> logits, TokenConstraint* constraint = nullptr);
  TokenId sample(ScreenedLogits& logits, TokenConstraint* constraint = nullptr);  // if takes_screened()
  // top_k and top_p compare all tokens, so they need all true logits.
  static bool takes_screened(const Sampling& sampling) { return sampling.top_k == 0 && sampling.top_p == 1; }
  // The token is part of the answer.
  void accept(TokenId token);

 private:
  struct Candidate {
    float value;  // its weight, or its logit
    TokenId token;
  };
  void find_allowed(std::size_t vocab, TokenConstraint* constraint);
  std::span<const float> adjust(std::span<const float> logits);
  double uniform() { return static_cast<double>(prng_.next() >> 11) * 0x1p-53; }
  TokenId sample_cut(double uniform);
  Candidate refine_candidates(ScreenedLogits& logits);
  void find_largest(std::span<const float> logits, std::size_t count);
  TokenId sample_likely(ScreenedLogits& logits, const Candidate& best);

  Sampling sampling_;
  Prng prng_;
  std::map<TokenId, int> counts_;  // of the answer's tokens, if there are penalties
  std::vector<float> adjusted_;
  bool masked_ = false;
  std::vector<std::uint64_t> allowed_;  // valid if masked_
  std::vector<Candidate> candidates_;
  std::vector<TokenId> refined_;
  std::vector<float> weights_;
};

// The largest logit; ties go to the lowest id.
TokenId argmax(std::span<const float> logits);
float logprob_of(std::span<const float> logits, TokenId token);
// The `count` most likely tokens, best first, ties to the lowest id.
std::vector<TokenLogprob> top_logprobs(std::span<const float> logits, int count);

}  // namespace capstan::engine
