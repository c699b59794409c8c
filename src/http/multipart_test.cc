// Goal: forms are read as clients write them, and what is broken is refused with a reason.
#include <gtest/gtest.h>

#include "http/multipart.h"

namespace capstan::http {
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
  EXPECT_EQ(parts(kType, "--b1\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a %22b%22 %2\"\r\n\r\nx\r\n--b1--"),
            "f(a \"b\" %2)=x|");
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
  for (int i = 0; i < 1001; ++i) many += "--b1\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n";
  EXPECT_EQ(parts(kType, many + "--b1--"), "error: the form has more than 1000 parts");
}

constexpr std::string_view kForm =
    "--b1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\nContent-Type: text/plain\r\n\r\n"
    "one\r\n--b\r\n\r\n--b1\r\ncontent-disposition: form-data; name=note\r\n\r\n\r\n--b1--\r\n";

TEST(Multipart, EveryCutFormIsRefused) {
  ASSERT_TRUE(parse_multipart(kType, kForm));
  const std::size_t complete = kForm.size() - 2;  // the last line's end is optional
  for (std::size_t size = 0; size < complete; ++size) EXPECT_FALSE(parse_multipart(kType, kForm.substr(0, size))) << size;
}

}  // namespace
}  // namespace capstan::http
