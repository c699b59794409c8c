// Chooses the next token from one row of logits.
//
//   Sampler sampler({.temperature = 1.0f, .top_p = 0.95f, .seed = 7});
//   TokenId token = sampler.sample(logits.row(0));
//
// temperature 0 is greedy: the largest logit, ties to the lowest id. Otherwise softmax(logits / temperature),
// cut to the top_k most likely tokens, then to the smallest set of most likely tokens whose mass reaches
// top_p. One random number a token, from base/prng.h: the sequence depends on the seed and the logits alone,
// not on the batch. Threads: one owner.  Cost: one pass over the vocabulary; with top_k or top_p, a heap over
// it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/prng.h"
#include "base/result.h"
#include "engine/tensor/model_config.h"

namespace capstan::engine {

inline constexpr int kTopLogprobsMax = 20;

struct Sampling {
  float temperature = 1.0f;  // >= 0; 0: greedy
  float top_p = 1.0f;        // (0, 1]
  int top_k = 0;             // 0: all
  std::uint64_t seed = 0;
};

// kInvalid with field "temperature", "top_p" or "top_k".
Result<void> check_sampling(const Sampling& sampling);

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0;  // natural logarithm of softmax(logits) at temperature 1
};

class Sampler {
 public:
  explicit Sampler(const Sampling& sampling);
  TokenId sample(std::span<const float> logits);

 private:
  struct Candidate {
    float probability;
    TokenId token;
  };
  TokenId sample_cut(double uniform);

  Sampling sampling_;
  Prng prng_;
  std::vector<Candidate> candidates_;
};

// The largest logit; ties go to the lowest id.
TokenId argmax(std::span<const float> logits);
float logprob_of(std::span<const float> logits, TokenId token);
// The `count` most likely tokens, best first, ties to the lowest id.
std::vector<TokenLogprob> top_logprobs(std::span<const float> logits, int count);

}  // namespace capstan::engine
