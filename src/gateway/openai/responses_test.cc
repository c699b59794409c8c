// Goal: requests of the Responses API become the chat requests that say the same, and chat answers become its
// events, in order. Method: texts in, texts out; ids are numbered.
#include <gtest/gtest.h>

#include "gateway/openai/responses_answer.h"
#include "gateway/openai/responses_error.h"
#include "gateway/openai/responses_request.h"
#include "store/secret_box.h"

namespace capstan::gateway::openai {
namespace {

const std::string kKey(32, 'k');

ItemSources sources() {
  return {[](const std::string& blob) -> std::optional<std::string> {
            auto text = store::unseal(kKey, blob, "reasoning");
            return text ? std::optional(*text) : std::nullopt;
          },
          [](const std::string& id) -> std::optional<Json> {
            if (id != "msg_known") return std::nullopt;
            return Json::object({{"type", "message"}, {"role", "assistant"}, {"content", "stored"}});
          }};
}

std::string chat(std::string_view body, const Json::Array& previous = {}) {
  const auto call = parse_responses_request(body);
  if (!call) return fmt::format("{}: {}", call.error().param, call.error().message);
  const auto chat = chat_of_responses(*call, previous, sources());
  return chat ? chat->dump() : fmt::format("{}: {}", chat.error().param, chat.error().message);
}

std::string messages(std::string_view items) {
  const std::string text = chat(fmt::format(R"({{"model":"m","input":{}}})", items));
  const auto json = Json::parse(text);
  return json ? json->find("messages")->dump() : text;
}

ResponsesAnswer answer_to(std::string_view body) {
  ResponsesContext context{
      .id = "resp_1", .created_at = 7, .new_id = {}, .close = [](const std::string& text) {
        return "<" + text + ">";
      }};
  context.new_id = [count = 0]() mutable { return std::to_string(++count); };
  return {*parse_responses_request(body), std::move(context)};
}

// One line an event: its number, type and what is not the response.
std::string text(const std::vector<Json>& events) {
  std::string out;
  for (Json event : events) {
    const std::string type = *event.get_string("type");
    const std::int64_t number = *event.get_int("sequence_number");
    event.erase("type");
    event.erase("sequence_number");
    if (const Json* response = event.find("response")) event = Json(*response->get_string("status"));
    out += fmt::format("{} {} {}\n", number, type, event.dump());
  }
  return out;
}

std::string run(ResponsesAnswer& answer, std::initializer_list<std::string_view> choices) {
  std::string out = text(answer.begin());
  for (const std::string_view choice : choices)
    out += text(answer.push(*read_chat_event(fmt::format(R"({{"choices":[{{"index":0,{}}}]}})", choice))));
  return out;
}

TEST(ResponsesRequest, ATextBecomesAMessageAndSettingsTheirChatNames) {
  EXPECT_EQ(
      chat(R"({"model":"m","input":"hi","instructions":"be brief","max_output_tokens":9,"temperature":0,
    "reasoning":{"effort":"low","summary":"auto"},"prompt_cache_key":"k","store":false,"client_metadata":{"a":"b"},
    "text":{"verbosity":"low","format":{"type":"json_schema","name":"n","strict":true,"schema":{"type":"object"}}},)"
      R"("stream":true})"),
      R"({"model":"m","messages":[{"role":"developer","content":"be brief"},{"role":"user","content":"hi"}],"verbosity":"low",)"
      R"("response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"},"strict":true}},)"
      R"("temperature":0,"prompt_cache_key":"k","max_completion_tokens":9,"reasoning_effort":"low","stream":true,)"
      R"("stream_options":{"include_usage":true}})");
}

TEST(ResponsesRequest, ToolsOfUnknownTypesAreIgnoredAndCustomOnesBecomeFunctions) {
  EXPECT_EQ(
      chat(
          R"({"model":"m","input":"hi","parallel_tool_calls":true,"tools":[{"type":"web_search"},{"type":"namespace",)"
      R"("tools":[]},
    {"type":"function","name":"f","description":"d","parameters":{"type":"object"},"strict":false},
    {"type":"custom","name":"patch"}],"tool_choice":{"type":"function","name":"f"}})"),
      R"({"model":"m","messages":[{"role":"user","content":"hi"}],"tools":[)"
      R"({"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"},"strict":false}},)"
      R"({"type":"function","function":{"name":"patch","parameters":{"type":"object","properties":{"input":{"type":"string"}},)"
      R"("required":["input"],"additionalProperties":false},"strict":true}}],"tool_choice":{"type":"function",)"
      R"("function":{"name":"f"}},)"
      R"("parallel_tool_calls":true})");
  EXPECT_EQ(
      chat(
          R"({"model":"m","input":"hi","parallel_tool_calls":true,"tools":[{"type":"web_search"}],"tool_choice":"auto"})"),
      R"({"model":"m","messages":[{"role":"user","content":"hi"}]})");
  EXPECT_EQ(
      *Json::parse(
           chat(
               R"({"model":"m","input":"hi","tools":[{"type":"function","name":"f"},{"type":"function","name":"g"}],
    "tool_choice":{"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"g"}]}})"))
           ->find("tools"),
      *Json::parse(R"([{"type":"function","function":{"name":"g"}}])"));
}

