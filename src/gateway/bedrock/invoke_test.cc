// Goal: InvokeModel's bodies, the tags around reasoning, names of models and errors are Bedrock's.
#include "gateway/bedrock/invoke.h"

#include <gtest/gtest.h>

#include "base/base64.h"
#include "gateway/bedrock/bedrock_error.h"
#include "gateway/bedrock/model_id.h"

namespace capstan::gateway::bedrock {
namespace {

std::string chat(std::string_view body, bool stream = false) {
  auto json = chat_of_invoke("gpt-oss-20b", "openai.gpt-oss-20b-1:0", body, stream);
  return json ? json->dump() : "error: " + json.error().message;
}

TEST(Invoke, ModelAndStreamMayBeLeftOutButMustAgree) {
  EXPECT_EQ(chat(R"({"messages":[]})"), R"({"messages":[],"model":"gpt-oss-20b"})");
  EXPECT_EQ(chat(R"({"model":"openai.gpt-oss-20b-1:0","messages":[],"stream":true})", true),
            R"({"model":"gpt-oss-20b","messages":[],"stream":true,"stream_options":{"include_usage":true}})");
  EXPECT_EQ(chat(R"({"model":"other","messages":[]})"),
            "error: model 'other' in the body is not 'openai.gpt-oss-20b-1:0' in the path; leave it out of "
            "the body");
  EXPECT_EQ(chat(R"({"messages":[],"stream":true})"),
            "error: stream is true in the body, but the operation is InvokeModel");
  EXPECT_EQ(chat("{}"), "error: messages is missing");
}

TEST(Invoke, ReasoningStandsInTagsBeforeTheText) {
  const Json answer = invoke_answer(*Json::parse(
      R"({"choices":[{"index":0,"message":{"role":"assistant","content":"Hi","reasoning":"hm","reasoning_content":"hm"}}]})"));
  EXPECT_EQ(
      answer.dump(),
      R"({"choices":[{"index":0,"message":{"role":"assistant","content":"<reasoning>hm</reasoning>Hi"}}]})");
}

TEST(Invoke, AStreamOpensAndClosesTheTagsOnce) {
  InvokeStream stream;
  std::string content;
  for (const std::string_view json :
       {R"({"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]})",
        R"({"choices":[{"index":0,"delta":{"reasoning":"a"}}]})",
        R"({"choices":[{"index":0,"delta":{"reasoning":"b"}}]})",
        R"({"choices":[{"index":0,"delta":{"content":"C"}}]})",
        R"({"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null})"}) {
    const Json chunk = stream.push(*Json::parse(json));
    content += chunk.find("choices")->items()[0].find("delta")->get_string("content").value_or("");
  }
  EXPECT_EQ(content, "<reasoning>ab</reasoning>C");
  EXPECT_TRUE(stream.ended());
  EXPECT_TRUE(stream.push(*Json::parse(R"({"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}})"))
                  .is_null());
  EXPECT_EQ(stream.metrics(5, 1).dump(),
            R"({"inputTokenCount":3,"outputTokenCount":2,"invocationLatency":5,"firstByteLatency":1})");
}

TEST(Invoke, ReasoningThatIsCutOffIsClosed) {
  InvokeStream stream;
  stream.push(*Json::parse(R"({"choices":[{"index":0,"delta":{"reasoning":"a"}}]})"));
  const Json last =
      stream.push(*Json::parse(R"({"choices":[{"index":0,"delta":{},"finish_reason":"length"}]})"));
  EXPECT_EQ(last.find("choices")->items()[0].find("delta")->get_string("content"), "</reasoning>");
}

TEST(ModelId, IdsArnsAndProfilesNameTheSameModel) {
  using Names = std::vector<std::string>;
  const std::string id = "openai.gpt-oss-20b-1:0";
  EXPECT_EQ(served_names(id), (Names{id, "gpt-oss-20b", "openai/gpt-oss-20b"}));
  EXPECT_EQ(served_names(model_arn("us-east-1", id))[1], id);
  EXPECT_EQ(served_names("us." + id)[2], "gpt-oss-20b");
  EXPECT_EQ(served_names("anthropic.claude-x-v2:0")[1], "claude-x");
  EXPECT_EQ(served_names("abacus"), (Names{"abacus"}));
  EXPECT_EQ(served_names("openai/gpt-oss-20b"), (Names{"openai/gpt-oss-20b"}));
}

TEST(BedrockError, OpenAiErrorsBecomeBedrocks) {
  const auto type = [](OpenAiError error) {
    const BedrockError out = from_openai(error);
    return fmt::format("{} {}", out.status, out.type);
  };
  EXPECT_EQ(type({.status = 400}), "400 ValidationException");
  EXPECT_EQ(type({.status = 404}), "404 ResourceNotFoundException");
  EXPECT_EQ(type({.status = 429}), "429 ThrottlingException");
  EXPECT_EQ(type({.status = 429, .code = "insufficient_quota"}), "400 ServiceQuotaExceededException");
  EXPECT_EQ(type({.status = 502, .code = "replica_lost"}), "424 ModelErrorException");
  EXPECT_EQ(type({.status = 503, .code = "model_not_ready"}), "503 ServiceUnavailableException");
  EXPECT_EQ(type({.status = 502}), "500 InternalServerException");
  EXPECT_EQ(from_upstream(400, R"({"error":{"message":"too long"}})").message, "too long");
  EXPECT_EQ(from_upstream(500, "<html>").message, "the model's server answered 500");
  const auto response = to_response({429, "ThrottlingException", "slow down"}, "r1");
  EXPECT_EQ(response.body, R"({"message":"slow down"})");
  EXPECT_EQ(response.headers.get("x-amzn-errortype"), "ThrottlingException");
  EXPECT_EQ(response.headers.get("x-amzn-requestid"), "r1");
  EXPECT_EQ(stream_member({424, "ModelErrorException", ""}), "internalServerException");
  EXPECT_EQ(stream_member({429, "ThrottlingException", ""}), "throttlingException");
}

TEST(Base64, RoundTripsAndRefusesWhatIsNone) {
  for (const std::string_view text : {"", "a", "ab", "abc", "abcd"})
    EXPECT_EQ(base64_decode(base64_encode(text)), text);
  EXPECT_EQ(base64_encode("hello"), "aGVsbG8=");
  for (const std::string_view bad : {"a", "ab=c", "=abc", "ab c", "a===", "ab\n="})
    EXPECT_FALSE(base64_decode(bad)) << bad;
}

}  // namespace
}  // namespace capstan::gateway::bedrock
