// Goal: what a model without any sense writes under a schema satisfies it, on schemas of every kind; what the
// schema allows, within the documented limits, can be written; what cannot be enforced is refused by name.
// The model draws tokens at random; an independent validator (schema_validator.h) judges.
#include "engine/grammar/json_schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "engine/grammar/grammar_testing.h"
#include "engine/grammar/schema_validator.h"

namespace capstan::engine {
namespace {

using ::testing::HasSubstr;
using testing::invalid_because;
using testing::random_answer;

std::shared_ptr<const TokenTrie> trie() {
  static const auto kTrie = testing::small_vocabulary();
  return kTrie;
}

Json schema_of(std::string_view text) {
  auto schema = Json::parse(text);
  EXPECT_TRUE(schema.has_value()) << text;
  return schema.value_or(Json());
}

std::shared_ptr<TokenPlan> plan_of(const Json& schema) {
  auto grammar = compile_json_schema(schema);
  EXPECT_TRUE(grammar.has_value()) << (grammar ? "" : grammar.error().message) << schema.dump();
  return grammar ? std::make_shared<TokenPlan>(*grammar, trie()) : nullptr;
}

bool accepts(const std::shared_ptr<TokenPlan>& plan, std::string_view text) {
  TokenMatcher matcher(plan);
  return matcher.accept_bytes(text) && matcher.is_end();
}
bool accepts(std::string_view schema, std::string_view text) {
  return accepts(plan_of(schema_of(schema)), text);
}

const Json& all_schemas() {
  static const Json kAll = schema_of(read_file("src/engine/grammar/testdata/schemas.json").value_or("[]"));
  return kAll;
}

TEST(JsonSchema, ARandomModelSatisfiesEverySchemaWithinAnyBudgetThatHasRoom) {
  Prng random(1);
  ASSERT_GE(all_schemas().size(), 200u);
  for (const Json& item : all_schemas().items()) {
    const Json& schema = *item.find("schema");
    const auto plan = plan_of(schema);
    ASSERT_NE(plan, nullptr) << *item.get_string("name");
    const int shortest = static_cast<int>(TokenMatcher(plan).tokens_to_end());
    for (const int spare : {0, 1, 7, 40, 300}) {
      const auto answer = random_answer(plan, *trie(), shortest + spare, random);
      const auto value = Json::parse(answer.text);
      ASSERT_TRUE(answer.ended && !answer.failed)
          << *item.get_string("name") << " spare " << spare << ": " << answer.text;
      ASSERT_TRUE(value.has_value()) << *item.get_string("name") << ": " << answer.text;
      ASSERT_EQ(invalid_because(schema, *value), "") << *item.get_string("name") << ": " << answer.text;
    }
  }
}

TEST(JsonSchema, ABudgetWithoutRoomIsSpentOnTheShortestWay) {
  Prng random(2);
  const auto plan = plan_of(schema_of(R"({"const":"a long constant that takes many tokens"})"));
  const auto answer = random_answer(plan, *trie(), 5, random);
  EXPECT_FALSE(answer.ended);
  EXPECT_EQ(answer.tokens, 5);
  EXPECT_THAT(answer.text, ::testing::StartsWith("\"a long"));
}

// Bytes of valid answers are changed; what the automaton still accepts must still be valid.
TEST(JsonSchema, NothingInvalidIsAcceptedAmongMutations) {
  Prng random(3);
  int accepted = 0;
  for (const Json& item : all_schemas().items()) {
    const Json& schema = *item.find("schema");
    const auto plan = plan_of(schema);
    for (int round = 0; round < 16; ++round) {
      std::string text =
          random_answer(plan, *trie(), static_cast<int>(TokenMatcher(plan).tokens_to_end()) + 30, random)
              .text;
      for (std::uint64_t i = 1 + random.below(3); i > 0 && !text.empty(); --i) {
        const std::size_t at = random.below(text.size());
        static constexpr std::string_view kBytes = "{}[]\",:0123456789-.eatrue \\ab";
        const char byte =
            random.below(4) == 0 ? text[random.below(text.size())] : kBytes[random.below(kBytes.size())];
        if (random.below(3) == 0)
          text.erase(at, 1);
        else if (random.below(2) == 0)
          text.insert(at, 1, byte);
        else
          text[at] = byte;
      }
      if (!accepts(plan, text)) continue;
      ++accepted;
      const auto value = Json::parse(text);
      ASSERT_TRUE(value.has_value()) << *item.get_string("name") << ": " << text;
      ASSERT_EQ(invalid_because(schema, *value), "") << *item.get_string("name") << ": " << text;
    }
  }
  EXPECT_GT(accepted, 150);
}

TEST(JsonSchema, IntegersAreExactlyThoseTheValidatorTakes) {
  for (const char* text :
       {R"({"type":"integer","minimum":-37,"maximum":412})",
        R"({"type":"integer","exclusiveMinimum":-100,"exclusiveMaximum":-7})",
        R"({"type":"integer","minimum":95})", R"({"type":"integer","maximum":-101})",
        R"({"type":"integer","multipleOf":7,"minimum":-50})", R"({"type":"integer","multipleOf":2.5})",
        R"({"type":"integer","minimum":-3.5,"maximum":3.5})", R"({"type":["integer","null"],"minimum":0})",
        R"({"type":"integer","minimum":0,"maximum":0})"}) {
    const Json schema = schema_of(text);
    const auto plan = plan_of(schema);
    for (int value = -1200; value <= 1200; ++value)
      ASSERT_EQ(accepts(plan, std::to_string(value)), invalid_because(schema, value).empty())
          << text << " " << value;
    for (const char* no : {"-", "", "01", "-01", "-0", "1.0", "1e2", "+1", "1 "})
      EXPECT_FALSE(accepts(plan, no)) << text << " " << no;
  }
}

TEST(JsonSchema, NumbersWithBoundsAreExactlyThoseTheValidatorTakes) {
  for (const char* text :
       {R"({"type":"number","minimum":-1.25,"maximum":3.5})",
        R"({"type":"number","exclusiveMinimum":0,"exclusiveMaximum":1})",
        R"({"type":"number","minimum":0.1,"maximum":0.2})", R"({"type":"number","maximum":-0.5})",
        R"({"type":"number","minimum":9.99})", R"({"type":"number","multipleOf":0.25,"minimum":-2})",
        R"({"type":"number","exclusiveMinimum":-1,"maximum":-0.01})"}) {
    const Json schema = schema_of(text);
    const auto plan = plan_of(schema);
    for (int hundredths = -1300; hundredths <= 1300; ++hundredths) {
      if (hundredths == 0) continue;  // "-0.00" and "0.00" are not both written
      const std::string number = fmt::format("{}{}.{:02}", hundredths < 0 ? "-" : "",
                                             std::abs(hundredths) / 100, std::abs(hundredths) % 100);
      ASSERT_EQ(accepts(plan, number), invalid_because(schema, *Json::parse(number)).empty())
          << text << " " << number;
    }
  }
}

TEST(JsonSchema, StringsCountCharactersAndEscapes) {
  const auto plan = plan_of(schema_of(R"({"type":"string","minLength":2,"maxLength":3})"));
  for (const char* yes : {R"("ab")", R"("漢字")", R"("🙂🙂🙂")", R"("\n\\")", R"("\u00e9x")",
                          R"("\ud83d\ude42x")", R"("a/b")"})
    EXPECT_TRUE(accepts(plan, yes)) << yes;
  for (const char* no : {R"("a")", R"("abcd")", R"("🙂")", R"("\ud83dx")", R"("\ude42x")", "\"\xff\xff\"",
                         "\"a\nb\"", R"("ab)", R"(ab)", "\"\xed\xa0\x80x\"", "\"\xc0\x80x\""})
    EXPECT_FALSE(accepts(plan, no)) << no;
}

TEST(JsonSchema, ObjectsTakeTheirPropertiesInOrderWithBlanks) {
  constexpr std::string_view kSchema =
      R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"boolean"}},"required":["b"],)"
      R"("additionalProperties":false})";
  for (const char* yes : {R"({"a":1,"b":true})", R"({"b":false})", R"({ "a": 1, "b": true })",
                          "{\n  \"a\": 1,\n  \"b\": true\n}"})
    EXPECT_TRUE(accepts(kSchema, yes)) << yes;
  for (const char* no :
       {R"({"a":1})", R"({})", R"({"b":true,"a":1})", R"({"b":true,"c":1})", R"({"b":true,})",
        R"({"b":true}})", R"({"b" :true})", "{  \"b\":true}", "{\n\n\"b\":true}"})
    EXPECT_FALSE(accepts(kSchema, no)) << no;
}

