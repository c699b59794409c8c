// Goal: over a real socket, answers have OpenAI's form to the letter, streamed and whole, and nothing leaks
// when clients leave, the queue is full, or the server drains. The model is a script, so every byte expected
// is known.
#include <algorithm>
#include <atomic>

#include "engine/server/engine_server_testing.h"

namespace capstan::engine {
namespace {

using ::testing::HasSubstr;
using namespace std::chrono_literals;

constexpr const char* kFunctions = R"(,"functions":[{"name":"get_weather"}])";

TEST_F(EngineServerTest, AWholeAnswerHasReasoningContentAndExactUsage) {
  start(kAnswer);
  Json body = chat_json();
  EXPECT_THAT(*body.get_string("id"), HasSubstr("chatcmpl-"));
  EXPECT_EQ(body.get_string("object"), "chat.completion");
  EXPECT_EQ(body.get_string("model"), "abacus");
  EXPECT_EQ(
      choice_of(body).dump(),
      R"({"index":0,"message":{"role":"assistant","content":"It is 4, é.","refusal":null,"reasoning":"2+2 is 4",)"
      R"("reasoning_content":"2+2 is 4"},"logprobs":null,"finish_reason":"stop"})");
  // The prompt: <|start|>user<|message|>2+2?<|end|><|start|>assistant, a token a byte. The answer: every
  // token, the last too.
  const int prompt = 1 + 4 + 1 + 4 + 1 + 1 + 9;
  const int completion = 1 + 8 + 1 + 8 + 1 + 1 + 9 + 1 + 5 + 1 + 12 + 1;
  EXPECT_EQ(
      body.find("usage")->dump(),
      fmt::format(
          R"({{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{},)"
      R"("prompt_tokens_details":{{"cached_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":8}}}})",
          prompt, completion, prompt + completion));
}

TEST_F(EngineServerTest, AStreamHasOpenAisChunksAndJoinsToTheSameAnswer) {
  start(kAnswer);
  const auto events = chat_events(R"(,"stream_options":{"include_usage":true})");
  ASSERT_GT(events.size(), 4u);
  EXPECT_EQ(events.back(), "[DONE]");
  const Json first = *Json::parse(events.front());
  EXPECT_EQ(first.get_string("object"), "chat.completion.chunk");
  EXPECT_EQ(choice_of(first).dump(),
            R"({"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null})");
  EXPECT_TRUE(first.contains("usage") && first.find("usage")->is_null());
  const Json usage = *Json::parse(events[events.size() - 2]);
  EXPECT_EQ(usage.find("choices")->size(), 0u);
  EXPECT_EQ(usage.find("usage")->get_int("completion_tokens"), 49);
  const Json last = *Json::parse(events[events.size() - 3]);
  EXPECT_EQ(choice_of(last).dump(), R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"})");
  std::string content, reasoning, reasoning_content;
  for (std::size_t i = 0; i + 2 < events.size(); ++i) {
    const Json chunk = *Json::parse(events[i]);
    EXPECT_EQ(chunk.get_string("id"), first.get_string("id"));
    const Json& delta = *choice_of(chunk).find("delta");
    content += delta.get_string("content").value_or("");
    reasoning += delta.get_string("reasoning").value_or("");
    reasoning_content += delta.get_string("reasoning_content").value_or("");
  }
  EXPECT_EQ(content, "It is 4, é.");
  EXPECT_EQ(reasoning, "2+2 is 4");
  EXPECT_EQ(reasoning_content, reasoning);
}

TEST_F(EngineServerTest, WithoutIncludeUsageNoChunkSpeaksOfUsage) {
  start(kAnswer);
  for (const std::string& event : chat_events()) EXPECT_EQ(event.find("usage"), std::string::npos);
}

constexpr const char* kTools =
    R"(,"tools":[{"type":"function","function":{"name":"get_weather","parameters":{"type":"object",)"
      R"("properties":{"city":{"type":"string"}}}}},
        {"type":"function","function":{"name":"python"}}])";

TEST_F(EngineServerTest, AFunctionCallBecomesAToolCall) {
  start(kCall);
  const Json body = chat_json(kTools);
  const Json& message = *choice_of(body).find("message");
  EXPECT_TRUE(message.find("content")->is_null());
  const Json& call = message.find("tool_calls")->items().at(0);
  EXPECT_THAT(*call.get_string("id"), HasSubstr("call_"));
  EXPECT_EQ(call.find("function")->dump(), R"({"name":"get_weather","arguments":"{\"city\": \"SF\"}"})");
  EXPECT_EQ(choice_of(body).get_string("finish_reason"), "tool_calls");
}

