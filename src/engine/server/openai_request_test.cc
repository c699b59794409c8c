// Goal: every wrong field is answered as OpenAI answers it (testdata/bad_requests.txt), right ones are
// understood.
#include "engine/server/openai_request.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "base/prng.h"
#include "base/text.h"

namespace capstan::engine {
namespace {

TEST(ChatRequest, WrongBodiesGetOpenAisErrors) {
  const auto golden = read_file("src/engine/server/testdata/bad_requests.txt");
  ASSERT_TRUE(golden.has_value()) << golden.error().message;
  std::string body;
  int cases = 0;
  for (const std::string_view line : split(*golden, '\n')) {
    if (line.empty() || line.starts_with('#')) continue;
    if (line.starts_with("> ")) {
      body = line.substr(2);
      continue;
    }
    ++cases;
    const auto request = parse_chat_request(body);
    ASSERT_FALSE(request.has_value()) << body;
    const ApiError& error = request.error();
    const auto or_dash = [](const std::string& text) { return text.empty() ? std::string("-") : text; };
    std::string got =
        fmt::format("{} {} {} {}", error.status, or_dash(error.param), or_dash(error.code), error.message);
    if (line.ends_with('*')) got = got.substr(0, line.size() - 1) + "*";
    EXPECT_EQ(got, line) << body;
    EXPECT_EQ(error.type, "invalid_request_error");
  }
  EXPECT_GT(cases, 30);
}

TEST(ChatRequest, ReadsEverythingItKnowsAndIgnoresTheRest) {
  const auto request = parse_chat_request(R"({
    "model": "m", "temperature": 0, "top_p": 0.5, "seed": -3, "max_tokens": 7, "max_completion_tokens": 9, "n": 2,
    "stop": "END", "stream": true, "stream_options": {"include_usage": true}, "logprobs": true, "top_logprobs": 3,
    "reasoning_effort": "minimal", "response_format": {"type": "text"}, "user": "u", "metadata": {}, "unheard_of": [1],
    "frequency_penalty": 0.5, "presence_penalty": -1, "logit_bias": {"50": -100, "7": 2.5}, "top_k": 40, "min_p": 0.1,
    "tool_choice": "auto",
    "tools": [{"type": "function", "function": {"name": "get_weather", "description": "d",)"
      R"( "parameters": {"type": "object"}, "strict": true}}],
    "messages": [
      {"role": "system", "content": "be brief"},
      {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
      {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}]},
      {"role": "tool", "tool_call_id": "call_1", "content": "20"}]})");
  ASSERT_TRUE(request.has_value()) << request.error().message;
  EXPECT_EQ(request->temperature, 0.0);
  EXPECT_EQ(request->seed, -3);
  EXPECT_EQ(request->tokens_max, 9);
  EXPECT_EQ(request->choices, 2);
  EXPECT_EQ(request->stop, std::vector<std::string>{"END"});
  EXPECT_TRUE(request->stream && request->include_usage && request->logprobs);
  EXPECT_EQ(request->effort, Effort::kLow);
  EXPECT_EQ(request->frequency_penalty, 0.5);
  EXPECT_EQ(request->presence_penalty, -1);
  EXPECT_EQ(request->top_k, 40);
  EXPECT_EQ(request->min_p, 0.1);
  EXPECT_EQ(request->logit_bias, (std::vector<std::pair<std::int64_t, double>>{{50, -100}, {7, 2.5}}));
  ASSERT_EQ(request->tools.size(), 1u);
  ASSERT_EQ(request->messages.size(), 4u);
  EXPECT_EQ(request->messages[1].content, "ab");
  EXPECT_EQ(request->messages[2].reasoning, "hm");
  EXPECT_EQ(request->messages[2].tool_calls[0].name, "get_weather");
  EXPECT_EQ(request->messages[3].tool_name, "get_weather");
}

TEST(ChatRequest, CustomToolsAreFunctionsOfOneText) {
  const auto request = parse_chat_request(R"({"model":"m","messages":[{"role":"user","content":"x"},
    {"role":"assistant","tool_calls":[{"id":"c","type":"custom","custom":{"name":"patch","input":"a \"b\""}}]},
    {"role":"tool","tool_call_id":"c","content":"done"}],
    "tools":[{"type":"custom","custom":{"name":"patch","description":"Edits.","format":{"type":"grammar",
      "grammar":{"syntax":"lark","definition":"start: /x/"}}}},
     {"type":"custom","custom":{"name":"id","format":{"type":"grammar","grammar":{"syntax":"regex","definition":"a|b"}}}},
     {"type":"custom","custom":{"name":"note"}},{"type":"function","function":{"name":"f"}}],
    "tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"required","tools":[
      {"type":"custom","custom":{"name":"patch"}},{"type":"custom","custom":{"name":"id"}},
      {"type":"function","function":{"name":"f"}}]}}})");
  ASSERT_TRUE(request.has_value()) << request.error().message;
  EXPECT_EQ(request->messages[1].tool_calls[0].arguments, R"({"input":"a \"b\""})");
  EXPECT_EQ(request->messages[2].tool_name, "patch");
  ASSERT_EQ(request->tools.size(), 3u);
  EXPECT_EQ(request->tools[0].description, "Edits.\nThe input follows this Lark grammar:\nstart: /x/");
  EXPECT_TRUE(request->tools[0].custom && request->tools[0].strict && !request->tools[2].custom);
  EXPECT_EQ(request->tools[1].parameters.dump(),
            R"({"type":"object","properties":{"input":{"type":"string","pattern":"^(?:a|b)$"}},"required":["input"],)"
            R"("additionalProperties":false})");
}

