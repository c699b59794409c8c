// Goal: Converse requests become the chat requests that say the same, and chat answers become Converse's
// events and objects. Method: texts in, texts out.
#include <gtest/gtest.h>

#include "gateway/bedrock/converse_answer.h"
#include "gateway/bedrock/converse_request.h"

namespace capstan::gateway::bedrock {
namespace {

std::string chat(std::string_view body, bool stream = false) {
  auto call = chat_of_converse("m", body, stream);
  return call ? call->chat.dump() : "error: " + call.error().message;
}

// A request of one user message with `more` members.
std::string with(std::string_view more) {
  return fmt::format(R"({{"messages":[{{"role":"user","content":[{{"text":"hi"}}]}}],{}}})", more);
}

openai::ChatDelta delta(std::string_view json) { return *openai::read_chat_event(json); }

// One line an event.
std::string text(const std::vector<ConverseEvent>& events) {
  std::string out;
  for (const ConverseEvent& event : events) out += fmt::format("{} {}\n", event.type, event.payload.dump());
  return out;
}

TEST(ConverseRequest, TextSystemAndSettings) {
  EXPECT_EQ(
      chat(R"({"system":[{"text":"be brief"},{"cachePoint":{"type":"default"}},{"text":"and kind"}],
    "messages":[{"role":"user","content":[{"text":"hi"},{"cachePoint":{"type":"default"}}]}],
    "inferenceConfig":{"maxTokens":5,"temperature":0.5,"topP":0.9,"stopSequences":["x"]},
    "serviceTier":{"type":"priority"},"additionalModelRequestFields":{"reasoning_effort":"high"}})",
           true),
      R"({"model":"m","messages":[{"role":"system","content":"be brief\n\nand kind"},{"role":"user","content":"hi"}],)"
      R"("reasoning_effort":"high","max_completion_tokens":5,"temperature":0.5,"top_p":0.9,"stop":["x"],)"
      R"("service_tier":"priority","stream":true,"stream_options":{"include_usage":true}})");
}

TEST(ConverseRequest, ToolUseReasoningAndResults) {
  EXPECT_EQ(
      chat(R"({"messages":[
      {"role":"user","content":[{"text":"what is 2+2?"}]},
      {"role":"assistant","content":[{"reasoningContent":{"reasoningText":{"text":"a tool","signature":"s"}}},
        {"text":"let me see"},{"toolUse":{"toolUseId":"t1","name":"sum","input":{"a":2,"b":2}}}]},
      {"role":"user","content":[{"toolResult":{"toolUseId":"t1","status":"error","content":[{"text":"no"},{"json":{"n":4}}]}},
        {"text":"go on"}]}],
    "toolConfig":{"tools":[{"toolSpec":{"name":"sum","description":"adds","inputSchema":{"json":{"type":"object"}},)"
      R"("strict":true}}],
      "toolChoice":{"any":{}}}})"),
      R"({"model":"m","messages":[{"role":"user","content":"what is 2+2?"},)"
      R"({"role":"assistant","content":"let me see","reasoning":"a tool","tool_calls":[{"id":"t1","type":"function",)"
      R"("function":{"name":"sum","arguments":"{\"a\":2,\"b\":2}"}}]},)"
      R"({"role":"tool","tool_call_id":"t1","content":"error: no\n{\"n\":4}"},{"role":"user","content":"go on"}],)"
      R"("tools":[{"type":"function","function":{"name":"sum","description":"adds","parameters":{"type":"object"},)"
      R"("strict":true}}],"tool_choice":"required"})");
}

TEST(ConverseRequest, ImagesAndTextDocumentsBecomeParts) {
  EXPECT_EQ(
      chat(R"({"messages":[{"role":"user","content":[{"image":{"format":"png","source":{"bytes":"iVBO"}}},
    {"document":{"name":"notes","format":"txt","source":{"bytes":"aGVsbG8="}}}]}]})"),
      R"({"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":)"
      R"({"url":"data:image/png;base64,iVBO"}},{"type":"text","text":"Document 'notes':\nhello"}]}]})");
}

TEST(ConverseRequest, ASchemaGivenAsTextBecomesResponseFormat) {
  const std::string body = with(
      R"("outputConfig":{"effort":"low","textFormat":{"type":"json_schema","structure":{"jsonSchema":{"name":"n",)"
      R"("schema":"{\"type\":\"object\"}"}}}})");
  EXPECT_EQ(Json::parse(chat(body))->find("response_format")->dump(),
            R"({"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":{"type":"object"}}})");
  EXPECT_EQ(Json::parse(chat(body))->get_string("reasoning_effort"), "low");
}