TEST(JsonSchema, FurtherPropertiesAreOthersThanTheNamedOnes) {
  constexpr std::string_view kSchema =
      R"({"type":"object","properties":{"id":{"type":"integer"}},"additionalProperties":{"type":"string"}})";
  for (const char* yes : {R"({"id":1})", R"({"id":1,"x":"y"})", R"({"i":"y","idx":"z"})", R"({})"})
    EXPECT_TRUE(accepts(kSchema, yes)) << yes;
  for (const char* no : {R"({"id":"x"})", R"({"x":1})", R"({"x":"y","id":"z"})"})
    EXPECT_FALSE(accepts(kSchema, no)) << no;
}

TEST(JsonSchema, ItemsThatMustDifferDoWhateverTheyAre) {
  Prng random(11);
  for (
      const char* text :
      {R"({"type":"array","items":{"type":"string","maxLength":1},"uniqueItems":true,"minItems":2,"maxItems":6})",
       R"({"type":"array","items":{"type":"integer","minimum":0,"maximum":999},"uniqueItems":true,"minItems":3})",
       R"({"type":"array","items":{"type":["null","boolean","string"]},"uniqueItems":true,"minItems":2})",
       R"({"type":"array","items":{"type":"object","properties":{"a":{"type":"boolean"},"b":{"type":"string","maxLength":1}},)"
       R"("required":["a","b"],"additionalProperties":false},"uniqueItems":true,"minItems":2,"maxItems":4})",
       R"({"type":"array","items":{"type":"array","items":{"type":"boolean"},"maxItems":2},"uniqueItems":true,)"
       R"("minItems":2,"maxItems":4})",
       R"({"type":"array","items":{"type":"array","items":{"type":"string"},"uniqueItems":true},"uniqueItems":true})",
       R"({"type":"array","uniqueItems":true,"minItems":2})",
       R"({"type":"object","properties":{"tags":{"type":"array","items":{"type":"string"},"uniqueItems":true,"maxItems":5},)"
       R"("plain":{"type":"array","items":{"type":"null"},"minItems":2}},"required":["tags","plain"]})"}) {
    const Json schema = schema_of(text);
    const auto plan = plan_of(schema);
    ASSERT_NE(plan, nullptr);
    const int shortest = static_cast<int>(TokenMatcher(plan).tokens_to_end());
    for (int round = 0; round < 40; ++round) {
      const auto answer = random_answer(plan, *trie(), shortest + 40 + round, random);
      const auto value = Json::parse(answer.text);
      ASSERT_TRUE(answer.ended && !answer.failed && value) << text << " " << answer.text;
      ASSERT_EQ(invalid_because(schema, *value), "") << text << " " << answer.text;
    }
  }
  constexpr std::string_view kUnique = R"({"type":"array","items":{},"uniqueItems":true})";
  for (const char* yes : {R"([1,2])", R"([])", R"(["a","b"])", R"([1,"1"])", R"([[1],[2],1])",
                          R"([true,"true"])", R"(["a,b","a"])"})
    EXPECT_TRUE(accepts(kUnique, yes)) << yes;
  for (const char* no : {R"([1,1.0])", R"(["a", "a"])", R"(["a","\u0061"])",
                         R"([{"a":1,"b":2},{"b":2, "a":1}])", R"([null,null])"})
    EXPECT_FALSE(accepts(kUnique, no)) << no;
}

