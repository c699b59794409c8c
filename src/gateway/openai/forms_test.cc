// Goal: uploads, lines of batches and embeddings are read as clients write them, and what is broken is
// refused with a reason.
#include <gtest/gtest.h>

#include "gateway/openai/batch_lines.h"
#include "gateway/openai/embeddings_exchange.h"
#include "gateway/openai/multipart.h"

namespace capstan::gateway::openai {
namespace {

std::string parts(std::string_view type, std::string_view body) {
  const auto got = parse_multipart(type, body);
  if (!got) return "error: " + got.error().message;
  std::string out;
  for (const Part& part : *got) out += fmt::format("{}({})={}|", part.name, part.filename, part.content);
  return out;
}

constexpr std::string_view kType = "multipart/form-data; boundary=b1";

TEST(Multipart, PartsOfAFormAreFound) {
  EXPECT_EQ(parts(kType,
                  "--b1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a \\\"b\\\".jsonl\"\r\n"
                  "Content-Type: application/octet-stream\r\n\r\nx\r\n--b\r\n\r\n--b1\r\n"
                  "content-disposition: form-data; name=purpose\r\n\r\nbatch\r\n--b1--\r\n"),
            "file(a \"b\".jsonl)=x\r\n--b\r\n|purpose()=batch|");
  EXPECT_EQ(parts("Multipart/Form-Data; charset=utf-8; boundary=\"b 1\"",
                  "--b 1\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n--b 1--"),
            "a()=|");
  EXPECT_EQ(parts(kType, "--b1--\r\n"), "");
}

TEST(Multipart, BrokenFormsAreRefused) {
  EXPECT_EQ(parts("application/json", ""),
            "error: the content-type must be multipart/form-data, not 'application/json'");
  EXPECT_EQ(parts("multipart/form-data", ""),
            "error: the content-type must hold a boundary of 1 to 70 bytes");
  EXPECT_EQ(parts(kType, ""), "error: the form does not begin with its boundary");
  EXPECT_EQ(parts(kType, "--b1\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx"),
            "error: the form is cut off: its last boundary is missing");
  EXPECT_EQ(parts(kType, "--b1\r\nX: y\r\n\r\nx\r\n--b1--"),
            "error: a part of the form has no name in its content-disposition");
  EXPECT_EQ(parts(kType, "--b1\r\nno end\r\n--b1--"),
            "error: a part of the form has no end of its headers within 8192 bytes");
  EXPECT_EQ(parts(kType, "--b1x"), "error: a boundary of the form does not end its line");
  std::string many;
  for (int i = 0; i < 33; ++i) many += "--b1\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n";
  EXPECT_EQ(parts(kType, many + "--b1--"), "error: the form has more than 32 parts");
}

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
