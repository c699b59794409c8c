// POST /v1/completions: plain continuation of a text or of token ids, without the harmony format.
#pragma once

#include "engine/server/answer.h"

namespace capstan::engine {

void answer_completion(const Answer::Context& context, const CompletionRequest& request);

}  // namespace capstan::engine