struct Refused {
  const char* schema;
  const char* field;
  const char* says;
};

TEST(JsonSchema, WhatCannotBeEnforcedIsRefusedWithItsPlace) {
  for (const Refused& refused :
       {Refused{R"({"type":"object","properties":{"a":{"not":{"uniqueItems":true}}}})", "/properties/a/not",
                "'not'"},
        {R"({"type":"string","pattern":"a(?=a)b"})", "/pattern", "look-around"},
        {R"({"type":"string","pattern":"(a)\\1"})", "/pattern", "not supported"},
        {R"({"type":"string","pattern":"^(a{1,999}){1,999}$"})", "/pattern", "states"},
        {R"({"type":"strin"})", "/type", "boolean"},
        {R"({"$ref":"http://elsewhere/schema"})", "/$ref", "outside"},
        {R"({"$ref":"#/$defs/none"})", "/$ref", "nowhere"},
        {R"({"enum":[]})", "/enum", "at least one"},
        {R"({"anyOf":[]})", "/anyOf", "at least one"},
        {R"({"type":"object","properties":{"a/b":{"minLength":-1}}})", "/properties/a~1b/minLength",
         "from 0"},
        {R"({"type":"object","properties":[]})", "/properties", "object"},
        {R"({"type":"number","multipleOf":0})", "/multipleOf", "larger than 0"},
        {R"({"type":"number","multipleOf":0.00123457})", "/multipleOf", "not supported"},
        {R"({"allOf":[{"contains":{"const":1}},{"contains":{"const":2}}]})", "/contains", "two different"},
        {R"({"$ref":"#anchor"})", "/$ref", "no subschema"},
        {R"([1])", "", "an object, true or false"}}) {
    const auto grammar = compile_json_schema(schema_of(refused.schema));
    ASSERT_FALSE(grammar.has_value()) << refused.schema;
    EXPECT_EQ(grammar.error().field, refused.field) << refused.schema << grammar.error().message;
    EXPECT_THAT(grammar.error().message, HasSubstr(refused.says)) << refused.schema;
  }
}

TEST(JsonSchema, SchemasThatNothingSatisfiesAreRefused) {
  for (const char* schema :
       {"false", R"({"type":"integer","minimum":3,"maximum":2})",
        R"({"type":"object","properties":{"a":false},"required":["a"]})",
        R"({"type":"object","properties":{"self":{"$ref":"#"}},"required":["self"]})", R"({"$ref":"#"})",
        R"({"allOf":[{"$ref":"#"}]})", R"({"anyOf":[{"$ref":"#"},{"$ref":"#"}]})",
        R"({"allOf":[{"type":"string"},{"type":"integer"}]})", R"({"type":"string","enum":[1,2]})",
        R"({"type":"string","minLength":5,"pattern":"^a{1,3}$"})"}) {
    const auto grammar = compile_json_schema(schema_of(schema));
    EXPECT_FALSE(grammar.has_value()) << schema;
  }
}

TEST(JsonSchema, HostileSchemasAreRefusedAndDoNotGrow) {
  std::string deep = "{}";
  for (int i = 0; i < 25; ++i) deep = fmt::format(R"({{"type":"array","items":{}}})", deep);
  EXPECT_TRUE(compile_json_schema(schema_of(deep)).has_value());
  // Each definition uses the next twice: 2^30 values.
  Json doubling = schema_of(R"({"$ref":"#/$defs/d0","$defs":{"d30":{"type":"integer"}}})");
  for (int i = 0; i < 30; ++i)
    doubling["$defs"]["d" + std::to_string(i)] = schema_of(fmt::format(
        R"({{"type":"object","properties":{{"a":{{"$ref":"#/$defs/d{0}"}},"b":{{"$ref":"#/$defs/d{0}"}}}},)"
        R"("required":["a","b"]}})",
        i + 1));
  EXPECT_FALSE(compile_json_schema(doubling).has_value());
  Json joined = schema_of(R"({"allOf":[]})");
  for (int i = 0; i < 3000; ++i)
    joined["allOf"].push_back(
        schema_of(fmt::format(R"({{"anyOf":[{{"minLength":{0}}},{{"minLength":{1}}}]}})", i, 3 * i + 7)));
  EXPECT_FALSE(compile_json_schema(joined).has_value());
  // A union of unions of unions…: 8^12 branches.
  Json unions = schema_of(R"({"type":"string"})");
  for (int i = 0; i < 12; ++i) {
    Json next = schema_of(R"({"minLength":1,"anyOf":[]})");
    for (int k = 0; k < 3; ++k) {
      Json branch = unions;
      branch["maxLength"] = 100 * i + k;
      next["anyOf"].push_back(branch);
    }
    if (next.dump().size() > 100'000) break;
    unions = next;
  }
  (void)compile_json_schema(unions);
  // Patterns are cheap or refused, also many of them; lengths beside patterns reach their bound.
  Json patterns = schema_of(R"({"type":"object","properties":{}})");
  for (int i = 0; i < 300; ++i) {
    patterns["properties"]["p" + std::to_string(i)] =
        schema_of(R"({"type":"string","pattern":"^(a|b)*a(a|b){9}$","maxLength":1024})");
  }
  EXPECT_FALSE(compile_json_schema(patterns).has_value());
  EXPECT_TRUE(compile_json_schema(schema_of(R"({"type":"string","pattern":"^[a-z]*$","maxLength":5000})")).has_value());
  Json wide = schema_of(R"({"type":"object","properties":{}})");
  for (int i = 0; i < 5000; ++i)
    wide["properties"]["p" + std::to_string(i)] = schema_of(R"({"type":"string","minLength":5000})");
  const auto large = compile_json_schema(wide);
  if (!large) {
    EXPECT_THAT(large.error().message, HasSubstr("at most"));
  }
}

TEST(JsonSchema, RecursionComesToAnEndWithoutABudget) {
  Prng random(5);
  const auto plan = plan_of(schema_of(
      R"({"$defs":{"t":{"type":"object","properties":{"c":{"type":"array","items":{"$ref":"#/$defs/t"}}},)"
      R"("required":["c"],"additionalProperties":false}},"$ref":"#/$defs/t"})"));
  TokenMatcher matcher(plan);
  std::string text;
  for (int i = 0; i < 400; ++i) text += "{\"c\":[";
  EXPECT_FALSE(matcher.accept_bytes(text));  // deeper than any parser goes
  for (int i = 0; i < 20; ++i) {
    const auto answer = random_answer(plan, *trie(), 3'000, random);
    EXPECT_TRUE(answer.ended);
    EXPECT_TRUE(Json::parse(answer.text).has_value()) << answer.text;
  }
}

}  // namespace
}  // namespace capstan::engine
