// Goal: Bedrock's operations through the gateway between real sockets, over a scripted replica; and who may
// use them.
#include "gateway/bedrock/bedrock.h"

#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include "base/file.h"
#include "base/base64.h"
#include "gateway/bedrock/event_stream.h"
#include "gateway/bedrock/signing_authenticator.h"
#include "http/client.h"

namespace capstan::gateway::bedrock {
namespace {

class Directory final : public ReplicaDirectory {
 public:
  std::vector<Replica> list;
  std::vector<Replica> replicas() const override { return list; }
  std::vector<std::pair<std::string, std::string>> waiting() const override { return {}; }
};

class BedrockTest : public testing::Test {
 protected:
  void SetUp() override {
    upstream_.add("POST", "/v1/chat/completions",
                  [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
                    asked_ = request.body;
                    if (answer_.status != 200 || !asked_.contains(R"("stream":true)"))
                      return writer->respond(answer_);
                    writer->start(200, {{"content-type", "text/event-stream"}});
                    for (const std::string& data : events_) writer->write(http::sse_event(data));
                    if (events_.back() == "[DONE]") return writer->finish();
                    writer->write("data: {\"cut");  // and the replica is gone
                    writer->finish();
                  });
    replica_ = std::move(http::Server::start({}, upstream_.handler()).value());
    directory_.list = {{"a-1", "gpt-oss-20b", fmt::format("http://127.0.0.1:{}", replica_->port()), true}};
    add_routes(gateway_, {[](const std::vector<std::string>& names) -> std::optional<std::string> {
                            for (const std::string& name : names) {
                              if (name == "gpt-oss-20b") return name;
                            }
                            return std::nullopt;
                          },
                          [] {
                            return std::vector<FoundationModel>{{"openai.gpt-oss-20b-1:0", "gpt-oss-20b"},
                                                                {"abacus", "abacus"}};
                          }});
    gateway_.mount(router_);
    server_ = std::move(http::Server::start({}, router_.handler()).value());
  }

  http::Response send(std::string target, std::string body = {}) {
    const std::string method = body.empty() ? "GET" : "POST";
    return client_
        .request(fmt::format("http://127.0.0.1:{}", server_->port()),
                 {.method = method, .target = std::move(target), .body = std::move(body)}, {})
        .value();
  }
  http::Response post(const std::string& operation, std::string body,
                      const std::string& model = "openai.gpt-oss-20b-1%3A0") {
    return send(fmt::format("/model/{}/{}", model, operation), std::move(body));
  }
  // One line a message: its type and payload.
  static std::string frames(const std::string& bytes) {
    EventStreamDecoder decoder;
    decoder.feed(bytes);
    std::string out;
    while (auto message = decoder.next().value())
      out += fmt::format("{}{} {}\n", message->header(":event-type"), message->header(":exception-type"),
                         message->payload);
    EXPECT_TRUE(decoder.empty());
    return out;
  }

  std::string asked_;
  http::Response answer_ = http::Response::json(
      200,
      *Json::parse(
          R"({"choices":[{"index":0,"message":{"role":"assistant","content":"Hi","reasoning":"hm"},"finish_reason":"stop"}],
                            "usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}})"));
  std::vector<std::string> events_ = {
      R"({"choices":[{"index":0,"delta":{"reasoning":"hm"}}]})",
      R"({"choices":[{"index":0,"delta":{"content":"Hi"}}]})",
      R"({"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]})",
      R"({"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}})", "[DONE]"};
  Directory directory_;
  Gateway gateway_{directory_, std::make_shared<prometheus::Registry>()};
  http::Router upstream_, router_;
  std::unique_ptr<http::Server> replica_, server_;
  http::Client client_;
};

const std::string kHello = R"({"messages":[{"role":"user","content":[{"text":"hi"}]}]})";

TEST_F(BedrockTest, ConverseAnswersWhole) {
  const auto answer = post("converse", kHello);
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(asked_, R"({"model":"gpt-oss-20b","messages":[{"role":"user","content":"hi"}]})");
  EXPECT_FALSE(answer.headers.get("x-amzn-requestid").empty());
  const Json body = *Json::parse(answer.body);
  EXPECT_EQ(
      body.find("output")->dump(),
      R"({"message":{"role":"assistant","content":[{"reasoningContent":{"reasoningText":{"text":"hm"}}},{"text":"Hi"}]}})");
  EXPECT_EQ(body.get_string("stopReason"), "end_turn");
  EXPECT_TRUE(body.find("metrics")->get_int("latencyMs").has_value());
}

TEST_F(BedrockTest, ModelsMayBeNamedByArn) {
  EXPECT_EQ(post("converse", kHello,
                 "arn%3Aaws%3Abedrock%3Aus-east-1%3A%3Afoundation-model%2Fopenai.gpt-oss-20b-1%3A0")
                .status,
            200);
  const auto unknown = post("converse", kHello, "meta.llama-9");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(unknown.headers.get("x-amzn-errortype"), "ResourceNotFoundException");
  EXPECT_EQ(
      unknown.body,
      R"({"message":"no model is served as 'meta.llama-9'; GET /foundation-models lists those that are"})");
}

