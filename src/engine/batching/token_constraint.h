// TokenConstraint: what a structured answer allows next. One per request, called by the Batch.
//
//   class OnlyDigits : public TokenConstraint { ... };
//   batch.submit({.prompt = ..., .constraint = std::make_shared<OnlyDigits>(...)});
//
// For every token of the answer, in order: `forced` is asked; if it names a token, that one comes next without sampling (and
// without a random number), else `mask` is asked and a token drawn among the allowed ones. Then `accept` is told the token. The
// mask applies before temperature, top_k, top_p and min_p, after logit_bias and penalties; log-probabilities stay those of the
// model. Cost: mask is on the path of every token, so it should cost less than a pass over the vocabulary; answer false wherever
// nothing is restricted. Threads: all calls come from the thread that steps. Failure: a mask without any bit ends the request as
// kFailed.
#pragma once

#include <cstdint>
#include <span>

#include "engine/tensor/model_config.h"

namespace capstan::engine {

class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;

  // Clears the bits of tokens that may not come next: token t is bit t % 64 of allowed[t / 64]. All bits of the vocabulary are
  // set before the call. False: everything may come; `allowed` is not looked at then.
  virtual bool mask(std::span<std::uint64_t> allowed) = 0;
  // `token` is the answer's next one: the forced one, or one that the last mask allowed.
  virtual void accept(TokenId token) = 0;
  // The only token that can come next, or -1 if there are several or it is not known cheaply.
  virtual TokenId forced() { return -1; }
};

}  // namespace capstan::engine