TEST(ResponsesRequest, AModelsTurnOfSeveralItemsIsOneMessage) {
  EXPECT_EQ(
      messages(
          R"([{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_text","text":"b"}]},
    {"type":"reasoning","id":"rs_1","summary":[],"content":[{"type":"reasoning_text","text":"hm"}]},
    {"type":"message","role":"assistant","content":[{"type":"output_text","text":"let me see"}]},
    {"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},{"type":"function_call","call_id":"c2",)"
      R"("name":"g","arguments":"{}"},
    {"type":"web_search_call","id":"ws"},
    {"type":"function_call_output","call_id":"c1","output":"1"},
    {"type":"function_call_output","call_id":"c2","output":[{"type":"input_text","text":"2"}]}])"),
      R"([{"role":"user","content":"a\nb"},{"role":"assistant","content":"let me see","reasoning":"hm","tool_calls":[)"
      R"({"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}},)"
      R"({"id":"c2","type":"function","function":{"name":"g","arguments":"{}"}}]},)"
      R"({"role":"tool","tool_call_id":"c1","content":"1"},{"role":"tool","tool_call_id":"c2","content":"2"}])");
}

TEST(ResponsesRequest, EncryptedReasoningIsReadBackAndNothingElseIs) {
  const std::string blob = store::seal(kKey, "secret thought", "reasoning");
  EXPECT_EQ(
      messages(fmt::format(
          R"([{{"type":"reasoning","summary":[],"encrypted_content":"{}"}},{{"role":"assistant","content":"x"}}])",
          blob)),
      R"([{"role":"assistant","content":"x","reasoning":"secret thought"}])");
  std::string changed = blob;
  changed[20] = changed[20] == 'a' ? 'b' : 'a';
  EXPECT_EQ(messages(fmt::format(R"([{{"type":"reasoning","encrypted_content":"{}"}}])", changed)),
            "input[0].encrypted_content: 'input[0].encrypted_content' was not made by this server, or was "
            "changed; leave the item out");
}

TEST(ResponsesRequest, PreviousItemsComeFirstAndReferencesAreFollowed) {
  const Json::Array previous = *input_items(Json("before"));
  EXPECT_EQ(
      Json::parse(
          chat(
              R"({"model":"m","input":[{"type":"item_reference","id":"msg_known"},{"role":"user","content":"now"}]})",
              previous))
          ->find("messages")
          ->dump(),
      R"([{"role":"user","content":"before"},{"role":"assistant","content":"stored"},{"role":"user","content":"now"}])");
  EXPECT_EQ(
      messages(R"([{"type":"item_reference","id":"gone"}])"),
      "input: Item with id 'gone' not found; items are kept with responses that are stored (store: true)");
}

TEST(ResponsesRequest, WhatIsWrongIsNamed) {
  EXPECT_EQ(chat("[]"), ": the body must be a JSON object, not array");
  EXPECT_EQ(chat(R"({"input":"x"})"), "model: 'model' is missing; name one of GET /v1/models");
  EXPECT_EQ(chat(R"({"model":"m"})"), "input: 'input' is missing");
  EXPECT_EQ(chat(R"({"model":"m","input":7})"), "input: 'input' must be a string or an array of items");
  EXPECT_EQ(chat(R"({"model":"m","input":[{"type":"web_search_call"}]})"),
            "input: 'input' holds no message that the model could read");
  EXPECT_EQ(chat(R"({"model":"m","input":[{"role":"bot","content":"x"}]})"),
            "input[0].role: 'input[0].role' must be user, assistant, system or developer, not 'bot'");
  EXPECT_EQ(chat(R"({"model":"m","input":"x","temperature":"hot"})"),
            "temperature: Invalid type for 'temperature': expected a number, but got string instead.");
  EXPECT_EQ(chat(R"({"model":"m","input":"x","prompt":{"id":"p"}})"),
            "prompt: 'prompt': this server keeps no prompts; give instructions and input");
  EXPECT_EQ(chat(R"({"model":"m","input":"x","background":true,"store":false})"),
            "background: 'background' needs 'store': true, since the answer is fetched later");
}

