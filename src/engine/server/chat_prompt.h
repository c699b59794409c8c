// OpenAI's messages -> a harmony conversation.
//
// system and developer messages become the developer message's instructions (joined by a blank line, wherever
// they stand). An assistant's reasoning becomes an analysis message, its content a final message, or a
// commentary preamble if tool calls follow; a tool's result is addressed back to the assistant. A function
// named python is the model's built-in tool where the profile has it, and then its definition is not shown to
// the model. Threads: pure.
#pragma once

#include <string>

#include "engine/server/model_profile.h"
#include "engine/server/openai_request.h"
#include "harmony/conversation.h"

namespace capstan::engine {

// `date` is "YYYY-MM-DD", for the system message.
harmony::Conversation chat_conversation(const ChatRequest& request, const ModelProfile& profile,
                                        std::string date);

}  // namespace capstan::engine