TEST_F(EngineServerTest, AStreamedCallGivesIdAndNameOnceThenArguments) {
  start(kPython);
  std::string arguments, name;
  int ids = 0;
  std::string finish;
  for (const std::string& event : chat_events(kTools)) {
    if (event == "[DONE]") continue;
    const Json chunk = *Json::parse(event);
    finish = choice_of(chunk).get_string("finish_reason").value_or("");
    const Json* calls = choice_of(chunk).find("delta")->find("tool_calls");
    if (calls == nullptr) continue;
    const Json& call = calls->items().at(0);
    EXPECT_EQ(call.get_int("index"), 0);
    ids += call.contains("id") ? 1 : 0;
    name += call.find("function")->get_string("name").value_or("");
    arguments += *call.find("function")->get_string("arguments");
  }
  EXPECT_EQ(ids, 1);
  EXPECT_EQ(name, "python");
  EXPECT_EQ(arguments, R"({"code":"print(\"hi\")\n"})");
  EXPECT_EQ(finish, "tool_calls");
}

TEST_F(EngineServerTest, WhoOffersFunctionsGetsAFunctionCall) {
  start(kCall);
  const Json body = chat_json(kFunctions);
  const Json& message = *choice_of(body).find("message");
  EXPECT_EQ(message.find("function_call")->dump(), R"({"name":"get_weather","arguments":"{\"city\": \"SF\"}"})");
  EXPECT_FALSE(message.contains("tool_calls"));
  EXPECT_EQ(choice_of(body).get_string("finish_reason"), "function_call");
  std::string name, arguments, finish;
  for (const std::string& event : chat_events(kFunctions)) {
    if (event == "[DONE]") continue;
    const Json chunk = *Json::parse(event);
    finish = choice_of(chunk).get_string("finish_reason").value_or("");
    const Json* call = choice_of(chunk).find("delta")->find("function_call");
    if (call == nullptr) continue;
    name += call->get_string("name").value_or("");
    arguments += *call->get_string("arguments");
  }
  EXPECT_EQ(name, "get_weather");
  EXPECT_EQ(arguments, R"({"city": "SF"})");
  EXPECT_EQ(finish, "function_call");
}

TEST_F(EngineServerTest, TheAnswerTellsTheTierThatItWasMadeWith) {
  start(kAnswer);
  EXPECT_EQ(chat_json().get_string("service_tier"), "default");
  EXPECT_EQ(Json::parse(chat_events().front())->get_string("service_tier"), "default");
  const auto answer = client_.request(url_,
                                      {.method = "POST",
                                       .target = "/v1/chat/completions",
                                       .headers = {{"x-capstan-priority", "-1"}},
                                       .body = R"({"model":"abacus","messages":[{"role":"user","content":"x"}]})"},
                                      {});
  EXPECT_EQ(Json::parse(answer->body)->get_string("service_tier"), "flex");
  EXPECT_FALSE(post("/v1/completions", R"({"model":"abacus","prompt":"x"})").body.contains("service_tier"));
}

TEST_F(EngineServerTest, ThePromptShowsPythonAndItsResultsAsTheModelLearntThem) {
  start(kAnswer);
  const auto response =
      post("/v1/chat/completions",
           R"({"model":"abacus","tools":[{"type":"function","function":{"name":"python"}}],"messages":[
    {"role":"user","content":"q"},
    {"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"python",)"
      R"("arguments":"{\"code\":\"print(1)\"}"}}]},
    {"role":"tool","tool_call_id":"c1","content":"1"}]})");
  ASSERT_EQ(response.status, 200) << response.body;
  EXPECT_EQ(harmony::byte_level_tokenizer().decode(source_->last_request.prompt),
            "<|start|>system<|message|># Tools\n\n## python<|end|><|start|>user<|message|>q<|end|>"
            "<|start|>assistant<|channel|>analysis to=python code<|message|>print(1)<|call|>"
            "<|start|>python to=assistant<|channel|>analysis<|message|>1<|end|><|start|>assistant");
}

