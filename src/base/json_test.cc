#include "base/json.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace capstan
