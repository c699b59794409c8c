// POST /v1/chat/completions: the answer to a checked request.
#pragma once

#include <memory>

#include "engine/server/answer.h"

namespace capstan::engine {

// The prompt as the model's tokens.
std::vector<TokenId> render_chat(const ServedModel& model, const ChatRequest& request);
// Renders the prompt, checks the context and starts generating; answers through context.writer.
void answer_chat(const Answer::Context& context, const ChatRequest& request);

}  // namespace capstan::engine
