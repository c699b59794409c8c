// Goal: over the real engine with random weights, what a request binds holds: schemas, grammars, calls of
// functions; and around it the frame is always harmony's. A random model says anything that it may, so it is
// the hardest judge.
#include "engine/server/structured_answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "base/file.h"
#include "engine/grammar/json_schema.h"
#include "engine/grammar/schema_validator.h"
#include "engine/server/chat_choice.h"
#include "engine/server/load_model.h"
#include "engine/testing/random_checkpoint.h"
#include "harmony/tokenizer_testing.h"
#include "http/client.h"

namespace capstan::engine {
namespace {

using ::testing::HasSubstr;
using testing::invalid_because;
using ::testing::MatchesRegex;

class StructuredAnswerTest : public ::testing::Test {
 protected:
  StructuredAnswerTest() {
    testing::RandomCheckpoint({.layers = 2, .vocab = 272}).write(directory_.path());
    EXPECT_TRUE(write_file_atomic(directory_.path() / "tokenizer.json", harmony::byte_level_json().dump()));
  }
  Result<ServedModel> load() {
    return load_served_model({.model = directory_.path(), .name = "random", .threads = 1},
                             [](const auto&) {});
  }
  void serve() {
    auto server = EngineServer::start({.served_name = "random"}, [this](const auto&) { return load(); });
    ASSERT_TRUE(server.has_value()) << server.error().message;
    server_ = std::move(*server);
    ASSERT_TRUE(server_->wait_ready().has_value());
  }
  http::Response post(const std::string& target, const std::string& body) {
    http::Client client;
    return client
        .request(fmt::format("http://127.0.0.1:{}", server_->port()),
                 {.method = "POST", .target = target, .body = body}, {})
        .value_or(http::Response{.status = 0});
  }
  http::Response chat(const std::string& more) {
    return post("/v1/chat/completions",
                R"({"model":"random","messages":[{"role":"user","content":"hi"}])" + more + "}");
  }
  // The message of the only choice.
  Json message(const std::string& more, const char* finish_reason = "stop") {
    const auto response = chat(more);
    EXPECT_EQ(response.status, 200) << response.body;
    const Json body = Json::parse(response.body).value_or(Json());
    if (!body.contains("choices")) return {};
    const Json& choice = body.find("choices")->items()[0];
    EXPECT_EQ(choice.get_string("finish_reason"), finish_reason) << response.body;
    return *choice.find("message");
  }

