// Goal: the parts under the schema compiler, each against an obvious twin: regular expressions against
// std::regex on all short texts, masks against trying every token, GBNF on its own examples and on mistakes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>

#include "engine/grammar/dfa.h"
#include "engine/grammar/formats.h"
#include "engine/grammar/gbnf.h"
#include "engine/grammar/grammar_testing.h"
#include "engine/grammar/json_schema.h"
#include "engine/grammar/regex.h"

namespace capstan::engine {
namespace {

using ::testing::HasSubstr;
using testing::random_answer;
using testing::small_vocabulary;

bool gbnf_accepts(std::string_view grammar, std::string_view text) {
  auto compiled = compile_gbnf(grammar);
  EXPECT_TRUE(compiled.has_value()) << (compiled ? "" : compiled.error().message);
  if (!compiled) return false;
  Automaton automaton(*compiled);
  StateId state = automaton.start();
  for (const char c : text) {
    if (state != kDead) state = automaton.step(state, static_cast<unsigned char>(c));
  }
  return state != kDead && automaton.is_end(state);
}

TEST(Regex, AgreesWithStdRegexOnAllShortTexts) {
  std::vector<std::string> texts = {""};
  for (std::size_t i = 0; i < texts.size() && texts[i].size() < 5; ++i)
    for (const char c : std::string_view("ab1-")) texts.push_back(texts[i] + c);
  for (const char* pattern : {"^a*b$",
                              "ab",
                              "^a",
                              "b$",
                              "^(a|b1)+$",
                              "^a{2,3}$",
                              "^[^a]*$",
                              "^(ab?){2}-?$",
                              "^$",
                              "",
                              "a|b",
                              "^a|b$",
                              "^(?:a|b){0,2}1$",
                              "^\\d+$",
                              "^\\w{2}$",
                              "\\W",
                              "^[a-b1]{3,}$",
                              "^(a*)*b$",
                              "^.{2}$",
                              "^(a|ab)(1|b1)?$",
                              "^a+?b??$",
                              "[-1]",
                              "^[\\w-]+$",
                              "(^a$|^b1$)",
                              "^(a|$)",
                              "^$|^1+$",
                              "(^|b)1",
                              "a$|^b",
                              "^(?!ab)[ab1]*$",
                              "^(?=.*1)(?!.*bb).*$",
                              "^(?!a|b)",
                              "^(?!(ab|1)$)[ab1]+$"}) {
    const auto dfa = parse_pattern(pattern);
    ASSERT_TRUE(dfa.has_value()) << pattern << dfa.error().message;
    const std::regex twin(pattern);
    for (const std::string& text : texts)
      ASSERT_EQ(dfa->matches(text), std::regex_search(text, twin)) << pattern << " on '" << text << "'";
  }
}

TEST(Regex, SetsOfTextsCombine) {
  const Dfa words = *parse_pattern("^[ab]*$");
  const Dfa without = *words.without(*Dfa::of_texts({"a", "ab", ""}));
  const Dfa both = *words.both(Dfa::length(1, 2));
  for (const char* text : {"", "a", "b", "ab", "ba", "abb", "c"}) {
    const std::string_view view = text;
    const bool word = view.find_first_not_of("ab") == std::string_view::npos;
    EXPECT_EQ(without.matches(text), word && view != "a" && view != "ab" && view != "") << text;
    EXPECT_EQ(both.matches(text), word && view.size() >= 1 && view.size() <= 2) << text;
  }
  EXPECT_TRUE(words.both(*parse_pattern("^c$"))->is_empty());
}

TEST(Regex, LookBehindStandsAtTheEndAndPropertiesAreUnicodes) {
  const Dfa dots = *parse_pattern("^[a-z.]+(?<!\\.)$");
  EXPECT_TRUE(dots.matches("a.b") && !dots.matches("a."));
  const Dfa letters = *parse_pattern("^\\p{Lu}[\\p{L} ]*$");
  EXPECT_TRUE(letters.matches("Łódź ß") && letters.matches("Ä") && !letters.matches("łódź") &&
              !letters.matches("A1"));
  const Dfa greek = *parse_pattern("^\\p{Script=Greek}+$");
  EXPECT_TRUE(greek.matches("αβγ") && !greek.matches("abc"));
  EXPECT_TRUE(parse_pattern("^\\P{L}$")->matches("1"));
  for (const char* wrong : {"\\p{Nothing}", "a(?=b)c", "(a)\\1", "\\bword", "^(?<!a)b", "(?i)a"})
    EXPECT_FALSE(parse_pattern(wrong).has_value()) << wrong;
}

TEST(Regex, EveryFormatIsAPatternThatCompiles) {
  for (const char* format : {"date",          "time",         "date-time",     "duration",
                             "email",         "hostname",     "ipv4",          "ipv6",
                             "uuid",          "uri",          "uri-reference", "iri",
                             "iri-reference", "uri-template", "json-pointer",  "relative-json-pointer",
                             "regex",         "idn-email",    "idn-hostname",  "byte"}) {
    const auto dfa = parse_pattern(format_pattern(format));
    ASSERT_TRUE(dfa.has_value()) << format << dfa.error().message;
    EXPECT_FALSE(dfa->is_empty() || format_pattern(format).empty()) << format;
  }
  const Dfa date = *parse_pattern(format_pattern("date"));
  for (const char* yes : {"2024-02-29", "2000-02-29", "2023-12-31", "1999-04-30"})
    EXPECT_TRUE(date.matches(yes)) << yes;
  for (const char* no : {"2023-02-29", "1900-02-29", "2023-04-31", "2023-13-01", "2023-1-01"})
    EXPECT_FALSE(date.matches(no)) << no;
}

TEST(Gbnf, ReadsWhatUsersOfLlamaCppWrite) {
  constexpr std::string_view kMoves = R"(# chess
root   ::= "1. " move " " move "\n" ([1-9] [0-9]? ". " move " " move "\n")+
move   ::= (pawn | nonpawn | castle) [+#]?

pawn ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
nonpawn ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
castle  ::= "O-O" "-O"?
)";
  EXPECT_TRUE(gbnf_accepts(kMoves, "1. e4 e5\n2. Nf3 Nc6\n"));
  EXPECT_FALSE(gbnf_accepts(kMoves, "1. e4 e5\n2. Nf9 Nc6\n"));
  constexpr std::string_view kList = "root ::= item+\nitem ::= \"- \" [^\\n\\x0b]+ \"\\n\"";
  EXPECT_TRUE(gbnf_accepts(kList, "- a\n- größe\n"));
  EXPECT_FALSE(gbnf_accepts(kList, "a\n"));
  constexpr std::string_view kNested =
      "root ::= value\nvalue ::= \"[\" (value (\",\" value)*)? \"]\"\n  | [0-9]{1,3}";
  EXPECT_TRUE(gbnf_accepts(kNested, "[[1,22],[],333]"));
  EXPECT_FALSE(gbnf_accepts(kNested, "[4444]"));
  EXPECT_TRUE(gbnf_accepts("root ::= (\"ab\"){2,3} .", "abab漢"));
  EXPECT_FALSE(gbnf_accepts("root ::= (\"ab\"){2,3} .", "ab漢"));
  EXPECT_TRUE(gbnf_accepts("root ::= [\\u00e0-\\u00ff]{,2}", "éü"));
  // Right recursion needs no stack, ambiguity no backtracking.
  std::string many;
  for (int i = 0; i < 5000; ++i) many += "ab";
  EXPECT_TRUE(gbnf_accepts("root ::= \"a\" rest | \"\"\nrest ::= \"b\" root | \"b\" root", many));
}

TEST(Gbnf, MistakesAreToldWithTheirPlace) {
  const auto message = [](std::string_view grammar) {
    const auto compiled = compile_gbnf(grammar);
    return compiled ? std::string("compiled") : compiled.error().message;
  };
  EXPECT_THAT(message("root ::= other"), HasSubstr("'other' is used but not defined"));
  EXPECT_THAT(message("start ::= \"a\""), HasSubstr("no rule 'root'"));
  EXPECT_THAT(message("root ::= \"a\"\nroot ::= \"b\""),
              HasSubstr("line 2, column 9: the rule 'root' is defined twice"));
  EXPECT_THAT(message("root ::= (\"a\""), HasSubstr("')' is expected"));
  EXPECT_THAT(message("root ::= \"a"), HasSubstr("closing quote"));
  EXPECT_THAT(message("root ::= [z-a]"), HasSubstr("out of order"));
  EXPECT_THAT(message("root ::= \"a\"{3,2}"), HasSubstr("swapped"));
  EXPECT_THAT(message("root ::= root \"a\" | \"b\""), HasSubstr("left recursion"));
  EXPECT_THAT(message("root ::= x root | \"b\"\nx ::= \"a\"?"), HasSubstr("left recursion"));
  EXPECT_THAT(message("root ::= \"a\" root"), HasSubstr("nothing can satisfy"));
  EXPECT_THAT(message("root ::= ((\"a\"{9999}){9999}){9999}"), HasSubstr("bytes"));
  EXPECT_THAT(message("root = \"a\""), HasSubstr("'::='"));
  EXPECT_THAT(message(std::string("root ::= ") + std::string(1000, '(')), HasSubstr("nested deeper"));
}

// The twin tries every token, byte by byte, and asks whether an end is within the budget.
TEST(TokenMatcher, TextThatMustComeIsKnown) {
  const auto trie = testing::small_vocabulary();
  const auto grammar = compile_gbnf("root ::= \"abc\" [0-9] (\"def\" | \"deg\" \"h\")");
  ASSERT_TRUE(grammar.has_value());
  TokenMatcher matcher(std::make_shared<TokenPlan>(*grammar, trie));
  EXPECT_EQ(matcher.forced().bytes, "abc");
  ASSERT_TRUE(matcher.accept_bytes("a"));
  EXPECT_EQ(matcher.forced().bytes, "bc");
  ASSERT_TRUE(matcher.accept_bytes("bc"));
  EXPECT_EQ(matcher.forced().bytes, "");
  ASSERT_TRUE(matcher.accept_bytes("7"));
  EXPECT_EQ(matcher.forced().bytes, "de");
  ASSERT_TRUE(matcher.accept_bytes("deg"));
  EXPECT_EQ(matcher.forced().bytes, "h");
  ASSERT_TRUE(matcher.accept_bytes("h"));
  EXPECT_EQ(matcher.forced().bytes, "");
  EXPECT_EQ(matcher.forced().mark, kSymbols);
}

TEST(TokenMatcher, MasksAreWhatTryingEveryTokenFinds) {
  const auto trie = small_vocabulary();
  Prng random(7);
  for (const char* schema : {R"({"type":"string","maxLength":6})", R"({"type":"string","minLength":9})",
                             R"({"type":"object","additionalProperties":{"type":"number"}})",
                             R"({"type":"array","items":{"enum":["true","name","漢字"]},"minItems":2})",
                             R"({"type":"string","pattern":"^[a-c]+(\\d{2}|é)$"})", "{}"}) {
    const auto grammar = compile_json_schema(*Json::parse(schema));
    ASSERT_TRUE(grammar.has_value());
    const auto plan = std::make_shared<TokenPlan>(*grammar, trie);
    for (int round = 0; round < 12; ++round) {
      TokenMatcher matcher(plan);
      for (int left = 24; left > 0 && !matcher.is_end(); --left) {
        TokenMask mask(trie->mask_words());
        matcher.allowed(mask, static_cast<std::uint32_t>(left));
        std::vector<std::int32_t> allowed;
        for (std::size_t id = 0; id < trie->vocabulary(); ++id) {
          const auto token = static_cast<std::int32_t>(id);
          TokenMatcher copy = matcher;
          const bool fits = copy.accept(token) && copy.tokens_to_end() < static_cast<std::uint32_t>(left);
          ASSERT_EQ(has_token(mask, token), fits)
              << schema << " token '" << trie->bytes(token) << "' left " << left;
          if (fits) allowed.push_back(token);
        }
        ASSERT_FALSE(allowed.empty()) << schema;
        ASSERT_TRUE(matcher.accept(allowed[random.below(allowed.size())]));
      }
      EXPECT_TRUE(matcher.is_end());
    }
  }
}

TEST(TokenMatcher, AnAutomatonThatIsFullGoesOnInAFreshOne) {
  const auto grammar = compile_json_schema(
      *Json::parse(R"({"type":"array","items":{"type":"string","maxLength":8000},"minItems":2})"));
  const auto plan = std::make_shared<TokenPlan>(*grammar, small_vocabulary());
  TokenMatcher matcher(plan), other(plan);
  const std::string text(7'990, 'x');
  ASSERT_TRUE(matcher.accept_bytes("[\"" + text));
  ASSERT_TRUE(matcher.accept_bytes("\",\"" + text));  // more states than one automaton holds
  EXPECT_FALSE(matcher.accept_bytes(std::string(11, 'y')));
  ASSERT_TRUE(matcher.accept_bytes(std::string(10, 'y') + "\"]"));
  EXPECT_TRUE(matcher.is_end());
  ASSERT_TRUE(other.accept_bytes("[\"a\",\"b\"]"));
  EXPECT_TRUE(other.is_end());
}

TEST(TokenMatcher, AGrammarWithoutBoundsOfAmbiguityFailsInsteadOfGrowing) {
  // Every split of the text is alive: the set of stacks grows with the text.
  const auto grammar =
      compile_gbnf("root ::= x x x x \"!\"\nx ::= \"a\" x \"a\"? | \"a\" y\ny ::= \"a\" x \"b\"? | \"\"");
  ASSERT_TRUE(grammar.has_value());
  const auto plan = std::make_shared<TokenPlan>(*grammar, small_vocabulary());
  TokenMatcher matcher(plan);
  for (int i = 0; i < 20'000 && !matcher.failed(); ++i) {
    if (!matcher.accept_bytes("a")) break;
  }
  TokenMask mask(small_vocabulary()->mask_words());
  matcher.allowed(mask, 10);  // must not crash
  SUCCEED();
}

}  // namespace
}  // namespace capstan::engine
