// Goal: text is continued, scored and made tokens in OpenAI's form to the letter.
#include "engine/server/engine_server_testing.h"

namespace capstan::engine {
namespace {

using ::testing::HasSubstr;

TEST_F(EngineServerTest, OfBestOfTheLikeliestAreTold) {
  start("4");
  source_->logprobs = {-2.0f, -0.25f, -3.0f, -1.0f};
  const auto answer =
      post("/v1/completions",
           R"({"model":"abacus","prompt":"2+2=","n":2,"best_of":4,"logprobs":0,"max_tokens":1})");
  ASSERT_EQ(answer.status, 200) << answer.body;
  const Json body = *Json::parse(answer.body);
  ASSERT_EQ(body.find("choices")->size(), 2u);
  EXPECT_EQ(choice_of(body, 0).find("logprobs")->find("token_logprobs")->dump(), "[-0.25]");
  EXPECT_EQ(choice_of(body, 1).find("logprobs")->find("token_logprobs")->dump(), "[-1.0]");
  EXPECT_EQ(choice_of(body, 1).find("logprobs")->find("top_logprobs")->dump(), R"([{"4":-1.0}])");
  EXPECT_EQ(choice_of(body, 1).get_int("index"), 1);
  EXPECT_EQ(body.find("usage")->get_int("completion_tokens"), 4);
}

TEST_F(EngineServerTest, CompletionsContinueText) {
  start("4, and<|end|> so on<|return|>");
  const auto response =
      post("/v1/completions", R"({"model":"abacus","prompt":"2+2=","max_tokens":60,"echo":true})");
  ASSERT_EQ(response.status, 200) << response.body;
  const Json body = *Json::parse(response.body);
  EXPECT_EQ(body.get_string("object"), "text_completion");
  EXPECT_EQ(choice_of(body).dump(),
            R"({"index":0,"text":"2+2=4, and so on","logprobs":null,"finish_reason":"stop"})");
  EXPECT_EQ(body.find("usage")->get_int("prompt_tokens"), 4);
  EXPECT_EQ(post("/v1/completions", R"({"model":"abacus","prompt":[999]})").status, 400);
}

TEST_F(EngineServerTest, SeveralPromptsGetTheirChoicesInOrder) {
  start("so on<|return|>");
  const Json body = *Json::parse(
      post("/v1/completions", R"({"model":"abacus","prompt":["a","bcd"],"n":2,"echo":true,"max_tokens":9})")
          .body);
  ASSERT_EQ(body.find("choices")->size(), 4u);
  for (std::size_t i = 0; i < 4; ++i)
    EXPECT_EQ(choice_of(body, i).get_string("text"), i < 2 ? "aso on" : "bcdso on");
  EXPECT_EQ(body.find("usage")->get_int("prompt_tokens"), 4);
  EXPECT_EQ(body.find("usage")->get_int("completion_tokens"), 4 * 6);
}

TEST_F(EngineServerTest, CompletionsGiveOpenAisFourListsOfLogprobs) {
  start("so on<|return|>");
  const auto response = post("/v1/completions", R"({"model":"abacus","prompt":"x","logprobs":2})");
  ASSERT_EQ(response.status, 200) << response.body;
  const Json body = *Json::parse(response.body);
  const Json& logprobs = *choice_of(body).find("logprobs");
  EXPECT_EQ(logprobs.find("tokens")->dump(), R"(["s","o"," ","o","n"])");
  EXPECT_EQ(logprobs.find("token_logprobs")->dump(), "[-0.5,-0.5,-0.5,-0.5,-0.5]");
  EXPECT_EQ(logprobs.find("text_offset")->dump(), "[0,1,2,3,4]");
  EXPECT_EQ(logprobs.find("top_logprobs")->items().at(0).dump(), R"({"s":-0.5,"t":-1.5})");
}

TEST_F(EngineServerTest, AnEchoedPromptHasItsLogprobs) {
  start("so<|return|>");
  const std::string ask = R"({"model":"abacus","prompt":"a\u00e9b","echo":true,"logprobs":1)";
  const Json body = *Json::parse(post("/v1/completions", ask + "}").body);
  EXPECT_EQ(choice_of(body).get_string("text"), "aébso");
  const Json& logprobs = *choice_of(body).find("logprobs");
  EXPECT_EQ(logprobs.find("token_logprobs")->dump(), "[null,-0.25,-0.25,-0.25,-0.5,-0.5]");
  EXPECT_EQ(logprobs.find("text_offset")->dump(), "[0,1,2,2,3,4]");
  EXPECT_EQ(logprobs.find("top_logprobs")->items().at(0).dump(), "null");
  EXPECT_EQ(logprobs.find("top_logprobs")->items().at(3).dump(), R"({"b":-0.25})");
  // Scored alone: nothing is made.
  const Json scored = *Json::parse(post("/v1/completions", ask + R"(,"max_tokens":0})").body);
  EXPECT_EQ(choice_of(scored).get_string("text"), "aéb");
  EXPECT_EQ(choice_of(scored).get_string("finish_reason"), "length");
  EXPECT_EQ(choice_of(scored).find("logprobs")->find("token_logprobs")->dump(), "[null,-0.25,-0.25,-0.25]");
  EXPECT_EQ(scored.find("usage")->get_int("completion_tokens"), 0);
  // In a stream the prompt comes first, with its own.
  std::string texts, told;
  http::SseParser parser([&](std::string_view, std::string_view data) {
    if (data == "[DONE]") return;
    const Json chunk = *Json::parse(data);
    texts += choice_of(chunk).get_string("text").value_or("") + "|";
    if (const Json* own = choice_of(chunk).find("logprobs"); own != nullptr && own->is_object())
      told += own->find("token_logprobs")->dump();
  });
  parser.feed(post("/v1/completions", ask + R"(,"stream":true})").body);
  EXPECT_EQ(texts, "aéb|s|o||");
  EXPECT_EQ(told, "[null,-0.25,-0.25,-0.25][-0.5][-0.5]");
}

TEST_F(EngineServerTest, TextBecomesTokensAndBack) {
  start(kAnswer);
  EXPECT_EQ(post("/tokenize", R"({"model":"abacus","prompt":"2+2"})").body,
            R"({"count":3,"max_model_len":400,"tokens":[50,43,50],"token_strs":null})");
  const Json chat = *Json::parse(
      post("/tokenize", R"({"messages":[{"role":"user","content":"2+2?"}],"return_token_strs":true})").body);
  EXPECT_EQ(chat.get_int("count"), 21);
  EXPECT_EQ(chat.find("token_strs")->items().at(0).as_string(), "<|start|>");
  EXPECT_EQ(post("/detokenize", R"({"tokens":[50,43,50]})").body, R"({"prompt":"2+2"})");
  EXPECT_EQ(post("/detokenize", R"({"tokens":[999]})").status, 400);
  EXPECT_EQ(post("/tokenize", R"({"model":"other","prompt":"x"})").status, 404);
  EXPECT_EQ(post("/tokenize", R"({})").status, 400);
  EXPECT_THAT(get("/version").body, HasSubstr(R"({"version":")"));
  const auto embeddings = post("/v1/embeddings", R"({"model":"abacus","input":"x"})");
  EXPECT_EQ(embeddings.status, 400);
  EXPECT_THAT(embeddings.body, HasSubstr("does not give embeddings"));
}

TEST(EngineServer, AKeyIsAskedForOfEveryRouteButHealth) {
  auto server = EngineServer::start({.served_name = "m", .api_key = "a-secret-of-some-length"},
                                    [](const auto&) -> Result<ServedModel> { return fail(Code::kInvalid, "no"); });
  ASSERT_TRUE(server.has_value());
  const std::string url = fmt::format("http://127.0.0.1:{}", (*server)->port());
  http::Client client;
  const auto status = [&](std::string target, std::string authorization) {
    const auto response =
        client.request(url, {.target = std::move(target), .headers = {{"authorization", std::move(authorization)}}}, {});
    return response ? response->status : 0;
  };
  EXPECT_EQ(status("/v1/models", "Bearer wrong"), 401);
  EXPECT_EQ(status("/metrics", ""), 401);
  EXPECT_EQ(status("/v1/models", "Bearer a-secret-of-some-length"), 200);
  EXPECT_EQ(status("/health", ""), 503);
}

}  // namespace
}  // namespace capstan::engine