  testing::TemporaryDirectory directory_;
  std::unique_ptr<EngineServer> server_;
};

struct Written {
  std::vector<TokenId> tokens;
  std::optional<FinishReason> finish;
};

TEST_F(StructuredAnswerTest, ARandomModelSatisfiesAllSchemasTogetherInOneBatch) {
  const Json schemas = *Json::parse(read_file("src/engine/grammar/testdata/schemas.json").value());
  ASSERT_GE(schemas.size(), 200u);
  auto model = load();
  ASSERT_TRUE(model.has_value()) << model.error().message;
  std::mutex mutex;
  std::condition_variable done;
  std::size_t open = schemas.size();
  std::vector<Written> written(schemas.size());
  for (std::size_t i = 0; i < schemas.size(); ++i) {
    ChatRequest request;
    request.form = {.kind = AnswerForm::Kind::kJsonSchema,
                    .schema = *schemas.items()[i].find("schema"),
                    .param = "response_format"};
    const auto grammar = compile_json_schema(request.form.schema);
    ASSERT_TRUE(grammar.has_value());
    const int tokens_max = static_cast<int>((*grammar)->distance((*grammar)->root)) + 150;
    auto constraint = model->structured->chat(*model, request, static_cast<std::uint32_t>(tokens_max));
    ASSERT_TRUE(constraint.has_value()) << constraint.error().message;
    const auto id = model->source->submit({.prompt = {1, 2, 3},
                                           .sampling = {.temperature = 1.5f, .seed = i},
                                           .tokens_max = tokens_max,
                                           .stop_tokens = model->stop_tokens,
                                           .constraint = *constraint,
                                           .on_token =
                                               [&, i](const TokenEvent& event) {
                                                 const std::lock_guard lock(mutex);
                                                 if (event.token >= 0)
                                                   written[i].tokens.push_back(event.token);
                                                 if (!event.finish) return;
                                                 written[i].finish = event.finish;
                                                 if (--open == 0) done.notify_one();
                                               }});
    ASSERT_TRUE(id.has_value()) << id.error().message;
  }
  {
    std::unique_lock lock(mutex);
    done.wait(lock, [&] { return open == 0; });
  }
  for (std::size_t i = 0; i < schemas.size(); ++i) {
    const Json& item = schemas.items()[i];
    EXPECT_EQ(written[i].finish, FinishReason::kStop)
        << *item.get_string("name") << model->tokenizer.decode(written[i].tokens);
    ChatChoice choice(model->tokenizer, model->format, {}, {});
    std::string content;
    for (const TokenId token : written[i].tokens) content += choice.push(token).content;
    content += choice.finish().content;
    const auto value = Json::parse(content);
    ASSERT_TRUE(value.has_value()) << *item.get_string("name") << ": " << content;
    EXPECT_EQ(invalid_because(*item.find("schema"), *value), "")
        << *item.get_string("name") << ": " << content;
  }
}

TEST_F(StructuredAnswerTest, TextThatTheSchemaForcesIsToldToTheBatch) {
  auto model = load();
  ASSERT_TRUE(model.has_value()) << model.error().message;
  ChatRequest request;
  request.form = {.kind = AnswerForm::Kind::kJsonSchema,
                  .schema = *Json::parse(R"({"const":"nothing else"})"),
                  .param = "x"};
  for (const std::uint32_t budget : {200u, 17u}) {
    auto constraint = model->structured->chat(*model, request, budget);
    ASSERT_TRUE(constraint.has_value());
    for (const TokenId token : model->tokenizer.encode_with_specials("<|channel|>final<|message|>"))
      (*constraint)->accept(token);
    std::vector<TokenId> told;
    for (TokenId token = (*constraint)->forced(); token >= 0; token = (*constraint)->forced()) {
      told.push_back(token);
      (*constraint)->accept(token);
    }
    EXPECT_EQ(model->tokenizer.decode(told), budget == 200 ? R"("nothing else"<|return|>)" : "") << budget;
  }
}

TEST_F(StructuredAnswerTest, ResponseFormatsGrammarsAndChoicesBindTheContent) {
  serve();
  for (int seed = 0; seed < 3; ++seed) {
    const std::string common = fmt::format(R"(,"seed":{},"max_tokens":200,"temperature":1.5)", seed);
    const auto content = [&](const std::string& more) {
      return message(common + more).get_string("content").value_or("none");
    };
    const auto object = Json::parse(content(R"(,"response_format":{"type":"json_object"})"));
    EXPECT_TRUE(object.has_value() && object->is_object());
    const auto age = Json::parse(content(
        R"(,"response_format":{"type":"json_schema","json_schema":{"name":"age","strict":true,)"
        R"("schema":{"type":"object","properties":{"age":{"type":"integer","minimum":1,"maximum":99}},)"
        R"("required":["age"],"additionalProperties":false}}})"));
    ASSERT_TRUE(age.has_value());
    EXPECT_TRUE(age->get_int("age") >= 1 && age->get_int("age") <= 99) << age->dump();
    EXPECT_THAT(content(R"(,"grammar":"root ::= \"<\" [a-c]{2,4} \">\"")"),
                MatchesRegex("<[abc][abc][abc]?[abc]?>"));
    EXPECT_THAT(content(R"(,"guided_regex":"[0-9]{3}-[0-9]{2}")"),
                MatchesRegex("[0-9][0-9][0-9]-[0-9][0-9]"));
    EXPECT_THAT(content(R"(,"structured_outputs":{"choice":["yes","no"]})"), ::testing::AnyOf("yes", "no"));
    EXPECT_THAT(content(R"(,"guided_json":{"const":[1,2]})"), "[1,2]");
  }
  const auto text =
      post("/v1/completions",
           R"({"model":"random","prompt":"x","max_tokens":30,"guided_choice":["left","right"]})");
  ASSERT_EQ(text.status, 200) << text.body;
  EXPECT_THAT(text.body, ::testing::AnyOf(HasSubstr(R"("text":"left")"), HasSubstr(R"("text":"right")")));
}

constexpr const char* kTools =
    R"(,"tools":[{"type":"function","function":{"name":"weather","strict":true,"parameters":{"type":"object",)"
    R"("properties":{"city":{"type":"string","maxLength":12},"unit":{"enum":["c","f"]}},"required":["city",)"
    R"("unit"],"additionalProperties":false}}},)"
    R"({"type":"function","function":{"name":"stop"}}])";

TEST_F(StructuredAnswerTest, ARequiredCallIsOfAFunctionThatExistsWithValidArguments) {
  serve();
  bool weather = false, stop = false;
  for (int seed = 0; seed < 12; ++seed) {
    const std::string common = fmt::format(R"(,"seed":{},"max_tokens":220,"temperature":1.5)", seed);
    const Json any = message(common + kTools + R"(,"tool_choice":"required")", "tool_calls");
    const std::string wanted = seed % 2 == 0 ? "weather" : "stop";
    const Json named = message(
        common + kTools + fmt::format(R"(,"tool_choice":{{"type":"function","function":{{"name":"{}"}}}})", wanted),
        "tool_calls");
    for (const Json* from : {&any, &named}) {
      ASSERT_TRUE(from->contains("tool_calls")) << from->dump();
      ASSERT_EQ(from->find("tool_calls")->size(), 1u);
      const Json& function = *from->find("tool_calls")->items()[0].find("function");
      const auto arguments = Json::parse(*function.get_string("arguments"));
      ASSERT_TRUE(arguments.has_value()) << from->dump();
      if (from == &named) EXPECT_EQ(function.get_string("name"), wanted);
      if (function.get_string("name") == "weather") {
        weather = true;
        EXPECT_TRUE(arguments->get_string("city") && arguments->get_string("unit")) << from->dump();
      } else {
        stop = true;
        EXPECT_EQ(function.get_string("name"), "stop");
        EXPECT_EQ(arguments->dump(), "{}");
      }
    }
  }
  EXPECT_TRUE(weather) << "never chosen";
  EXPECT_TRUE(stop) << "never chosen";
}

TEST_F(StructuredAnswerTest, StrictFunctionsBindTheirArgumentsAlsoWhenTheModelMayChoose) {
  serve();
  int calls = 0;
  for (int seed = 0; seed < 25; ++seed) {
    const auto response =
        chat(fmt::format(R"(,"seed":{},"max_tokens":150,"temperature":1.5)", seed) + kTools);
    ASSERT_EQ(response.status, 200) << response.body;
    const Json choice = Json::parse(response.body)->find("choices")->items()[0];
    if (choice.get_string("finish_reason") != "tool_calls") continue;
    const Json& function = *choice.find("message")->find("tool_calls")->items()[0].find("function");
    if (function.get_string("name") != "weather") continue;
    ++calls;
    const auto arguments = Json::parse(*function.get_string("arguments"));
    ASSERT_TRUE(arguments.has_value()) << response.body;
    EXPECT_TRUE(arguments->get_string("unit") == "c" || arguments->get_string("unit") == "f");
  }
  EXPECT_GT(calls, 0);
}

// Goal: a custom tool's input is bound by its expression, whole and in pieces, and is not JSON to the client.
TEST_F(StructuredAnswerTest, ACustomToolIsCalledWithATextThatFitsItsExpression) {
  serve();
  const std::string tools =
      R"(,"tools":[{"type":"function","function":{"name":"stop"}},{"type":"custom","custom":{"name":"sum","format":)"
      R"({"type":"grammar","grammar":{"syntax":"regex","definition":"[0-9]{1,4}( [+] \"[0-9]{1,4}\"){1,3}"}}}}])"
      R"(,"tool_choice":{"type":"custom","custom":{"name":"sum"}})";
  for (int seed = 0; seed < 6; ++seed) {
    const std::string common = fmt::format(R"(,"seed":{},"max_tokens":220,"temperature":1.5)", seed) + tools;
    const Json said = message(common, "tool_calls");
    ASSERT_TRUE(said.contains("tool_calls")) << said.dump();
    const Json& call = said.find("tool_calls")->items()[0];
    EXPECT_EQ(call.get_string("type"), "custom");
    EXPECT_FALSE(call.contains("function"));
    ASSERT_TRUE(call.contains("custom")) << said.dump();
    EXPECT_EQ(call.find("custom")->get_string("name"), "sum");
    const std::string input = call.find("custom")->get_string("input").value_or("");
    EXPECT_THAT(input, MatchesRegex("[0-9]+( [+] \"[0-9]+\")+"));
    // The same in pieces.
    const auto streamed = chat(common + R"(,"stream":true)");
    std::string joined;
    for (std::size_t at = 0; (at = streamed.body.find("data: {", at)) != std::string::npos; ++at) {
      const auto chunk = Json::parse(streamed.body.substr(at + 6, streamed.body.find('\n', at) - at - 6));
      ASSERT_TRUE(chunk.has_value()) << streamed.body;
      const Json* calls = chunk->find("choices")->items()[0].find("delta")->find("tool_calls");
      if (calls != nullptr) joined += calls->items()[0].find("custom")->get_string("input").value_or("?");
    }
    EXPECT_EQ(joined, input);
  }
}

