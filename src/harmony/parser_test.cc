// Goal: whatever a model writes becomes messages, and no text is lost; each accident seen in the field is a
// case.
//
// A case is a stream with its marks spelled out and the messages expected, one a line:
//   role/channel>recipient(type) "text" end
#include "harmony/parser.h"

#include <gtest/gtest.h>

#include "base/prng.h"
#include "harmony/parser_soup.h"
#include "harmony/tokenizer_testing.h"

namespace capstan::harmony {
namespace {

std::string end_name(MessageEnd end) {
  switch (end) {
    case MessageEnd::kEnd:
      return "end";
    case MessageEnd::kCall:
      return "call";
    case MessageEnd::kReturn:
      return "return";
    case MessageEnd::kImplied:
      return "implied";
    case MessageEnd::kTruncated:
      return "truncated";
  }
  return "?";
}

std::string told(const std::vector<Event>& events) {
  EXPECT_EQ(broken_property(events), "");
  std::string out;
  for (const ParsedMessage& message : collect_messages(events)) {
    const MessageHeader& header = message.header;
    out += header.role + "/" + header.channel;
    if (!header.recipient.empty()) out += ">" + header.recipient;
    if (!header.content_type.empty()) out += "(" + header.content_type + ")";
    if (!header.rest.empty()) out += "[" + header.rest + "]";
    out += " \"" + message.text + "\" " + end_name(message.end) + "\n";
  }
  return out;
}

std::vector<Event> read(std::string_view stream, Parser::Begin begin = Parser::Begin::kBehindAssistant) {
  TextReader reader(begin);
  std::vector<Event> events = reader.push(stream);
  for (Event& event : reader.finish()) events.push_back(std::move(event));
  return events;
}

std::string parse(std::string_view stream) { return told(read(stream)); }

TEST(Parser, ReadsAnalysisThenFinal) {
  EXPECT_EQ(parse("<|channel|>analysis<|message|>easy<|end|><|start|>assistant<|channel|>final<|message|>4<|"
                  "return|>"),
            "assistant/analysis \"easy\" end\nassistant/final \"4\" return\n");
}

TEST(Parser, TakesTheRecipientInTheRoleOrInTheChannelPart) {
  const std::string expected = "assistant/commentary>functions.f(json) \"{}\" call\n";
  EXPECT_EQ(parse(" to=functions.f<|channel|>commentary <|constrain|>json<|message|>{}<|call|>"), expected);
  EXPECT_EQ(parse("<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>"), expected);
  EXPECT_EQ(parse("<|channel|>commentary to=functions.f<|constrain|>json<|message|>{}<|call|>"), expected);
  EXPECT_EQ(parse("<|channel|>commentary to=functions.f json<|message|>{}<|call|>"), expected);
  EXPECT_EQ(parse("<|channel|>commentary to= functions.f <|constrain|> json<|message|>{}<|call|>"), expected);
  EXPECT_EQ(parse("<|channel|>commentary functions.f json<|message|>{}<|call|>"), expected);
  EXPECT_EQ(
      parse("<|start|>assistant to=functions.f<|channel|>commentary<|constrain|>json<|message|>{}<|call|>"),
      expected);
}

TEST(Parser, TakesNamesWithHyphens) {  // vLLM 51977
  EXPECT_EQ(
      parse("<|channel|>commentary to=functions.web-browsing <|constrain|>json<|message|>{\"q\": 1}<|call|>"),
      "assistant/commentary>functions.web-browsing(json) \"{\"q\": 1}\" call\n");
}

TEST(Parser, ReadsPythonCallsInAnalysis) {
  EXPECT_EQ(parse("<|channel|>analysis to=python code<|message|>print(6*7)<|call|>"),
            "assistant/analysis>python(code) \"print(6*7)\" call\n");
}

TEST(Parser, AnExtraWordInTheHeaderIsKeptAsideNotFatal) {  // harmony 38: "unexpected tokens remaining in
                                                           // message header"
  EXPECT_EQ(parse("<|channel|>commentary to=functions.f json please<|message|>{}<|call|>"),
            "assistant/commentary>functions.f(json)[please] \"{}\" call\n");
}

TEST(Parser, AMissingStartIsNotFatal) {  // harmony 60: "unexpected token while expecting start token"
  EXPECT_EQ(parse("<|channel|>analysis<|message|>a<|end|>assistant<|channel|>final<|message|>b<|return|>"),
            "assistant/analysis \"a\" end\nassistant/final \"b\" return\n");
  EXPECT_EQ(parse("<|channel|>analysis<|message|>a<|end|><|channel|>final<|message|>b<|return|>"),
            "assistant/analysis \"a\" end\nassistant/final \"b\" return\n");
  EXPECT_EQ(parse("<|channel|>analysis<|message|>a<|end|>So it is b.<|return|>"),
            "assistant/analysis \"a\" end\nassistant/ \"So it is b.\" return\n");
}

TEST(Parser, AMissingEndIsImplied) {
  EXPECT_EQ(parse("<|channel|>analysis<|message|>a<|start|>assistant<|channel|>final<|message|>b<|return|>"),
            "assistant/analysis \"a\" implied\nassistant/final \"b\" return\n");
  EXPECT_EQ(parse("<|channel|>analysis<|message|>a<|channel|>final<|message|>b<|return|>"),
            "assistant/analysis \"a\" implied\nassistant/final \"b\" return\n");
}

TEST(Parser, AMissingMessageMarkLosesNoText) {
  EXPECT_EQ(parse("<|channel|>final The answer\nis  4.<|return|>"),
            "assistant/final \"The answer\nis  4.\" return\n");
  EXPECT_EQ(parse("<|channel|>commentary to=functions.f {\"a\": 1}<|call|>"),
            "assistant/commentary>functions.f \"{\"a\": 1}\" call\n");
  EXPECT_EQ(parse("<|channel|>analysis hmm<|channel|>final<|message|>x<|return|>"),
            "assistant/analysis \"hmm\" implied\nassistant/final \"x\" return\n");
  EXPECT_EQ(parse("<|end|><|start|>assistant hello<|end|>"), "assistant/ \"hello\" end\n");
}

TEST(Parser, TextWithoutAnyFrameIsAMessage) {
  EXPECT_EQ(parse("The answer is 4."), "assistant/ \"The answer is 4.\" truncated\n");
  EXPECT_EQ(parse("tools are fine"), "assistant/ \"tools are fine\" truncated\n");
  EXPECT_EQ(parse("assistant"), "assistant/ \"assistant\" truncated\n");
  EXPECT_EQ(parse("<|message|>4<|return|>"), "assistant/ \"4\" return\n");
}

TEST(Parser, TextWithoutAnyFrameIsToldAtOnce) {
  Parser parser;
  std::vector<Event> events;
  parser.text("The", events);
  EXPECT_EQ(events.size(), 2u);
}

TEST(Parser, UnknownChannelsAreKept) {
  EXPECT_EQ(parse("<|channel|>thoughts<|message|>a<|return|>"), "assistant/thoughts \"a\" return\n");
  EXPECT_EQ(parse("<|channel|><|message|>a<|return|>"), "assistant/ \"a\" return\n");
}

TEST(Parser, ADoubledChannelTakesTheLast) {
  EXPECT_EQ(parse("<|channel|>analysis<|channel|>final<|message|>a<|return|>"),
            "assistant/final \"a\" return\n");
  EXPECT_EQ(parse("<|channel|>commentary to=functions.f<|channel|>commentary<|message|>{}<|call|>"),
            "assistant/commentary>functions.f \"{}\" call\n");
  EXPECT_EQ(parse("<|channel|><|channel|>final<|message|>a<|return|>"), "assistant/final \"a\" return\n");
}

TEST(Parser, DoubledStartsAndStrayMarksDoNoHarm) {
  EXPECT_EQ(parse("<|start|><|start|>assistant<|channel|>final<|message|>a<|return|>"),
            "assistant/final \"a\" return\n");
  EXPECT_EQ(parse("<|start|>assistant<|start|>assistant<|channel|>final<|message|>a<|return|>"),
            "assistant/final \"a\" return\n");
  EXPECT_EQ(parse("<|channel|>final<|message|>a<|message|>b<|constrain|>c<|return|>"),
            "assistant/final \"abc\" return\n");
  EXPECT_EQ(parse("<|end|><|end|><|return|>"), "");
}

TEST(Parser, AStreamMayEndAnywhere) {
  EXPECT_EQ(parse(""), "");
  EXPECT_EQ(parse("<|channel|>ana"), "");
  EXPECT_EQ(parse("<|channel|>final<|message|>par"), "assistant/final \"par\" truncated\n");
  EXPECT_EQ(parse("<|channel|>final<|message|>par<|retu"), "assistant/final \"par<|retu\" truncated\n");
}

TEST(Parser, SeveralCallsInOneTurn) {
  EXPECT_EQ(
      parse(
          "<|channel|>commentary to=functions.a<|message|>{}<|call|><|start|>assistant<|channel|>commentary "
          "to=functions.b<|message|>{}<|call|>"),
      "assistant/commentary>functions.a \"{}\" call\nassistant/commentary>functions.b \"{}\" call\n");
}

TEST(Parser, ReadsWholeConversations) {
  EXPECT_EQ(told(read("<|start|>user<|message|>hi<|end|><|start|>functions.f "
                      "to=assistant<|channel|>commentary<|message|>20<|end|>",
                      Parser::Begin::kNothing)),
            "user/ \"hi\" end\nfunctions.f/commentary>assistant \"20\" end\n");
}

TEST(Parser, AHeaderThatNeverEndsIsText) {
  const std::string text(2 * kHeaderBytesMax, 'x');
  EXPECT_EQ(parse("<|start|>" + text + "<|end|>"), "assistant/ \"" + text + "\" end\n");
}

TEST(TokenReader, KeepsMarksThatAModelSpellsInOrdinaryTokensAsText) {
  const Tokenizer tokenizer = byte_level_tokenizer();
  TokenReader reader(tokenizer, *FormatTokens::of(tokenizer));
  std::vector<Event> events;
  const auto push = [&](const std::vector<TokenId>& tokens) {
    for (const TokenId token : tokens) {
      for (Event& event : reader.push(token)) events.push_back(std::move(event));
    }
  };
  push(tokenizer.encode_with_specials("<|channel|>final<|message|>"));
  push(tokenizer.encode("write <|end|> é"));
  push(tokenizer.encode_with_specials("<|return|>"));
  for (Event& event : reader.finish()) events.push_back(std::move(event));
  EXPECT_EQ(told(events), "assistant/final \"write <|end|> é\" return\n");
}

TEST(TokenReader, ACharacterThatBreaksOffAtAMarkIsReplaced) {
  const Tokenizer tokenizer = byte_level_tokenizer();
  TokenReader reader(tokenizer, *FormatTokens::of(tokenizer));
  std::vector<Event> events;
  for (const TokenId token :
       {*tokenizer.special("<|message|>"), TokenId{'a'}, 0xF0, 0x9F, *tokenizer.special("<|end|>")}) {
    for (Event& event : reader.push(token)) events.push_back(std::move(event));
  }
  EXPECT_EQ(told(events), "assistant/ \"a\xEF\xBF\xBD\" end\n");
}

// What stands between <|message|> and the mark that ends the body, by a scan that shares nothing with the
// parser.
std::vector<std::string> bodies_by_scan(std::string_view soup) {
  std::vector<std::string> bodies;
  bool inside = false;
  while (!soup.empty()) {
    std::string_view mark;
    for (const std::string_view candidate : {"<|start|>", "<|end|>", "<|message|>", "<|channel|>",
                                             "<|constrain|>", "<|return|>", "<|call|>", "<|endoftext|>"}) {
      if (soup.starts_with(candidate)) mark = candidate;
    }
    if (mark.empty()) {
      if (inside) bodies.back() += soup.front();
      soup.remove_prefix(1);
      continue;
    }
    soup.remove_prefix(mark.size());
    if (mark == "<|message|>" && !inside) {
      inside = true;
      bodies.emplace_back();
    } else if (mark != "<|message|>" && mark != "<|constrain|>") {
      inside = false;
    }
  }
  return bodies;
}

TEST(ParserProperty, AnySoupGivesWellFormedEventsAndLosesNoBody) {
  Prng random(20261123);
  for (int round = 0; round < 5'000; ++round) {
    const std::string soup = random_soup(random, 1 + static_cast<int>(random.below(30)));
    const std::vector<Event> events = read(soup);
    ASSERT_EQ(broken_property(events), "") << soup;
    std::string all;
    for (const Event& event : events)
      all += event.kind == Event::Kind::kMessageStart ? std::string("\x02") : event.text;
    std::size_t from = 0;
    for (const std::string& body : bodies_by_scan(soup)) {
      const std::size_t at = all.find(body, from);
      ASSERT_NE(at, std::string::npos) << soup << "\nlost: " << body;
      from = at + body.size();
    }
  }
}

TEST(ParserProperty, HowAStreamIsCutChangesNothing) {
  Prng random(5);
  for (int round = 0; round < 2'000; ++round) {
    const std::string soup = random_soup(random, 1 + static_cast<int>(random.below(25)));
    TextReader reader;
    std::vector<Event> events;
    for (std::size_t at = 0; at < soup.size();) {
      const std::size_t length = 1 + random.below(7);
      for (Event& event : reader.push(std::string_view(soup).substr(at, length)))
        events.push_back(std::move(event));
      at += length;
    }
    for (Event& event : reader.finish()) events.push_back(std::move(event));
    ASSERT_EQ(told(events), parse(soup)) << soup;
  }
}

}  // namespace
}  // namespace capstan::harmony