TEST_F(EngineServerTest, ACallThatNobodyOfferedIsNotAToolCall) {
  start(kPython);
  const Json body = chat_json();
  EXPECT_FALSE(choice_of(body).find("message")->contains("tool_calls"));
  EXPECT_EQ(choice_of(body).get_string("finish_reason"), "stop");
}

TEST_F(EngineServerTest, StopSequencesEndTheContentAndCancelTheRest) {
  start(kAnswer);
  const Json body = chat_json(R"(,"stop":["is 9"," 4,"])");
  EXPECT_EQ(choice_of(body).find("message")->get_string("content"), "It is");
  EXPECT_EQ(choice_of(body).find("message")->get_string("reasoning"), "2+2 is 4");
  EXPECT_EQ(choice_of(body).get_string("finish_reason"), "stop");
  EXPECT_EQ(source_->cancelled(), 1);
}

TEST_F(EngineServerTest, ALimitGivesFinishReasonLength) {
  start(kAnswer);
  const Json body = chat_json(R"(,"max_tokens":14)");
  EXPECT_EQ(choice_of(body).get_string("finish_reason"), "length");
  EXPECT_EQ(body.find("usage")->get_int("completion_tokens"), 14);
  EXPECT_EQ(choice_of(body).find("message")->get_string("content"), "");
}

TEST_F(EngineServerTest, SeveralChoicesAndTheirSeeds) {
  start(kAnswer);
  const Json body = chat_json(R"(,"n":3,"seed":5,"temperature":0.5)");
  ASSERT_EQ(body.find("choices")->size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(choice_of(body, i).get_int("index"), static_cast<std::int64_t>(i));
    EXPECT_EQ(choice_of(body, i).find("message")->get_string("content"), "It is 4, é.");
  }
  EXPECT_EQ(body.find("usage")->get_int("prompt_tokens"), 21);
  EXPECT_EQ(body.find("usage")->get_int("completion_tokens"), 3 * 49);
  EXPECT_FLOAT_EQ(source_->last_request.sampling.temperature, 0.5f);
}

TEST_F(EngineServerTest, TheModelsOwnSamplingHoldsWhereARequestSaysNothing) {
  start(kAnswer, 0, {.temperature = 0});
  chat_json();
  EXPECT_EQ(source_->last_request.sampling.temperature, 0);
  chat_json(R"(,"temperature":1)");
  EXPECT_EQ(source_->last_request.sampling.temperature, 1);
}

TEST_F(EngineServerTest, LogprobsCoverTheContentTokens) {
  start(kAnswer);
  const Json body = chat_json(R"(,"logprobs":true,"top_logprobs":2)");
  const Json& content = *choice_of(body).find("logprobs")->find("content");
  ASSERT_EQ(content.size(), 12u);  // "It is 4, é." in bytes
  EXPECT_EQ(
      content.items()[0].dump(),
      R"({"token":"I","logprob":-0.5,"bytes":[73],"top_logprobs":[{"token":"I","logprob":-0.5,"bytes":[73]},)"
      R"({"token":"J","logprob":-1.5,"bytes":[74]}]})");
  std::size_t streamed = 0;
  for (const std::string& event : chat_events(R"(,"logprobs":true)")) {
    if (event == "[DONE]") continue;
    const Json chunk = *Json::parse(event);
    if (const Json* logprobs = choice_of(chunk).find("logprobs"); !logprobs->is_null())
      streamed += logprobs->find("content")->size();
  }
  EXPECT_EQ(streamed, 12u);
}

TEST_F(EngineServerTest, APromptBeyondTheContextSaysBothNumbers) {
  start(kAnswer);
  auto response = chat(R"(,"max_tokens":390)");
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(Json::parse(response.body)->find("error")->get_string("code"), "context_length_exceeded");
  EXPECT_THAT(response.body, HasSubstr("maximum context length is 400 tokens. However, you requested 411 "
                                       "tokens (21 in the messages, 390 in the completion)"));
  response = chat("", std::string(500, 'x'));
  EXPECT_EQ(response.status, 400);
  EXPECT_THAT(response.body, HasSubstr("400 tokens. However, your messages resulted in 517 tokens"));
}

