// Two states: inside a header (also between messages, where nothing or a header may come) and inside a body.
//
// A header collects the text before and behind <|channel|>, with <|constrain|> as a one-byte mark, until
// <|message|> opens the body. When the text collected cannot be a header (it is no role, no "to=", and no
// channel mark came), it is taken as the body of a message without header at once, so that a model that
// forgets the format still streams.
#include "harmony/parser.h"

#include <array>

#include "base/assert.h"

namespace capstan::harmony {
namespace {

void emit_text(std::string_view text, std::vector<Event>& out) {
  if (text.empty()) return;
  if (!out.empty() && out.back().kind == Event::Kind::kText) {
    out.back().text += text;
  } else {
    out.push_back({.kind = Event::Kind::kText, .text = std::string(text)});
  }
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n\f\v") == std::string_view::npos;
}

// In a headerless body the constrain mark is only a mark; its byte must not reach the text.
std::string without_constrain(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c != kConstrainMark) out += c;
  }
  return out;
}

}  // namespace

void Parser::begin_header(bool implied_role) {
  state_ = State::kHeader;
  implied_role_ = implied_role;
  in_channel_ = false;
  role_part_.clear();
  channel_part_.clear();
}

void Parser::begin_body(MessageHeader header, std::vector<Event>& out) {
  header_ = std::move(header);
  out.push_back({.kind = Event::Kind::kMessageStart, .header = header_});
  state_ = State::kBody;
}

void Parser::end_body(MessageEnd end, std::vector<Event>& out) {
  out.push_back({.kind = Event::Kind::kMessageEnd, .end = end});
  begin_header(true);
}

bool Parser::header_is_empty() const { return !in_channel_ && is_blank(role_part_); }

// With an implied role only "to=…" or a role name may stand before the first mark (spaces before them are
// fine); behind a written <|start|> any one word is a role or a tool's name.
bool Parser::could_be_header() const {
  if (role_part_.size() + channel_part_.size() > kHeaderBytesMax) return false;
  if (in_channel_ || !implied_role_) return true;
  const std::size_t begin = role_part_.find_first_not_of(" \t\r\n\f\v");
  if (begin == std::string::npos) return true;
  const std::string_view text = std::string_view(role_part_).substr(begin);
  if (text.front() == kConstrainMark) return true;
  static constexpr std::array<std::string_view, 6> kStarts = {"to=",    "assistant", "user",
                                                              "system", "developer", "tool"};
  for (const std::string_view start : kStarts) {
    if (text.size() < start.size() ? start.starts_with(text) : text.starts_with(start)) {
      if (start == "to=" || text.size() <= start.size()) return true;
      // Behind a role name: nothing but a recipient. "assistants are …" is text.
      const std::string_view behind = text.substr(start.size());
      const std::size_t word = behind.find_first_not_of(" \t\r\n\f\v");
      if (word == std::string_view::npos || behind[word] == kConstrainMark) return true;
      const std::string_view next = behind.substr(word);
      if (word > 0 && (next.size() < 3 ? std::string_view("to=").starts_with(next) : next.starts_with("to=")))
        return true;
    }
  }
  return false;
}

void Parser::header_as_message(MessageEnd end, std::vector<Event>& out) {
  // "<|channel|>final The answer<|end|>": <|message|> is missing; what no field takes is the body.
  std::string& last_part = in_channel_ ? channel_part_ : role_part_;
  std::size_t body_begin = fields_end(last_part, in_channel_ || !implied_role_);
  // Behind an implied role, text without a mark and without "to=" is all text, also if it is a role's name.
  if (!in_channel_ && implied_role_ && role_part_.find("to=") == std::string::npos) body_begin = 0;
  const std::string body = without_constrain(std::string_view(last_part).substr(body_begin));
  last_part.resize(body_begin);
  const bool told = end != MessageEnd::kImplied && end != MessageEnd::kTruncated && !header_is_empty();
  if (!is_blank(body) || told) {
    begin_body(parse_message_header(role_part_, channel_part_, implied_role_), out);
    emit_text(body, out);
    end_body(end, out);
  }
  begin_header(true);
}

void Parser::header_text(std::string_view text, std::vector<Event>& out) {
  // Byte by byte, so that how the input is cut cannot change the decision.
  for (std::size_t i = 0; i < text.size(); ++i) {
    // A model may write the byte that stands for the mark; in a header it is as good as a space.
    (in_channel_ ? channel_part_ : role_part_) += text[i] == kConstrainMark ? ' ' : text[i];
    if (could_be_header()) continue;
    std::string body = in_channel_ ? role_part_ + " " + channel_part_ : role_part_;
    begin_body({.role = "assistant"}, out);
    emit_text(without_constrain(body), out);
    emit_text(text.substr(i + 1), out);
    return;
  }
}

void Parser::text(std::string_view text, std::vector<Event>& out) {
  if (state_ == State::kBody) {
    emit_text(text, out);
  } else {
    header_text(text, out);
  }
}