// Goal: param and code are OpenAI's. Method: one member each that is wrong.
TEST(ResponsesRequest, AWrongMemberHasOpenAisParamAndCode) {
  const auto refused = [](std::string_view members) {
    const auto call = parse_responses_request(fmt::format(R"({{"model":"m","input":"hi",{}}})", members));
    return call ? std::string("read") : call.error().param + " " + call.error().code;
  };
  const std::pair<std::string_view, std::string_view> cases[] = {
      {R"("temperature":3)", "temperature decimal_above_max_value"},
      {R"("max_output_tokens":0)", "max_output_tokens integer_below_min_value"},
      {R"("max_output_tokens":1.5)", "max_output_tokens invalid_type"},
      {R"("max_output_tokens":5.0)", "read"},
      {R"("top_logprobs":21)", "top_logprobs integer_above_max_value"},
      {R"("store":1)", "store invalid_type"},
      {R"("include":["x"])", "include[0] invalid_value"},
      {R"("service_tier":"gold")", "service_tier invalid_value"},
      {R"("truncation":"x")", "truncation invalid_value"},
      {R"("reasoning":{"effort":"x"})", "reasoning.effort invalid_value"},
      {R"("reasoning":{"summary":"x"})", "reasoning.summary invalid_value"},
      {R"("text":{"verbosity":"x"})", "text.verbosity invalid_value"},
      {R"("text":{"format":{"type":"json_schema","schema":{}}})",
       "text.format.name missing_required_parameter"},
      {R"("text":{"format":{"type":"json_schema","name":"n"}})",
       "text.format.schema missing_required_parameter"},
      {R"("metadata":{"a":1})", "metadata.a invalid_type"},
      {R"("tools":["x"])", "tools[0] invalid_type"},
      {R"("tools":[{}])", "tools[0].type missing_required_parameter"},
      {R"("tools":[{"type":"function","name":"a b"}])", "tools[0].name invalid_value"},
      {R"("tool_choice":"required")", "tool_choice invalid_value"},
      {R"("tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"function","name":"g"})",
       "tool_choice invalid_value"},
      {R"("tools":[{"type":"function","name":"f"}],"tool_choice":)"
       R"({"type":"allowed_tools","tools":[{"type":"function","name":"g"}]})",
       "tool_choice invalid_value"}};
  for (const auto& [members, expected] : cases) EXPECT_EQ(refused(members), expected) << members;
}

TEST(ResponsesRequest, ItemsThatModelsCouldNotReadAreRefused) {
  EXPECT_EQ(messages(R"([{"role":"user"}])"), "input[0].content: Missing required parameter: 'input[0].content'.");
  EXPECT_EQ(messages(R"([{"role":"user","content":[{"type":"input_text"}]}])"),
            "input[0].content[0].text: Missing required parameter: 'input[0].content[0].text'.");
  EXPECT_TRUE(messages(R"([{"type":"telepathy"}])").starts_with("input[0].type: Invalid value: 'telepathy'."));
  EXPECT_EQ(messages(R"([{"role":"user","content":"a"},{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"}])"),
            "input: No tool output found for function call c1.");
  EXPECT_EQ(messages(R"([{"type":"function_call_output","call_id":"c1","output":"4"}])"),
            "input: No tool call found for function call output with call_id c1.");
  EXPECT_EQ(messages("[]"), "input: Invalid 'input': an empty array; give at least one item.");
}

TEST(ResponsesError, AReplicasRefusalIsToldInTheRequestsTerms) {
  const auto told = [](std::string param, std::string message) {
    const OpenAiError error = in_responses_terms({.message = std::move(message), .param = std::move(param)});
    return error.param + ": " + error.message;
  };
  EXPECT_EQ(told("reasoning_effort", "Invalid 'reasoning_effort'"), "reasoning.effort: Invalid 'reasoning.effort'");
  EXPECT_EQ(told("messages[3].content", "Invalid 'messages[3].content'"), "input: Invalid 'input'");
  EXPECT_EQ(told("response_format.json_schema.schema", "no"), "text.format.schema: no");
  EXPECT_EQ(told("tools[0].function.name", "no"), "tools[0].name: no");
  EXPECT_EQ(told("max_completion_tokens", "no"), "max_output_tokens: no");
  EXPECT_EQ(told("temperature", "no"), "temperature: no");
  const auto answer = in_responses_terms(http::Response::json(
      400, *Json::parse(R"({"error":{"message":"too long","type":"invalid_request_error","param":"messages","code":"x"}})")));
  EXPECT_EQ(answer.body, R"({"error":{"message":"too long","type":"invalid_request_error","param":"input","code":"x"}})");
}