TEST_F(EngineServerTest, OtherModelsAndPathsAreNotFound) {
  start(kAnswer);
  const auto response =
      post("/v1/chat/completions", R"({"model":"gpt-4o","messages":[{"role":"user","content":"x"}]})");
  EXPECT_EQ(response.status, 404);
  EXPECT_EQ(Json::parse(response.body)->find("error")->get_string("code"), "model_not_found");
  EXPECT_EQ(get("/v1/nothing").status, 404);
  EXPECT_EQ(get("/v1/chat/completions").status, 405);
  EXPECT_EQ(get("/v1/models/other").status, 404);
}

TEST_F(EngineServerTest, AFullQueueIsA429WithRetryAfter) {
  start(kAnswer);
  source_->full = true;
  const auto response = chat();
  EXPECT_EQ(response.status, 429);
  EXPECT_EQ(response.headers.get("retry-after"), "1");
  EXPECT_EQ(response.headers.get("retry-after-ms"), "1000");
  EXPECT_EQ(Json::parse(response.body)->find("error")->get_string("type"), "rate_limit_error");
}

TEST_F(EngineServerTest, AClientThatLeavesEndsItsGenerations) {
  start(kAnswer, 20);
  const auto result = client_.stream(
      url_,
      {.method = "POST",
       .target = "/v1/chat/completions",
       .body = R"({"model":"abacus","stream":true,"n":2,"messages":[{"role":"user","content":"x"}]})"},
      {}, [](const http::Response&) { return true; }, [](std::string_view) { return false; });
  EXPECT_FALSE(result.has_value());
  for (int i = 0; i < 300 && source_->cancelled() < 2; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(source_->cancelled(), 2);
}

TEST_F(EngineServerTest, DrainingLetsAnswersEndAndRefusesNewOnes) {
  start(kAnswer, 10);
  http::Response slow;
  std::thread running([&] {
    http::Client own;
    slow = own.request(url_,
                       {.method = "POST",
                        .target = "/v1/chat/completions",
                        .body = R"({"model":"abacus","messages":[{"role":"user","content":"x"}]})"},
                       {})
               .value_or(http::Response{.status = 0});
  });
  for (int i = 0; i < 1000 && source_->submitted() == 0; ++i) std::this_thread::sleep_for(5ms);
  server_->drain(10'000);
  running.join();
  EXPECT_EQ(slow.status, 200) << slow.body;
  EXPECT_THAT(slow.body, HasSubstr("It is 4"));
}

TEST_F(EngineServerTest, AllowedToolsLeaveTheOthersOut) {
  start(kCall);
  const std::string tools =
      R"(,"tools":[{"type":"function","function":{"name":"get_weather"}},{"type":"function","function":{"name":"other"}}])";
  const std::string choice =
      R"(,"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"auto",)"
      R"("tools":[{"type":"function","function":{"name":"NAME"}}]}})";
  const auto with = [&](std::string name) {
    return tools + std::string(choice).replace(choice.find("NAME"), 4, name);
  };
  chat_json(with("get_weather"));
  const std::string prompt = harmony::byte_level_tokenizer().decode(source_->last_request.prompt);
  EXPECT_THAT(prompt, HasSubstr("get_weather"));
  EXPECT_THAT(prompt, ::testing::Not(HasSubstr("other")));
  EXPECT_EQ(chat(with("none")).status, 400);
}

TEST_F(EngineServerTest, SamplingFieldsReachTheEngine) {
  start(kAnswer);
  chat_json(R"(,"frequency_penalty":0.5,"presence_penalty":-1,"logit_bias":{"7":-100},"top_k":3,"min_p":0.25)");
  const Sampling& sampling = source_->last_request.sampling;
  EXPECT_EQ(sampling.frequency_penalty, 0.5f);
  EXPECT_EQ(sampling.presence_penalty, -1.0f);
  EXPECT_EQ(sampling.logit_bias, (std::vector<std::pair<TokenId, float>>{{7, -100.0f}}));
  EXPECT_EQ(sampling.top_k, 3);
  EXPECT_EQ(sampling.min_p, 0.25f);
}

TEST_F(EngineServerTest, HealthModelsAndMetricsTellTheState) {
  start(kAnswer);
  EXPECT_EQ(get("/health").status, 200);
  EXPECT_THAT(
      get("/v1/models").body,
      HasSubstr(R"({"id":"abacus","object":"model","created":1,"owned_by":"capstan","max_model_len":400})"));
  chat_json();
  chat("", std::string(500, 'x'));
  const std::string metrics = get("/metrics").body;
  for (const char* line :
       {"vllm:time_to_first_token_seconds_count{model_name=\"abacus\"} 1",
        "vllm:generation_tokens_total{model_name=\"abacus\"} 49",
        "vllm:prompt_tokens_total{model_name=\"abacus\"} 21",
        "vllm:inter_token_latency_seconds_count{model_name=\"abacus\"} 48",
        "vllm:time_per_output_token_seconds_count{model_name=\"abacus\"} 48",
        "vllm:request_decode_time_seconds_count{model_name=\"abacus\"} 1",
        "vllm:request_queue_time_seconds_count{model_name=\"abacus\"} 1",
        "vllm:request_prefill_time_seconds_count{model_name=\"abacus\"} 1",
        "vllm:request_inference_time_seconds_count{model_name=\"abacus\"} 1",
        "vllm:request_prefill_kv_computed_tokens_sum{model_name=\"abacus\"} 21",
        "vllm:request_max_num_generation_tokens_sum{model_name=\"abacus\"} 49",
        "vllm:gpu_cache_usage_perc{model_name=\"abacus\"} 0.25",
        "vllm:prefix_cache_queries_total{model_name=\"abacus\"} 40",
        "vllm:prefix_cache_hits_total{model_name=\"abacus\"} 30",
        "vllm:kv_cache_usage_perc{model_name=\"abacus\"} 0.25",
        "vllm:num_preemptions_total{model_name=\"abacus\"} 2",
        "vllm:request_params_n_sum{model_name=\"abacus\"} 1", "finished_reason=\"stop\"",
        "capstan_engine_http_responses_total{path=\"/v1/chat/completions\",status=\"400\"} 1"}) {
    EXPECT_THAT(metrics, HasSubstr(line));
  }
}

TEST_F(EngineServerTest, AForeignOriginIsRefused) {
  start(kAnswer);
  const auto response =
      client_.request(url_, {.target = "/v1/models", .headers = {{"origin", "https://evil.example"}}}, {});
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->status, 403);
}

