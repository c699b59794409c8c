// The special tokens that frame harmony messages, as ids of one tokenizer.
#pragma once

#include "base/result.h"
#include "harmony/tokenizer.h"

namespace capstan::harmony {

// What a token means to the format. kOther: any other special token (reserved, start of text).
enum class Mark { kNone, kStart, kEnd, kMessage, kChannel, kConstrain, kReturn, kCall, kEndOfText, kOther };

// "<|start|>"; empty for kNone and kOther.
std::string_view mark_text(Mark mark);

struct FormatTokens {
  // kUnsupported, naming the token, if the vocabulary lacks one that the format cannot do without
  // (<|constrain|> and <|endoftext|> may be absent).
  static Result<FormatTokens> of(const Tokenizer& tokenizer);

  TokenId start, end, message, channel, call, return_;
  TokenId constrain = -1, end_of_text = -1;  // -1: absent

  // kNone for ordinary tokens.
  Mark mark(const Tokenizer& tokenizer, TokenId token) const;
  // Generation ends at these: return, call, end of text. <|end|> only ends one message.
  bool stops_generation(TokenId token) const;
};

}  // namespace capstan::harmony