TEST_F(BedrockTest, ConverseStreamsFrames) {
  const auto answer = post("converse-stream", kHello);
  EXPECT_EQ(answer.headers.get("content-type"), "application/vnd.amazon.eventstream");
  const std::string got = frames(answer.body);
  EXPECT_TRUE(got.starts_with(R"(messageStart {"role":"assistant"}
contentBlockDelta {"contentBlockIndex":0,"delta":{"reasoningContent":{"text":"hm"}}}
contentBlockStop {"contentBlockIndex":0}
contentBlockDelta {"contentBlockIndex":1,"delta":{"text":"Hi"}}
contentBlockStop {"contentBlockIndex":1}
messageStop {"stopReason":"end_turn"}
metadata {"usage":{"inputTokens":3,"outputTokens":2,"totalTokens":5,)"))
      << got;
}

TEST_F(BedrockTest, AReplicaThatBreaksOffIsAnExceptionInTheStream) {
  events_ = {R"({"choices":[{"index":0,"delta":{"content":"Hi"}}]})"};
  for (const std::string operation : {"converse-stream", "invoke-with-response-stream"}) {
    const auto answer = post(operation, operation[0] == 'c' ? kHello : R"({"messages":[]})");
    EXPECT_EQ(answer.status, 200);
    const std::string got = frames(answer.body);
    EXPECT_TRUE(got.contains("modelStreamErrorException {\"message\":\"the replica")) << got;
    EXPECT_FALSE(got.contains("messageStop")) << got;
  }
}

TEST_F(BedrockTest, InvokeModelTakesAndGivesChatBodies) {
  const auto answer =
      post("invoke", R"({"messages":[{"role":"user","content":"hi"}],"max_completion_tokens":5})");
  EXPECT_EQ(
      asked_,
      R"({"messages":[{"role":"user","content":"hi"}],"max_completion_tokens":5,"model":"gpt-oss-20b"})");
  EXPECT_EQ(Json::parse(answer.body)->find("choices")->items()[0].find("message")->get_string("content"),
            "<reasoning>hm</reasoning>Hi");
  EXPECT_EQ(answer.headers.get("x-amzn-bedrock-input-token-count"), "3");
  EXPECT_EQ(answer.headers.get("x-amzn-bedrock-output-token-count"), "2");
  const auto wrong = post("invoke", R"({"model":"other","messages":[]})");
  EXPECT_EQ(wrong.headers.get("x-amzn-errortype"), "ValidationException");
}

TEST_F(BedrockTest, InvokeModelStreamsChunks) {
  EventStreamDecoder decoder;
  decoder.feed(post("invoke-with-response-stream", R"({"messages":[]})").body);
  std::string content;
  Json last;
  while (auto message = decoder.next().value()) {
    EXPECT_EQ(message->header(":event-type"), "chunk");
    last = *Json::parse(*base64_decode(*Json::parse(message->payload)->get_string("bytes")));
    content += last.find("choices")->items()[0].find("delta")->get_string("content").value_or("");
  }
  EXPECT_EQ(content, "<reasoning>hm</reasoning>Hi");
  EXPECT_EQ(last.find("amazon-bedrock-invocationMetrics")->get_int("outputTokenCount"), 2);
}

TEST_F(BedrockTest, WhatNoOperationTakesHasBedrocksShape) {
  const auto send = [&](std::string method, std::string target, http::Headers headers) {
    return client_.request(
        fmt::format("http://127.0.0.1:{}", server_->port()),
        {.method = std::move(method), .target = std::move(target), .headers = std::move(headers), .body = kHello}, {});
  };
  const auto expect = [](const auto& answer, int status, std::string_view type) {
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->status, status);
    EXPECT_EQ(answer->headers.get("x-amzn-errortype"), type);
    EXPECT_TRUE(Json::parse(answer->body)->get_string("message").has_value()) << answer->body;
  };
  expect(send("POST", "/model/gpt-oss-20b/apply", {}), 404, "UnknownOperationException");
  expect(send("PUT", "/model/gpt-oss-20b/converse", {}), 405, "UnknownOperationException");
  expect(send("POST", "/model/gpt-oss-20b/converse", {{"content-encoding", "gzip"}}), 415, "UnsupportedMediaTypeException");
  expect(send("POST", "/model/a%20b/converse", {}), 400, "ValidationException");
  expect(send("GET", "/foundation-models?byOutputModality=SMELL", {}), 400, "ValidationException");
}

TEST_F(BedrockTest, InvokeModelTakesItsTierFromAHeader) {
  const std::string body = R"({"messages":[{"role":"user","content":"hi"}]})";
  const auto post_tier = [&](std::string tier) {
    return client_.request(fmt::format("http://127.0.0.1:{}", server_->port()),
                           {.method = "POST",
                            .target = "/model/gpt-oss-20b/invoke",
                            .headers = {{"x-amzn-bedrock-service-tier", std::move(tier)}},
                            .body = body},
                           {});
  };
  const auto answer = post_tier("flex");
  EXPECT_TRUE(asked_.contains(R"("service_tier":"flex")")) << asked_;
  EXPECT_EQ(answer->headers.get("x-amzn-bedrock-service-tier"), "flex");
  EXPECT_EQ(post_tier("gold")->headers.get("x-amzn-errortype"), "ValidationException");
}

TEST_F(BedrockTest, TokensAreCountedByTheReplica) {
  const auto answer = post("count-tokens", R"({"input":{"converse":)" + kHello + "}}");
  EXPECT_EQ(answer.body, R"({"inputTokens":3})");
  EXPECT_TRUE(asked_.contains(R"("max_completion_tokens":1)")) << asked_;
  const std::string body = base64_encode(R"({"messages":[{"role":"user","content":"hi"}]})");
  EXPECT_EQ(post("count-tokens", fmt::format(R"({{"input":{{"invokeModel":{{"body":"{}"}}}}}})", body)).body,
            R"({"inputTokens":3})");
  EXPECT_EQ(post("count-tokens", "{}").status, 400);
}

TEST_F(BedrockTest, ErrorsOfReplicasHaveBedrocksShape) {
  answer_ = http::Response::json(
      400, *Json::parse(R"({"error":{"message":"too long","code":"context_length_exceeded"}})"));
  for (const std::string operation : {"converse", "converse-stream"}) {
    const auto answer = post(operation, kHello);
    EXPECT_EQ(answer.status, 400);
    EXPECT_EQ(answer.headers.get("x-amzn-errortype"), "ValidationException");
    EXPECT_EQ(answer.body, R"({"message":"too long"})");
  }
  directory_.list[0].ready = false;
  const auto answer = post("converse", kHello);
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.headers.get("x-amzn-errortype"), "ServiceUnavailableException");
}

TEST_F(BedrockTest, FoundationModelsAreListedAndFiltered) {
  const auto ids = [&](const std::string& query) {
    std::string out;
    const Json body = *Json::parse(send("/foundation-models" + query).body);
    for (const Json& model : body.find("modelSummaries")->items()) out += *model.get_string("modelId") + " ";
    return out;
  };
  EXPECT_EQ(ids(""), "openai.gpt-oss-20b-1:0 abacus ");
  EXPECT_EQ(ids("?byProvider=OpenAI"), "openai.gpt-oss-20b-1:0 ");
  EXPECT_EQ(ids("?byOutputModality=IMAGE"), "");
  EXPECT_EQ(ids("?byInferenceType=ON_DEMAND"), "openai.gpt-oss-20b-1:0 abacus ");
  const auto one = send("/foundation-models/openai.gpt-oss-20b-1%3A0");
  EXPECT_EQ(Json::parse(one.body)->find("modelDetails")->get_string("modelArn"),
            "arn:aws:bedrock:us-east-1::foundation-model/openai.gpt-oss-20b-1:0");
  EXPECT_EQ(send("/foundation-models/other").status, 404);
}

TEST(SigningAuthenticator, SignedRequestsAreVerifiedAndOthersPassedOn) {
  const Json vectors = *Json::parse(*read_file("src/gateway/bedrock/testdata/sigv4_vectors.json"));
  const std::string secret = *vectors.get_string("secret");
  const std::int64_t now = *vectors.get_int("now");
  const auto acme = std::make_shared<Caller>(Caller{.organisation = "acme"});
  SigningAuthenticator authenticator(
      open_authenticator(),
      [&](const std::string& id) -> std::expected<Signer, ApiError> {
        if (id != "AKIDEXAMPLE")
          return std::unexpected(
              ApiError{.status = 403, .message = "unknown", .code = "UnrecognizedClientException"});
        return Signer{acme, secret};
      },
      [&] { return now; });
  const Json& vector = vectors.find("vectors")->items()[0];
  http::Request request{
      .method = "POST", .target = *vector.get_string("target"), .body = *vector.get_string("body")};
  for (const Json& header : vector.find("headers")->items())
    request.headers.add(header.items()[0].as_string(), header.items()[1].as_string());
  EXPECT_EQ((*authenticator.authenticate(request))->organisation, "acme");
  http::Request tampered = request;
  tampered.body += " ";
  EXPECT_EQ(authenticator.authenticate(tampered).error().code, "InvalidSignatureException");
  http::Request stranger = request;
  std::string authorization = request.headers.get("authorization");
  authorization.replace(authorization.find("AKIDEXAMPLE"), 11, "AKIDOTHER");
  stranger.headers.set("authorization", authorization);
  EXPECT_EQ(authenticator.authenticate(stranger).error().code, "UnrecognizedClientException");
  EXPECT_EQ((*authenticator.authenticate({}))->organisation, "default");
}

}  // namespace
}  // namespace capstan::gateway::bedrock