void Parser::header_mark(Mark mark, std::vector<Event>& out) {
  switch (mark) {
    case Mark::kStart:
      // "<|start|><|start|>", or a header that broke off.
      header_as_message(MessageEnd::kImplied, out);
      begin_header(false);
      return;
    case Mark::kChannel:
      // A second channel mark: the last channel counts, but a recipient given before it stays. If text stood
      // behind the first, that was a message without <|message|>.
      if (in_channel_ && fields_end(channel_part_, true) < channel_part_.size()) {
        header_as_message(MessageEnd::kImplied, out);
      } else if (in_channel_) {
        const MessageHeader before = parse_message_header({}, channel_part_, true);
        if (!before.recipient.empty()) role_part_ += " to=" + before.recipient;
      }
      in_channel_ = true;
      channel_part_.clear();
      return;
    case Mark::kConstrain:
      (in_channel_ ? channel_part_ : role_part_) += kConstrainMark;
      return;
    case Mark::kMessage:
      begin_body(parse_message_header(role_part_, channel_part_, implied_role_), out);
      return;
    case Mark::kEnd:
      header_as_message(MessageEnd::kEnd, out);
      return;
    case Mark::kCall:
      header_as_message(MessageEnd::kCall, out);
      return;
    case Mark::kReturn:
    case Mark::kEndOfText:
      header_as_message(MessageEnd::kReturn, out);
      return;
    case Mark::kNone:
    case Mark::kOther:
      return;
  }
}

void Parser::mark(Mark mark, std::vector<Event>& out) {
  if (state_ == State::kHeader) {
    header_mark(mark, out);
    return;
  }
  switch (mark) {
    case Mark::kEnd:
      end_body(MessageEnd::kEnd, out);
      return;
    case Mark::kCall:
      end_body(MessageEnd::kCall, out);
      return;
    case Mark::kReturn:
    case Mark::kEndOfText:
      end_body(MessageEnd::kReturn, out);
      return;
    case Mark::kStart:
      end_body(MessageEnd::kImplied, out);
      begin_header(false);
      return;
    case Mark::kChannel:
      end_body(MessageEnd::kImplied, out);
      in_channel_ = true;
      return;
    case Mark::kMessage:    // doubled: the body goes on
    case Mark::kConstrain:  // stray
    case Mark::kNone:
    case Mark::kOther:
      return;
  }
}

void Parser::finish(std::vector<Event>& out) {
  if (state_ == State::kBody) {
    end_body(MessageEnd::kTruncated, out);
  } else {
    header_as_message(MessageEnd::kTruncated, out);
  }
}

std::vector<Event> TokenReader::push(TokenId token) {
  std::vector<Event> out;
  const Mark mark = format_.mark(*tokenizer_, token);
  if (mark == Mark::kNone) {
    parser_.text(decoder_.push(token), out);
  } else {
    parser_.text(decoder_.finish(), out);
    parser_.mark(mark, out);
  }
  return out;
}

std::vector<Event> TokenReader::finish() {
  std::vector<Event> out;
  parser_.text(decoder_.finish(), out);
  parser_.finish(out);
  return out;
}

namespace {

constexpr std::array kMarks = {Mark::kStart,     Mark::kEnd,    Mark::kMessage, Mark::kChannel,
                               Mark::kConstrain, Mark::kReturn, Mark::kCall,    Mark::kEndOfText};

}  // namespace

std::vector<Event> TextReader::push(std::string_view text) {
  std::vector<Event> out;
  held_ += text;
  std::string_view rest = held_;
  while (!rest.empty()) {
    const std::size_t begin = rest.find("<");
    parser_.text(rest.substr(0, begin), out);
    if (begin == std::string_view::npos) {
      rest = {};
      break;
    }
    rest.remove_prefix(begin);
    Mark found = Mark::kNone;
    bool may_come = false;
    for (const Mark mark : kMarks) {
      if (rest.starts_with(mark_text(mark))) found = mark;
      may_come = may_come || mark_text(mark).starts_with(rest);
    }
    if (found != Mark::kNone) {
      parser_.mark(found, out);
      rest.remove_prefix(mark_text(found).size());
    } else if (may_come) {
      break;
    } else {
      parser_.text(rest.substr(0, 1), out);
      rest.remove_prefix(1);
    }
  }
  held_ = std::string(rest);
  return out;
}

std::vector<Event> TextReader::finish() {
  std::vector<Event> out;
  parser_.text(held_, out);
  held_.clear();
  parser_.finish(out);
  return out;
}

std::vector<ParsedMessage> collect_messages(const std::vector<Event>& events) {
  std::vector<ParsedMessage> messages;
  for (const Event& event : events) {
    switch (event.kind) {
      case Event::Kind::kMessageStart:
        messages.push_back({event.header, {}, MessageEnd::kTruncated});
        break;
      case Event::Kind::kText:
        messages.back().text += event.text;
        break;
      case Event::Kind::kMessageEnd:
        messages.back().end = event.end;
        break;
    }
  }
  return messages;
}

}  // namespace capstan::harmony