TEST(ChatRequest, ToolChoiceNoneHidesTheTools) {
  const auto request =
      parse_chat_request(R"({"model":"m","messages":[{"role":"user","content":"x"}],"tool_choice":"none",
    "tools":[{"type":"function","function":{"name":"f"}}]})");
  ASSERT_TRUE(request.has_value());
  EXPECT_TRUE(request->tools.empty());
}

TEST(ChatRequest, NullMeansAbsent) {
  const auto request = parse_chat_request(
      R"({"model":"m","messages":[{"role":"user","content":"x"}],"temperature":null,"stop":null,
    "tools":null,"stream_options":null,"response_format":null,"max_tokens":null})");
  ASSERT_TRUE(request.has_value()) << request.error().message;
  EXPECT_FALSE(request->temperature.has_value());
}

TEST(ChatRequest, AnIntegerMayBeWrittenWithAPoint) {
  const auto request = parse_chat_request(
      R"({"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":7.0,"n":2.0,"seed":9007199254740993})");
  ASSERT_TRUE(request.has_value()) << request.error().message;
  EXPECT_EQ(request->tokens_max, 7);
  EXPECT_EQ(request->choices, 2);
  EXPECT_EQ(request->seed, 9007199254740993);
}

// Goal: conversations of clients that were written before `tools` are understood.
TEST(ChatRequest, FunctionsAreToolsAndTheirCallsHaveNoIds) {
  const auto request = parse_chat_request(R"({"model":"m","messages":[{"role":"user","content":"x"},
    {"role":"assistant","content":null,"function_call":{"name":"f","arguments":"{}"}},
    {"role":"function","name":"f","content":"4"}],
    "functions":[{"name":"f","parameters":{"type":"object"}},{"name":"g"}],"function_call":{"name":"g"}})");
  ASSERT_TRUE(request.has_value()) << request.error().message;
  EXPECT_TRUE(request->legacy_functions);
  EXPECT_EQ(request->tools.size(), 2u);
  EXPECT_EQ(request->tool_named, "g");
  EXPECT_EQ(request->messages[1].tool_calls.at(0).name, "f");
  EXPECT_EQ(request->messages[2].role, ChatMessage::Role::kTool);
  EXPECT_EQ(request->messages[2].tool_name, "f");
}

TEST(ChatRequest, ARefusalIsWhatTheAssistantSaid) {
  const auto request = parse_chat_request(
      R"({"model":"m","messages":[{"role":"user","content":"x"},{"role":"assistant","content":null,"refusal":"no"}]})");
  ASSERT_TRUE(request.has_value()) << request.error().message;
  EXPECT_EQ(request->messages[1].content, "no");
}