TEST(ConverseRequest, WhatIsWrongIsNamed) {
  EXPECT_EQ(chat("[]"), "error: the body must be a JSON object, not array");
  EXPECT_EQ(chat("{}"), "error: messages must hold at least one message");
  EXPECT_EQ(chat(R"({"messages":[]})"), "error: messages must hold at least one message");
  EXPECT_EQ(chat(R"({"messages":[{"role":"tool","content":[]}]})"),
            "error: 1 validation error detected: Value at 'messages.0.role' failed to satisfy constraint: Member must satisfy "
            "enum value set: [user, assistant, system]");
  EXPECT_EQ(chat(R"({"messages":[{"role":"user","content":"hi"}]})"),
            "error: 1 validation error detected: Value at 'messages.0.content' must be an array, not string");
  EXPECT_EQ(chat(R"({"messages":[{"role":"user","content":[{"text":"a","image":{}}]}]})"),
            "error: 1 validation error detected: Value at 'messages.0.content.0' failed to satisfy constraint: Member must have "
            "exactly one of its members set, not 2");
  EXPECT_EQ(chat(R"({"messages":[{"role":"user","content":[{"video":{}}]}]})"),
            "error: messages.0.content.0: a user's message may hold text, images, documents of text, searchResult "
            "and toolResult, not 'video'");
  EXPECT_EQ(chat(with(R"("guardrailConfig":{"guardrailIdentifier":"g"})")),
            "error: guardrailConfig: there are no guardrails on this server; leave it out");
  EXPECT_EQ(
      chat(with(R"("additionalModelRequestFields":{"messages":[]})")),
      "error: additionalModelRequestFields may not hold 'messages': the request has its own field for it");
}

// Goal: the limits of the service model hold. Method: a member a line that is just outside, and the constraint it breaks.
TEST(ConverseRequest, TheServiceModelsLimitsHold) {
  const std::string long_name(65, 'a');
  const auto tool = [](std::string_view spec) { return fmt::format(R"("toolConfig":{{"tools":[{{"toolSpec":{}}}]}})", spec); };
  const std::pair<std::string, std::string_view> cases[] = {
      {R"("inferenceConfig":{"topP":2})",
       "'inferenceConfig.topP' failed to satisfy constraint: Member must have value less than or equal to 1"},
      {R"("inferenceConfig":{"temperature":1.5})", "Member must have value less than or equal to 1"},
      {R"("inferenceConfig":{"maxTokens":0})", "Member must have value greater than or equal to 1"},
      {R"("inferenceConfig":{"maxTokens":1.5})", "must be an integer, not number"},
      {R"("inferenceConfig":{"maxTokens":"5"})", "must be a number, not string"},
      {R"("inferenceConfig":{"stopSequences":[""]})", "'inferenceConfig.stopSequences.0'"},
      {R"("serviceTier":{"type":"gold"})", "enum value set: [priority, default, flex, reserved]"},
      {R"("serviceTier":{})", "'serviceTier.type' failed to satisfy constraint: Member must not be null"},
      {R"("performanceConfig":{"latency":"fast"})", "enum value set: [standard, optimized]"},
      {R"("requestMetadata":{})", "Member must have length greater than or equal to 1"},
      {R"("requestMetadata":{"a":1})", "'requestMetadata.a' must be a string"},
      {R"("system":[{"text":""}])", "'system.0.text'"},
      {R"("system":[{"cachePoint":{"type":"x"}}])", "'system.0.cachePoint.type'"},
      {R"("toolConfig":{"tools":[]})", "'toolConfig.tools'"},
      {R"("toolConfig":{"tools":[{"x":{}}]})", "Member must be one of [toolSpec, systemTool, cachePoint], not 'x'"},
      {tool(fmt::format(R"({{"name":"{}","inputSchema":{{"json":{{}}}}}})", long_name)), "length less than or equal to 64"},
      {tool(R"({"name":"a b","inputSchema":{"json":{}}})"), "regular expression pattern: [a-zA-Z0-9_-]+"},
      {tool(R"({"name":"a","description":"","inputSchema":{"json":{}}})"), "'toolConfig.tools.0.toolSpec.description'"},
      {R"("additionalModelResponseFieldPaths":["/a","/a","/a","/a","/a","/a","/a","/a","/a","/a","/a"])",
       "length less than or equal to 10"}};
  for (const auto& [member, told] : cases)
    EXPECT_TRUE(chat(with(member)).contains(told)) << member << " got " << chat(with(member));
  const std::string image = R"({"messages":[{"role":"user","content":[{"image":{"format":"png","source":{"bytes":"!!"}}}]}]})";
  EXPECT_TRUE(chat(image).contains("must be bytes in base64")) << chat(image);
}

