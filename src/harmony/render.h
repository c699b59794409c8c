// Conversation -> tokens, as a harmony model was trained to read it.
//
//   CAPSTAN_TRY(auto format, FormatTokens::of(tokenizer));
//   std::vector<TokenId> prompt = render_prompt(tokenizer, format, conversation);   // ends in
//   <|start|>assistant
//
// All text is encoded without specials, so nothing that a user or a tool writes can become a control token.
// History: a finished turn's analysis is left out (every message on the analysis channel before the last
// final message that a user's message follows); the analysis of a turn that still waits for tool results
// stays. Threads: pure.  Cost: that of encoding.  Source: openai/harmony, docs/format.md and its test data.
#pragma once

#include <vector>

#include "harmony/conversation.h"
#include "harmony/format_tokens.h"

namespace capstan::harmony {

// The system message's text; empty: the model gets none.
std::string system_text(const Preamble& preamble);
// The developer message's text (instructions, functions, response formats); empty: none.
std::string developer_text(const Preamble& preamble);

// One message with its frame. An assistant's message with a recipient ends in <|call|>, any other in <|end|>.
void render_message(const Tokenizer& tokenizer, const FormatTokens& format, const Message& message,
                    std::vector<TokenId>& out);

// Everything, and then "<|start|>assistant" for the model to go on.
std::vector<TokenId> render_prompt(const Tokenizer& tokenizer, const FormatTokens& format,
                                   const Conversation& conversation);

// Everything, nothing behind it. A last message of the assistant on the final channel ends in <|return|>:
// what a model learns to write.
std::vector<TokenId> render_for_training(const Tokenizer& tokenizer, const FormatTokens& format,
                                         const Conversation& conversation);

// Of `messages`, those that the next prompt shows (see History above).
std::vector<bool> shown_messages(const std::vector<Message>& messages);

}  // namespace capstan::harmony
