// Reads what a harmony model writes, token by token, and tells it as events. It never fails.
//
//   Parser parser;                                  // the prompt ended in <|start|>assistant
//   for (TokenId token : generated) {
//     for (Event& event : reader.push(token)) …     // TokenReader: tokens -> marks and text -> Parser
//   }
//   for (Event& event : reader.finish()) …          // a stream that broke off still ends its message
//
// Events come in order: kMessageStart, any number of kText, kMessageEnd; then the next message. Nothing that
// a model can emit is an error: missing or doubled marks, recipients in either place, unknown channels, text
// without any frame (a message without a channel, to be shown as the answer), marks inside a body, a stream
// that ends anywhere. No text of a body is ever lost, and how the input is cut changes nothing but where
// kText events are cut. Bounds: a header longer than kHeaderBytesMax is taken for text. Memory is O(header).
// Threads: one owner.  Cost: linear.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "harmony/format_tokens.h"
#include "harmony/message_header.h"
#include "harmony/tokenizer.h"

namespace capstan::harmony {

inline constexpr std::size_t kHeaderBytesMax = 512;

enum class MessageEnd {
  kEnd,        // <|end|>
  kCall,       // <|call|>: the recipient shall act, the turn is over
  kReturn,     // <|return|> or end of text: the turn is over
  kImplied,    // the next message began without an end of this one
  kTruncated,  // the stream ended first
};

struct Event {
  enum class Kind { kMessageStart, kText, kMessageEnd };
  Kind kind;
  MessageHeader header = {};          // of kMessageStart
  std::string text = {};              // of kText
  MessageEnd end = MessageEnd::kEnd;  // of kMessageEnd
};

class Parser {
 public:
  enum class Begin { kBehindAssistant, kNothing };
  // kBehindAssistant: "<|start|>assistant" was the end of the prompt. kNothing: the stream holds whole
  // messages. Both take both; the difference is only what a first word such as "functions.f" means.
  explicit Parser(Begin begin = Begin::kBehindAssistant) : implied_role_(begin == Begin::kBehindAssistant) {}

  void text(std::string_view text, std::vector<Event>& out);
  void mark(Mark mark, std::vector<Event>& out);
  void finish(std::vector<Event>& out);

  // Of the message that is open now; nullptr between messages and inside a header.
  const MessageHeader* open_message() const { return state_ == State::kBody ? &header_ : nullptr; }

 private:
  enum class State { kHeader, kBody };

  void header_mark(Mark mark, std::vector<Event>& out);
  void header_text(std::string_view text, std::vector<Event>& out);
  void begin_header(bool implied_role);
  void begin_body(MessageHeader header, std::vector<Event>& out);
  void end_body(MessageEnd end, std::vector<Event>& out);
  // The header never became one: what it holds is told as a message.
  void header_as_message(MessageEnd end, std::vector<Event>& out);
  bool header_is_empty() const;
  bool could_be_header() const;

  State state_ = State::kHeader;
  bool implied_role_;
  bool in_channel_ = false;
  std::string role_part_;
  std::string channel_part_;
  MessageHeader header_;
};

// Tokens -> Parser. The tokenizer must outlive it.
class TokenReader {
 public:
  TokenReader(const Tokenizer& tokenizer, const FormatTokens& format,
              Parser::Begin begin = Parser::Begin::kBehindAssistant)
      : tokenizer_(&tokenizer), format_(format), decoder_(tokenizer), parser_(begin) {}
  std::vector<Event> push(TokenId token);
  std::vector<Event> finish();
  const Parser& parser() const { return parser_; }

 private:
  const Tokenizer* tokenizer_;
  FormatTokens format_;
  StreamDecoder decoder_;
  Parser parser_;
};

// Text with the marks spelled out ("<|channel|>final<|message|>…") -> Parser, in pieces of any size. Only for
// sources where a mark in the text is a mark: logs, tests, servers that print specials.
class TextReader {
 public:
  explicit TextReader(Parser::Begin begin = Parser::Begin::kBehindAssistant) : parser_(begin) {}
  std::vector<Event> push(std::string_view text);
  std::vector<Event> finish();

 private:
  std::string held_;  // the start of what may become a mark
  Parser parser_;
};

// A whole message, for those who do not stream.
struct ParsedMessage {
  MessageHeader header;
  std::string text;
  MessageEnd end;
};
std::vector<ParsedMessage> collect_messages(const std::vector<Event>& events);

}  // namespace capstan::harmony