TEST(ConverseRequest, NullIsAsAbsentAndWholeFloatsAreIntegers) {
  EXPECT_EQ(chat(R"({"messages":[{"role":"user","content":[{"text":"hi","image":null}]}],"system":null,"toolConfig":null,
    "inferenceConfig":{"maxTokens":5.0,"topP":null},"serviceTier":null,"additionalModelResponseFieldPaths":null})"),
            R"({"model":"m","messages":[{"role":"user","content":"hi"}],"max_completion_tokens":5})");
}

// Goal: a conversation that Bedrock refuses is refused in its words. Method: messages, and a piece of the answer.
TEST(ConverseRequest, TurnsAlternateAndToolsAreAnswered) {
  const auto of = [](std::string_view messages,
                     std::string_view more = R"(,"toolConfig":{"tools":[{"cachePoint":{"type":"default"}}]})") {
    return chat(fmt::format(R"({{"messages":[{}]{}}})", messages, more));
  };
  const std::string user = R"({"role":"user","content":[{"text":"hi"}]})";
  const std::string use = R"({"role":"assistant","content":[{"toolUse":{"toolUseId":"t1","name":"f","input":{}}}]})";
  const std::string result = R"({"role":"user","content":[{"toolResult":{"toolUseId":"t1","content":[{"text":"4"}]}}]})";
  EXPECT_TRUE(of(use).contains("must start with a user message"));
  EXPECT_TRUE(of(user + "," + user).contains("must alternate"));
  EXPECT_TRUE(of(R"({"role":"user","content":[]})").contains("messages.0 is empty"));
  EXPECT_TRUE(of(R"({"role":"user","content":[{"text":" "}]})").contains("messages.0.content.0 is blank"));
  const std::string unanswered = "Expected toolResult blocks at messages.2.content for the following Ids: t1";
  EXPECT_TRUE(of(user + "," + use + "," + user).contains(unanswered));
  EXPECT_TRUE(of(user + "," + use).contains(unanswered));
  EXPECT_TRUE(of(result).contains("exceeds the number of toolUse blocks of previous turn"));
  EXPECT_TRUE(of(user + "," + use + "," + result, "").contains("toolConfig field must be defined"));
  EXPECT_FALSE(of(user + "," + use + "," + result).starts_with("error")) << of(user + "," + use + "," + result);
}

TEST(ConverseRequest, OtherBlocksOfTextAndSystemMessagesAreRead) {
  EXPECT_EQ(chat(R"({"messages":[{"role":"system","content":[{"text":"be kind"}]},{"role":"user","content":[
    {"searchResult":{"source":"s","title":"t","content":[{"text":"a"},{"text":"b"}]}},
    {"document":{"name":"d","context":"c","source":{"content":[{"text":"x"},{"text":"y"}]}}},
    {"guardContent":{"text":{"text":"g"}}}]},
    {"role":"assistant","content":[{"citationsContent":{"content":[{"text":"said"}],"citations":[]}}]},
    {"role":"user","content":[{"text":"q"}]}]})"),
            R"({"model":"m","messages":[{"role":"system","content":"be kind"},{"role":"user","content":[)"
            R"({"type":"text","text":"Search result 't' (s):\na\nb"},{"type":"text","text":"Document 'd':\nc\nx\ny"},)"
            R"({"type":"text","text":"g"}]},{"role":"assistant","content":"said"},{"role":"user","content":"q"}]})");
}