TEST(ChatRequest, MutatedBodiesNeverCrash) {
  const std::string good =
      R"({"model":"m","messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":{"name":"f",)"
      R"("parameters":{}}}],"stop":["a"],"n":2})";
  Prng random(9);
  for (int round = 0; round < 3000; ++round) {
    std::string body = good;
    for (std::uint64_t i = 1 + random.below(4); i > 0; --i) {
      const std::size_t at = random.below(body.size());
      constexpr std::string_view kBytes = "[]{}\",:0anul";
      if (random.below(2) == 0)
        body[at] = kBytes[random.below(kBytes.size())];
      else
        body.erase(at, 1 + random.below(8));
      if (body.empty()) body = "{";
    }
    (void)parse_chat_request(body);
    (void)parse_completion_request(body);
  }
}

TEST(CompletionRequest, TakesTextOrTokensAndRefusesTheRest) {
  const auto text = parse_completion_request(R"({"model":"m","prompt":"2+2="})");
  ASSERT_TRUE(text.has_value());
  EXPECT_EQ(text->prompts.at(0).text, "2+2=");
  EXPECT_EQ(text->tokens_max, 16);
  EXPECT_EQ(parse_completion_request(R"({"model":"m","prompt":["x"]})")->prompts.at(0).text, "x");
  EXPECT_EQ(parse_completion_request(R"({"model":"m","prompt":[1,2]})")->prompts.at(0).tokens.size(), 2u);
  EXPECT_EQ(parse_completion_request(R"({"model":"m","prompt":["x","y"]})")->prompts.at(1).text, "y");
  EXPECT_EQ(parse_completion_request(R"({"model":"m","prompt":[[1],[2,3]]})")->prompts.at(1).tokens.size(),
            2u);
  const auto param = [](const char* body) { return parse_completion_request(body).error().param; };
  EXPECT_EQ(param(R"({"model":"m"})"), "prompt");
  EXPECT_EQ(param(R"({"model":"m","prompt":""})"), "prompt");
  EXPECT_EQ(param(R"({"model":"m","prompt":["a",{}]})"), "prompt[1]");
  EXPECT_EQ(param(R"({"model":"m","prompt":["a",""]})"), "prompt[1]");
  EXPECT_EQ(param(R"({"model":"m","prompt":["a","b"],"n":65})"), "prompt");
  EXPECT_EQ(param(R"({"model":"m","prompt":{}})"), "prompt");
  EXPECT_EQ(param(R"({"model":"m","prompt":"x","suffix":"y"})"), "suffix");
  EXPECT_TRUE(parse_completion_request(R"({"model":"m","prompt":"x","suffix":""})").has_value());
  EXPECT_EQ(parse_completion_request(R"({"model":"m","prompt":"x","n":2})")->best_of, 2);
  EXPECT_EQ(param(R"({"model":"m","prompt":"x","n":2,"best_of":1})"), "best_of");
  EXPECT_EQ(param(R"({"model":"m","prompt":"x","best_of":2,"stream":true})"), "best_of");
  EXPECT_EQ(parse_completion_request(R"({"model":"m","prompt":"x","logprobs":3})")->logprobs, 3);
  EXPECT_EQ(param(R"({"model":"m","prompt":"x","logprobs":6})"), "logprobs");
  EXPECT_EQ(param(R"({"model":"m","prompt":"x","max_tokens":-1})"), "max_tokens");
}

TEST(ApiError, IsOpenAisObject) {
  EXPECT_EQ(
      ApiError::missing("model").to_json().dump(),
      R"({"error":{"message":"Missing required parameter: 'model'.","type":"invalid_request_error","param":"model",)"
      R"("code":"missing_required_parameter"}})");
  EXPECT_EQ(ApiError::server("x").to_json().dump(),
            R"({"error":{"message":"x","type":"server_error","param":null,"code":"internal_error"}})");
}

}  // namespace
}  // namespace capstan::engine
