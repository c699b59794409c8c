// Looks the names up once; afterwards comparisons of integers.
#include "harmony/format_tokens.h"

namespace capstan::harmony {

std::string_view mark_text(Mark mark) {
  switch (mark) {
    case Mark::kStart:
      return "<|start|>";
    case Mark::kEnd:
      return "<|end|>";
    case Mark::kMessage:
      return "<|message|>";
    case Mark::kChannel:
      return "<|channel|>";
    case Mark::kConstrain:
      return "<|constrain|>";
    case Mark::kReturn:
      return "<|return|>";
    case Mark::kCall:
      return "<|call|>";
    case Mark::kEndOfText:
      return "<|endoftext|>";
    case Mark::kNone:
    case Mark::kOther:
      break;
  }
  return {};
}

Result<FormatTokens> FormatTokens::of(const Tokenizer& tokenizer) {
  FormatTokens tokens{};
  const auto need = [&](Mark mark, TokenId& id) -> Result<void> {
    const auto found = tokenizer.special(mark_text(mark));
    if (!found)
      return fail(Code::kUnsupported, "the tokenizer has no {}, so the model does not speak harmony",
                  mark_text(mark));
    id = *found;
    return {};
  };
  CAPSTAN_CHECK(need(Mark::kStart, tokens.start));
  CAPSTAN_CHECK(need(Mark::kEnd, tokens.end));
  CAPSTAN_CHECK(need(Mark::kMessage, tokens.message));
  CAPSTAN_CHECK(need(Mark::kChannel, tokens.channel));
  CAPSTAN_CHECK(need(Mark::kCall, tokens.call));
  CAPSTAN_CHECK(need(Mark::kReturn, tokens.return_));
  tokens.constrain = tokenizer.special(mark_text(Mark::kConstrain)).value_or(-1);
  tokens.end_of_text = tokenizer.special(mark_text(Mark::kEndOfText)).value_or(-1);
  return tokens;
}

Mark FormatTokens::mark(const Tokenizer& tokenizer, TokenId token) const {
  if (!tokenizer.is_special(token)) return Mark::kNone;
  if (token == start) return Mark::kStart;
  if (token == end) return Mark::kEnd;
  if (token == message) return Mark::kMessage;
  if (token == channel) return Mark::kChannel;
  if (token == constrain) return Mark::kConstrain;
  if (token == return_) return Mark::kReturn;
  if (token == call) return Mark::kCall;
  return token == end_of_text ? Mark::kEndOfText : Mark::kOther;
}

bool FormatTokens::stops_generation(TokenId token) const {
  return token == return_ || token == call || (token == end_of_text && token >= 0);
}

}  // namespace capstan::harmony