TEST(ResponsesAnswer, EventsComeInOrderWithNumbers) {
  auto answer = answer_to(R"({"model":"m","input":"x","include":["reasoning.encrypted_content"]})");
  std::string got = run(
      answer, {R"("delta":{"role":"assistant","content":""})", R"("delta":{"reasoning":"hm"})",
               R"("delta":{"content":"He"})", R"("delta":{"content":"y"})",
               R"("delta":{"tool_calls":[{"index":0,"id":"c1","function":{"name":"f","arguments":"{"}}]})",
               R"("delta":{"tool_calls":[{"index":0,"function":{"arguments":"}"}}]})",
               R"("delta":{},"finish_reason":"tool_calls")"});
  got += text(answer.finish());
  EXPECT_EQ(got, R"(0 response.created "in_progress"
1 response.in_progress "in_progress"
2 response.output_item.added {"output_index":0,"item":{"id":"rs_1","type":"reasoning","summary":[],"content":[],)"
      R"("encrypted_content":null,"status":"in_progress"}}
3 response.content_part.added {"item_id":"rs_1","output_index":0,"content_index":0,"part":{"type":"reasoning_text","text":""}}
4 response.reasoning_text.delta {"item_id":"rs_1","output_index":0,"content_index":0,"delta":"hm"}
5 response.reasoning_text.done {"item_id":"rs_1","output_index":0,"content_index":0,"text":"hm"}
6 response.content_part.done {"item_id":"rs_1","output_index":0,"content_index":0,"part":{"type":"reasoning_text","text":"hm"}}
7 response.output_item.done {"output_index":0,"item":{"id":"rs_1","type":"reasoning","summary":[],)"
      R"("content":[{"type":"reasoning_text","text":"hm"}],"encrypted_content":"<hm>","status":"completed"}}
8 response.output_item.added {"output_index":1,"item":{"id":"msg_2","type":"message","status":"in_progress",)"
      R"("role":"assistant","content":[]}}
9 response.content_part.added {"item_id":"msg_2","output_index":1,"content_index":0,"part":{"type":"output_text",)"
      R"("text":"","annotations":[],"logprobs":[]}}
10 response.output_text.delta {"item_id":"msg_2","output_index":1,"content_index":0,"delta":"He","logprobs":[]}
11 response.output_text.delta {"item_id":"msg_2","output_index":1,"content_index":0,"delta":"y","logprobs":[]}
12 response.output_text.done {"item_id":"msg_2","output_index":1,"content_index":0,"text":"Hey","logprobs":[]}
13 response.content_part.done {"item_id":"msg_2","output_index":1,"content_index":0,"part":{"type":"output_text",)"
      R"("text":"Hey","annotations":[],"logprobs":[]}}
14 response.output_item.done {"output_index":1,"item":{"id":"msg_2","type":"message","status":"completed",)"
      R"("role":"assistant","content":[{"type":"output_text","text":"Hey","annotations":[],"logprobs":[]}]}}
15 response.output_item.added {"output_index":2,"item":{"id":"fc_3","type":"function_call","status":"in_progress",)"
      R"("call_id":"c1","name":"f","arguments":""}}
16 response.function_call_arguments.delta {"item_id":"fc_3","output_index":2,"delta":"{"}
17 response.function_call_arguments.delta {"item_id":"fc_3","output_index":2,"delta":"}"}
18 response.function_call_arguments.done {"item_id":"fc_3","output_index":2,"arguments":"{}","name":"f"}
19 response.output_item.done {"output_index":2,"item":{"id":"fc_3","type":"function_call","status":"completed",)"
      R"("call_id":"c1","name":"f","arguments":"{}"}}
20 response.completed "completed"
)");
}

TEST(ResponsesAnswer, ParallelCallsAreItemsOneAfterAnother) {
  auto answer = answer_to(
      R"({"model":"m","input":"x","tools":[{"type":"function","name":"f"},{"type":"custom","name":"p"}]})");
  const std::string got = run(
      answer,
      {R"("delta":{"tool_calls":[{"index":0,"id":"c1","function":{"name":"f","arguments":"{\"a\":1}"}}]})",
       R"("delta":{"tool_calls":[{"index":1,"id":"c2","function":{"name":"p","arguments":"{\"input\":"}}]})",
       R"("delta":{"tool_calls":[{"index":1,"function":{"arguments":"\"x y\"}"}}]},"finish_reason":"tool_calls")"});
  EXPECT_TRUE(got.contains(R"(7 response.custom_tool_call_input.delta {"item_id":"ctc_2","output_index":1,"delta":"x y"})"))
      << got;
  EXPECT_EQ(text(answer.finish()),
            R"(8 response.custom_tool_call_input.done {"item_id":"ctc_2","output_index":1,"input":"x y"}
9 response.output_item.done {"output_index":1,"item":{"id":"ctc_2","type":"custom_tool_call","status":"completed",)"
      R"("call_id":"c2","name":"p","input":"x y"}}
10 response.completed "completed"
)");
  EXPECT_EQ(answer.response().find("output")->items()[0].get_string("arguments"), R"({"a":1})");
}