TEST(ConverseAnswer, AStreamHasItsBlocksInOrder) {
  ConverseAnswer answer(*chat_of_converse("m", with(R"("serviceTier":{"type":"flex"})"), true));
  std::string got;
  for (
      const std::string_view json :
      {R"({"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]})",
       R"({"choices":[{"index":0,"delta":{"reasoning":"hm","reasoning_content":"hm"}}]})",
       R"({"choices":[{"index":0,"delta":{"content":"Hel"}}]})",
       R"({"choices":[{"index":0,"delta":{"content":"lo"}}]})",
       R"({"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c1","function":{"name":"f","arguments":"{\"a"}}]}}]})",
       R"({"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\":1}"}}]}}]})",
       R"({"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"c2","function":{"name":"g","arguments":"{}"}}]}}]})",
       R"({"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]})",
       R"({"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":6}}})"})
    got += text(answer.push(delta(json)));
  EXPECT_TRUE(answer.ended());
  got += text(answer.finish(7));
  EXPECT_EQ(got, R"(messageStart {"role":"assistant"}
contentBlockDelta {"contentBlockIndex":0,"delta":{"reasoningContent":{"text":"hm"}}}
contentBlockStop {"contentBlockIndex":0}
contentBlockDelta {"contentBlockIndex":1,"delta":{"text":"Hel"}}
contentBlockDelta {"contentBlockIndex":1,"delta":{"text":"lo"}}
contentBlockStop {"contentBlockIndex":1}
contentBlockStart {"contentBlockIndex":2,"start":{"toolUse":{"toolUseId":"c1","name":"f"}}}
contentBlockDelta {"contentBlockIndex":2,"delta":{"toolUse":{"input":"{\"a"}}}
contentBlockDelta {"contentBlockIndex":2,"delta":{"toolUse":{"input":"\":1}"}}}
contentBlockStop {"contentBlockIndex":2}
contentBlockStart {"contentBlockIndex":3,"start":{"toolUse":{"toolUseId":"c2","name":"g"}}}
contentBlockDelta {"contentBlockIndex":3,"delta":{"toolUse":{"input":"{}"}}}
contentBlockStop {"contentBlockIndex":3}
messageStop {"stopReason":"tool_use"}
metadata {"usage":{"inputTokens":4,"outputTokens":4,"totalTokens":14,"cacheReadInputTokens":6,)"
      R"("cacheWriteInputTokens":0},"metrics":{"latencyMs":7},"serviceTier":{"type":"flex"}}
)");
}

TEST(ConverseAnswer, AWholeAnswerIsOneObject) {
  const std::string completion =
      R"({"choices":[{"index":0,"message":{"role":"assistant","content":"Hi","reasoning":"hm","tool_calls":[{"id":"c",)"
      R"("type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},"finish_reason":"tool_calls"}],)"
      R"("usage":{"prompt_tokens":3,"completion_tokens":2}})";
  ConverseAnswer answer(*chat_of_converse(
      "m",
      with(
          R"("additionalModelResponseFieldPaths":["/choices/0/index","/absent"],"performanceConfig":{"latency":"standard"})"),
      false));
  answer.push(*openai::read_chat_completion(completion));
  EXPECT_EQ(
      answer.whole(9, *Json::parse(completion)).dump(),
      R"({"output":{"message":{"role":"assistant","content":[{"reasoningContent":{"reasoningText":{"text":"hm"}}},)"
      R"({"text":"Hi"},{"toolUse":{"toolUseId":"c","name":"f","input":{"a":1}}}]}},"stopReason":"tool_use",)"
      R"("usage":{"inputTokens":3,"outputTokens":2,"totalTokens":5,"cacheReadInputTokens":0,"cacheWriteInputTokens":0},)"
      R"("metrics":{"latencyMs":9},"performanceConfig":{"latency":"standard"},"additionalModelResponseFields":{"index":0}})");
}

TEST(ConverseAnswer, ReasonsToStop) {
  const auto reason = [](std::string_view finish) {
    ConverseAnswer answer({});
    answer.push(delta(fmt::format(
        R"({{"choices":[{{"index":0,"delta":{{"content":"x"}},"finish_reason":{}}}]}})", finish)));
    return *answer.whole(0, {}).get_string("stopReason");
  };
  EXPECT_EQ(reason(R"("stop")"), "end_turn");
  EXPECT_EQ(reason(R"("stop","stop_reason":"END")"), "stop_sequence");
  EXPECT_EQ(reason(R"("length")"), "max_tokens");
  EXPECT_EQ(reason(R"("content_filter")"), "content_filtered");
  ConverseAnswer broken({});
  broken.push(delta(
      R"({"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f",)"
      R"("arguments":"{\"a"}}]},"finish_reason":"tool_calls"}]})"));
  EXPECT_EQ(*broken.whole(0, {}).get_string("stopReason"), "malformed_tool_use");
}

}  // namespace
}  // namespace capstan::gateway::bedrock
