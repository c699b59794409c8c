// Goal: what the gateway reads of a body is what a replica reads, and its own question changes nothing else.
#include "gateway/request_peek.h"

#include <gtest/gtest.h>

#include "base/json.h"

namespace capstan::gateway {
namespace {

std::expected<RequestPeek, ApiError> peek(std::string body) { return peek_request(body); }

TEST(RequestPeekTest, ReadsWhatDecides) {
  const auto read = peek(R"({ "messages":[{"role":"user","content":"\"model\":\"no\" {["}], "mod\u0065l" : "abacus",
    "stream": true, "max_tokens": 9, "max_completion_tokens": 7, "n": 2, "service_tier": "flex",
    "prompt_cache_key": "s1", "deep": [[{"model": "other"}]]})");
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->model, "abacus");
  EXPECT_TRUE(read->stream);
  EXPECT_FALSE(read->include_usage);
  EXPECT_EQ(read->completion_tokens_max, 14);
  EXPECT_EQ(read->tier, ServiceTier::kFlex);
  EXPECT_EQ(read->cache_key, "s1");
}

TEST(RequestPeekTest, RefusesWithWhatWouldBeRight) {
  const auto message = [](std::string body) { return peek(std::move(body)).error().message; };
  EXPECT_NE(message("").find("JSON"), std::string::npos);
  EXPECT_NE(message("{").find("JSON"), std::string::npos);
  EXPECT_EQ(message("[1]"), "the body must be a JSON object");
  EXPECT_EQ(message("{}"), "'model' is missing; name one of GET /v1/models");
  EXPECT_EQ(message("{\"model\":\"a\xff\"}"), "the body is not valid UTF-8");
}

// Goal: param and code are what OpenAI's clients look at. Method: one member each, of the wrong type or size.
TEST(RequestPeekTest, AMemberOfTheWrongKindHasOpenAisCode) {
  const auto code = [](std::string_view member, std::string_view value) {
    const auto read = peek(fmt::format(R"({{"model":"a","{}":{}}})", member, value));
    return read ? std::string("read") : read.error().param + " " + read.error().code;
  };
  EXPECT_EQ(peek(R"({"model":1})").error().code, "invalid_type");
  EXPECT_EQ(code("stream", "1"), "stream invalid_type");
  EXPECT_EQ(code("stream_options", "3"), "stream_options invalid_type");
  EXPECT_EQ(code("max_tokens", "-1"), "max_tokens integer_below_min_value");
  EXPECT_EQ(code("max_tokens", "1e30"), "max_tokens integer_above_max_value");
  EXPECT_EQ(code("max_completion_tokens", "\"5\""), "max_completion_tokens invalid_type");
  EXPECT_EQ(code("n", "1.5"), "n invalid_type");
  EXPECT_EQ(code("n", "true"), "n invalid_type");
  EXPECT_EQ(code("service_tier", "\"gold\""), "service_tier invalid_value");
  EXPECT_EQ(code("service_tier", "null"), "read");
}

TEST(RequestPeekTest, ReadsWhatIsUnusualButLegal) {
  EXPECT_EQ(peek(R"({"model":"a","max_tokens":7.0,"n":2.0})")->completion_tokens_max, 14);
  std::string body = "\xEF\xBB\xBF{\"model\":\"a\"}";
  EXPECT_EQ(peek_request(body)->model, "a");
  EXPECT_EQ(body, R"({"model":"a"})");  // what the replica gets has no byte order mark
}

// A gateway and a replica that choose different ones of two would let a limit be walked around.
TEST(RequestPeekTest, AMemberThatDecidesStandsThereOnce) {
  EXPECT_EQ(peek(R"({"model":"a","mod\u0065l":"b"})").error().message, "'model' stands in the body twice");
  EXPECT_EQ(peek(R"({"model":"a","max_tokens":1,"max_tokens":9})").error().param, "max_tokens");
}

TEST(RequestPeekTest, DeepNestingIsSkippedInBoundedStack) {
  const std::string deep = std::string(200'000, '[') + std::string(200'000, ']');
  EXPECT_EQ(peek(R"({"model":"a","x":)" + deep + "}")->model, "a");
  EXPECT_TRUE(peek(R"({"model":"a","x":)" + std::string(200'000, '[')).has_value() == false);
}

TEST(RequestPeekTest, AsksForUsageWhateverTheClientAskedFor) {
  const std::pair<std::string, std::string> cases[] = {
      {R"({"model":"a"})", R"({"stream_options":{"include_usage":true},"model":"a"})"},
      {R"({"model":"a","stream_options":{}})", R"({"model":"a","stream_options":{"include_usage":true}})"},
      {R"({"model":"a","stream_options":null})", R"({"model":"a","stream_options":{"include_usage":true}})"},
      {R"({"stream_options":{"x":1},"model":"a"})",
       R"({"stream_options":{"include_usage":true,"x":1},"model":"a"})"},
      {R"({"stream_options":{"x":1,"include_usage": false },"model":"a"})",
       R"({"stream_options":{"x":1,"include_usage": true },"model":"a"})"},
      {R"({"stream_options":{"include_usage":null},"model":"a"})",
       R"({"stream_options":{"include_usage":true},"model":"a"})"},
      {R"({"stream_options":{"include_usage":true},"model":"a"})",
       R"({"stream_options":{"include_usage":true},"model":"a"})"},
  };
  for (const auto& [given, wanted] : cases) {
    std::string body = given;
    const auto read = peek_request(body);
    ASSERT_TRUE(read) << given << ": " << read.error().message;
    ask_for_usage(body, *read);
    EXPECT_EQ(body, wanted);
    EXPECT_TRUE(Json::parse(body)) << body;
  }
}

}  // namespace
}  // namespace capstan::gateway