TEST(EngineServer, WhileLoadingHealthAndRequestsAre503AndSayWhy) {
  std::atomic<bool> go = false;
  auto server = EngineServer::start({.served_name = "m"},
                                    [&](const EngineServer::Progress& progress) -> Result<ServedModel> {
                                      progress({"mapping the weights", 43, 100});
                                      while (!go) std::this_thread::sleep_for(5ms);
                                      return fail(Code::kCorrupt, "model.safetensors is cut off");
                                    });
  ASSERT_TRUE(server.has_value());
  const std::string url = fmt::format("http://127.0.0.1:{}", (*server)->port());
  http::Client client;
  std::string body;
  for (int i = 0; i < 200 && body.find("weights") == std::string::npos; ++i) {
    std::this_thread::sleep_for(5ms);
    const auto health = client.request(url, {.target = "/health"}, {});
    ASSERT_EQ(health->status, 503);
    body = health->body;
  }
  EXPECT_THAT(body, HasSubstr(R"("status":"loading","stage":"mapping the weights")"));
  EXPECT_THAT(body, HasSubstr(R"("message":"loading 43 %","percent":43,"done_bytes":43,"total_bytes":100)"));
  const auto chat =
      client.request(url, {.method = "POST", .target = "/v1/chat/completions", .body = "{}"}, {});
  EXPECT_EQ(chat->status, 503);
  EXPECT_EQ(chat->headers.get("retry-after-ms"), "1000");
  go = true;
  const auto ready = (*server)->wait_ready();
  ASSERT_FALSE(ready.has_value());
  EXPECT_THAT(client.request(url, {.target = "/health"}, {})->body,
              HasSubstr("model.safetensors is cut off"));
}

TEST(EngineServer, AHostThatIsNotLoopbackIsRefusedWithWhatWouldBeRight) {
  const auto server =
      EngineServer::start({.host = "0.0.0.0", .served_name = "m"},
                          [](const auto&) -> Result<ServedModel> { return fail(Code::kInvalid, ""); });
  ASSERT_FALSE(server.has_value());
  EXPECT_THAT(server.error().message, HasSubstr("--host 127.0.0.1"));
}

}  // namespace
}  // namespace capstan::engine