TEST(ResponsesAnswer, TheResponseRepeatsTheRequestAndCountsTokens) {
  auto answer = answer_to(
      R"({"model":"m","input":"x","metadata":{"a":"b"},"reasoning":{"effort":"low"},"top_p":0.5,"user":"u"})");
  answer.push(*read_chat_completion(
      R"({"choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"length"}],"service_tier":"flex",
    "usage":{"prompt_tokens":5,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":2},)"
      R"("completion_tokens_details":{"reasoning_tokens":1}}})"));
  answer.finish();
  EXPECT_EQ(
      answer.response().dump(),
      R"({"id":"resp_1","object":"response","created_at":7,"completed_at":null,"status":"incomplete",)"
      R"("background":false,"error":null,)"
      R"("incomplete_details":{"reason":"max_output_tokens"},"model":"m","output":[{"id":"msg_1","type":"message",)"
      R"("status":"incomplete","role":"assistant","content":[{"type":"output_text","text":"Hi","annotations":[],)"
      R"("logprobs":[]}]}],)"
      R"("usage":{"input_tokens":5,"input_tokens_details":{"cached_tokens":2,"cache_write_tokens":0},"output_tokens":3,)"
      R"("output_tokens_details":{"reasoning_tokens":1},"total_tokens":8},"instructions":null,"max_output_tokens":null,)"
      R"("max_tool_calls":null,"parallel_tool_calls":true,"previous_response_id":null,"prompt_cache_key":null,)"
      R"("reasoning":{"effort":"low","summary":null},"safety_identifier":null,"service_tier":"flex","store":true,)"
      R"("temperature":1.0,"text":{"format":{"type":"text"}},"tool_choice":"auto","tools":[],"top_logprobs":0,"top_p":0.5,)"
      R"("truncation":"disabled","user":"u","metadata":{"a":"b"}})");
}

TEST(ResponsesAnswer, AFailureInTheMiddleEndsTheResponseAsFailed) {
  auto answer = answer_to(R"({"model":"m","input":"x"})");
  run(answer, {R"("delta":{"content":"He"})"});
  EXPECT_EQ(text(answer.fail({.status = 502, .message = "the replica broke off"})),
            "5 response.failed \"failed\"\n");
  EXPECT_EQ(answer.response().find("error")->dump(),
            R"({"code":"server_error","message":"the replica broke off"})");
  EXPECT_EQ(answer.response().find("output")->items()[0].get_string("status"), "incomplete");
}

TEST(ChatDelta, BothNamesOfReasoningAndErrorsAreRead) {
  EXPECT_EQ(read_chat_event(R"({"choices":[{"delta":{"reasoning_content":"r"}}]})")->reasoning, "r");
  EXPECT_EQ(read_chat_event(R"({"choices":[{"index":1,"delta":{"content":"other"}}]})")->content, "");
  EXPECT_TRUE(read_chat_event("[DONE]")->done);
  EXPECT_EQ(read_chat_event(R"({"error":{"message":"lost","code":"replica_lost"}})").error().code,
            "replica_lost");
  EXPECT_EQ(read_chat_event("{").error().status, 502);
  EXPECT_EQ(read_chat_event("{}").error().message,
            "the replica's answer is no chat completion: it has no choices");
}

}  // namespace
}  // namespace capstan::gateway::openai
