// Evaluates a model on samples that it is not trained on.
//
// "exact" is the share of samples whose every counting token is the model's most likely one, given the true
// tokens before it. That is the same as saying that greedy decoding from the sample's prompt reproduces them
// all. The ranks share the samples; every rank gets the same totals. Threads: the caller's.
#pragma once

#include <cstdint>
#include <span>

#include "trainer/data.h"
#include "trainer/gang.h"
#include "trainer/model/model.h"

namespace capstan::trainer {

struct Evaluation {
  double loss = 0;  // mean over counting tokens, nats
  double token_accuracy = 0;
  double exact = 0;
  std::uint64_t samples = 0;
};

// On samples 0 to `samples` - 1 of `source`.
Result<Evaluation> evaluate_model(Model& model, std::span<const float> parameters, const DataSource& source,
                                  std::uint64_t samples, Gang& gang);

}  // namespace capstan::trainer