struct Wrong {
  const char* more;
  const char* param;
  const char* says;
};

TEST_F(StructuredAnswerTest, WhatCannotBeHonouredIsA400ThatNamesThePlace) {
  serve();
  for (const Wrong& wrong :
       {Wrong{R"(,"response_format":{"type":"json_schema","json_schema":{"name":"x",)"
              R"("schema":{"type":"object","properties":{"a":{"not":{"uniqueItems":true}}}}}})",
              "response_format", "/properties/a/not"},
        {R"(,"response_format":{"type":"json_schema",)"
         R"("json_schema":{"name":"x"}})",
         "response_format.json_schema.schema", "Missing"},
        {R"(,"response_format":{"type":"xml"})", "response_format.type", "'xml'"},
        {R"(,"grammar":"root ::= x")", "grammar", "'x' is used but not defined"},
        {R"x(,"guided_regex":"a(?=a)b")x", "guided_regex", "look-around"},
        {R"(,"guided_choice":[])", "guided_choice", "needs a choice"},
        {R"(,"grammar":"root ::= \"a\"","guided_choice":["a"])", "guided_choice", "give one"},
        {R"(,"tool_choice":"required")", "tool_choice", "only allowed when 'tools'"},
        {R"(,"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"function",)"
         R"("function":{"name":"g"}})",
         "tool_choice", "'g' not found"},
        {R"(,"tools":[{"type":"function","function":{"name":"f","strict":true,"parameters":{"type":"object",)"
         R"("properties":{"a":{"pattern":"\\bx"}}}}}])",
         "tools[0].function.parameters", "/properties/a/pattern"},
        {R"(,"tools":[{"type":"custom","custom":{"name":"f","format":{"type":"grammar","grammar":{"syntax":"regex",)"
         R"("definition":"\\bx"}}}}])",
         "tools[0].custom.format", "/properties/input/pattern"}}) {
    const auto response = chat(wrong.more);
    EXPECT_EQ(response.status, 400) << wrong.more << response.body;
    const Json body = Json::parse(response.body).value_or(Json());
    ASSERT_TRUE(body.contains("error")) << wrong.more;
    EXPECT_EQ(body.find("error")->get_string("param"), wrong.param) << response.body;
    EXPECT_THAT(body.find("error")->get_string("message").value_or(""), HasSubstr(wrong.says));
  }
}

}  // namespace
}  // namespace capstan::engine
