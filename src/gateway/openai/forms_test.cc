// Goal: lines of batches and embeddings are read as clients write them, and what is broken is
// refused with a reason.
#include <gtest/gtest.h>

#include "gateway/openai/batch_lines.h"
#include "gateway/openai/embeddings_exchange.h"

namespace capstan::gateway::openai {
namespace {

std::string lines(std::string_view text) {
  const auto got = parse_batch_lines(text, "/v1/chat/completions");
  if (!got) return got.error().dump();
  std::string out;
  for (const BatchLine& line : *got) out += line.custom_id + " " + line.body + "\n";
  return out;
}

TEST(BatchLines, EachLineIsARequestWithoutStream) {
  EXPECT_EQ(lines("{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/chat/"
                  "completions\",\"body\":{\"model\":\"m\",\"stream\":true}}\r\n\n"
                  R"({"custom_id":"b","method":"POST","url":"/v1/chat/completions","body":{}})"),
            "a {\"model\":\"m\"}\nb {}\n");
}

TEST(BatchLines, WrongLinesAreNamed) {
  EXPECT_EQ(lines(""),
            R"([{"code":"empty_file","line":null,"message":"The file holds no request.","param":null}])");
  const Json errors =
      *Json::parse(lines("{\n"
                         R"({"method":"POST"})"
                         "\n"
                         R"({"custom_id":"a","method":"GET","url":"/v1/chat/completions","body":{}})"
                         "\n"
                         R"({"custom_id":"a","method":"POST","url":"/v1/other","body":{}})"
                         "\n"
                         R"({"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{}})"
                         "\n"
                         R"({"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{}})"
                         "\n"
                         R"({"custom_id":"b","method":"POST","url":"/v1/chat/completions","body":[]})"));
  std::string told;
  for (const Json& error : errors.items())
    told += fmt::format("{} {}\n", *error.get_int("line"), *error.get_string("code"));
  EXPECT_EQ(told,
            "1 invalid_json_line\n2 missing_required_parameter\n3 invalid_method\n4 mismatched_endpoint\n6 "
            "duplicate_custom_id\n"
            "7 missing_required_parameter\n");
}

TEST(Embeddings, AreEncodedAndDecoded) {
  Json answer = *Json::parse(R"({"data":[{"index":0,"embedding":[1.0,-2.5]}]})");
  EXPECT_TRUE(encode_embeddings(answer, true));
  EXPECT_EQ(answer.dump(), R"({"data":[{"index":0,"embedding":"AACAPwAAIMA="}]})");
  EXPECT_TRUE(encode_embeddings(answer, false));
  EXPECT_EQ(answer.dump(), R"({"data":[{"index":0,"embedding":[1.0,-2.5]}]})");
  Json broken = *Json::parse(R"({"data":[{"index":0}]})");
  EXPECT_FALSE(encode_embeddings(broken, true));
}

}  // namespace
}  // namespace capstan::gateway::openai
