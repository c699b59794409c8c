#include "base/json.h"

#include <gtest/gtest.h>

#include "base/text_member.h"

namespace capstan {
namespace {

TEST(JsonTest, ReadsAndWritesTheSameText) {
  const std::string text = R"({"a":[1,-2.5,true,null,"x\"\n"],"b":{"c":"é"},"d":3.0})";
  EXPECT_EQ(Json::parse(text).value().dump(), text);
}

TEST(JsonTest, IndexMakesMembers) {
  Json value;
  value["usage"]["total"] = 12;
  value["list"].push_back("a");
  EXPECT_EQ(value.dump(), R"({"usage":{"total":12},"list":["a"]})");
  EXPECT_EQ(value.get_int("usage"), std::nullopt);
}

TEST(JsonTest, RefusesWhatIsNotJson) {
  EXPECT_EQ(Json::parse("{\"a\":}").error().code, Code::kInvalid);
  EXPECT_EQ(Json::parse("").error().code, Code::kInvalid);
  EXPECT_EQ(Json::parse("\"\xff\"").error().code, Code::kInvalid);
  EXPECT_NE(Json::parse(std::string(100, '[') + std::string(100, ']')).error().message.find("deeper"),
            std::string::npos);
}

// Goal: texts as JavaScript and Python write them when a string ends inside an emoji, or when a file begins with a mark.
TEST(JsonTest, HalvesOfSurrogatePairsBecomeReplacementCharacters) {
  const auto read = [](std::string_view text) { return Json::parse(text)->as_string(); };
  EXPECT_EQ(read(R"("a\\ud83d \ud83d\ude00 \ud83d")"), "a\\ud83d \xF0\x9F\x98\x80 \xEF\xBF\xBD");
  EXPECT_EQ(read(R"("\ude00\ud83d\ud83d\ude00\ud83dx")"),
            "\xEF\xBF\xBD\xEF\xBF\xBD\xF0\x9F\x98\x80\xEF\xBF\xBDx");
  EXPECT_FALSE(Json::parse(R"("\ud83d\q")").has_value());
  EXPECT_FALSE(Json::parse(R"("\ud83")").has_value());
  EXPECT_FALSE(Json::parse(R"("\ud83d)").has_value());
}

TEST(JsonTest, AByteOrderMarkIsSkipped) {
  EXPECT_EQ(Json::parse("\xEF\xBB\xBF{\"a\":1}")->get_int("a"), 1);
  EXPECT_FALSE(Json::parse("\xEF\xBB\xBF\xEF\xBB\xBF{}").has_value());
}

TEST(JsonTest, DuplicateKeyLastWins) { EXPECT_EQ(Json::parse(R"({"a":1,"a":2})")->get_int("a"), 2); }

// Goal: runs of plain bytes and what must be escaped meet in every order, at both ends too.
TEST(JsonTest, EscapesBetweenPlainRuns) {
  EXPECT_EQ(Json("\"a\\b\n\tc\rd\x01"
                 "e\x7f\xC3\xA4"
                 "f\xff\"")
                .dump(),
            "\"\\\"a\\\\b\\n\\tc\\rd\\u0001e\x7f\xC3\xA4"
            "f\xEF\xBF\xBD\\\"\"");
  EXPECT_EQ(Json("").dump(), "\"\"");
  EXPECT_EQ(Json(INT64_MIN).dump(), "-9223372036854775808");
}

TEST(JsonTest, InvalidUtf8IsReplacedWhenWriting) { EXPECT_EQ(Json("a\xff").dump(), "\"a\xEF\xBF\xBD\""); }

// Method: every way to cut the arguments in two, and each byte alone.
TEST(TextMember, TheTextIsToldAsItIsWrittenHoweverItIsCut) {
  const std::string code = "print(\"é\\n\")\t# \xF0\x9F\x98\x80 done";
  for (const std::string& arguments : {Json::object({{"code", code}}).dump(),
                                       std::string(R"( { "code" : "print(\"\u00e9\\n\")\t# \ud83d\ude00 done"} )")}) {
    for (std::size_t cut = 0; cut <= arguments.size(); ++cut) {
      TextMember reader("code");
      std::string told = reader.next(std::string_view(arguments).substr(0, cut));
      EXPECT_TRUE(code.starts_with(told));
      told += reader.next(arguments);
      EXPECT_EQ(told, code) << cut;
    }
  }
  TextMember plain("code");
  EXPECT_EQ(plain.next("print(1)"), "");
  TextMember other("code");
  EXPECT_EQ(other.next(R"({"language":"python","code":"1"})"), "");
}

}  // namespace
}  // namespace capstan
