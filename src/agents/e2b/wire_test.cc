// Goal: what clients send is read as they mean it, and what is malformed is refused with a reason.
#include <gtest/gtest.h>

#include "agents/e2b/connect.h"

namespace capstan::agents::e2b {
namespace {

http::Request request(std::string type, std::string body) {
  return {.method = "POST", .headers = {{"content-type", std::move(type)}}, .body = std::move(body)};
}

TEST(Connect, AFramedMessageIsReadBack) {
  const Json message = Json::object({{"path", "a"}});
  const auto read = read_message(request("application/connect+json", frame(message)));
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(*read, message);
  const auto two = read_messages(request("application/connect+json", frame(message) + frame(message) + end_frame()));
  ASSERT_TRUE(two);
  EXPECT_EQ(two->size(), 2u);
}

TEST(Connect, AUnaryBodyMayBeEmptyAndMustBeJson) {
  EXPECT_TRUE(read_message(request("application/json", "")));
  EXPECT_EQ(read_message(request("application/proto", "x")).error().code, Code::kUnsupported);
  EXPECT_FALSE(read_message(request("application/json", "{")));
}

TEST(Connect, ACutOrCompressedStreamIsRefused) {
  const std::string whole = frame(Json::object({{"path", "a"}}));
  for (std::size_t size = 1; size < whole.size(); ++size)
    EXPECT_FALSE(read_message(request("application/connect+json", whole.substr(0, size)))) << size;
  std::string compressed = whole;
  compressed[0] = 1;
  EXPECT_EQ(read_message(request("application/connect+json", compressed)).error().code, Code::kUnsupported);
  EXPECT_FALSE(read_message(request("application/connect+json", std::string("\0\xFF\xFF\xFF\xFFx", 6))));
}

TEST(Connect, AnErrorOfAStreamIsItsLastFrame) {
  const http::Request stream = request("application/connect+json", "");
  const auto refused = refusal(stream, Error{Code::kNotFound, "no file", {}});
  EXPECT_EQ(refused.status, 200);
  EXPECT_EQ(refused.body.substr(0, 1), "\x02");
  EXPECT_NE(refused.body.find("\"code\":\"not_found\""), std::string::npos);
  EXPECT_EQ(refusal(stream, Error{Code::kUnavailable, "gone", {}}).status, 502);
  EXPECT_EQ(refusal(request("application/json", ""), Error{Code::kNotFound, "no file", {}}).status, 404);
}

}  // namespace
}  // namespace capstan::agents::e2b
