// The grammar of a chat's turn: harmony's frame around the bodies that a request binds. Private to this
// folder.
#pragma once

#include <expected>
#include <memory>

#include "engine/grammar/grammar.h"
#include "engine/server/openai_request.h"

namespace capstan::engine {

// The special tokens of harmony as symbols of grammars.
enum HarmonySymbol : Symbol {
  kStartSymbol = kFirstMark,
  kEndSymbol,
  kMessageSymbol,
  kChannelSymbol,
  kConstrainSymbol,
  kReturnSymbol,
  kCallSymbol,
};

// Behind "<|start|>assistant". `python`: the model has the built-in tool of that name.
std::expected<std::shared_ptr<const Grammar>, ApiError> chat_grammar(const ChatRequest& request, bool python);
// The bound text alone, then <|return|>.
std::expected<std::shared_ptr<const Grammar>, ApiError> text_grammar(const AnswerForm& form);

}  // namespace capstan::engine
