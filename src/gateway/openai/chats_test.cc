// Stored chat completions: between real sockets over the scripted replica, and chunks put together.
#include "gateway/openai/chat_chunks.h"
#include "gateway/openai/openai_testing.h"

namespace capstan::gateway::openai {
namespace {

class ChatsTest : public OpenAiTest {
 protected:
  // The replica of OpenAiTest gives its completions no ids; this one counts them.
  void SetUp() override {
    OpenAiTest::SetUp();
    counted_.add("POST", "/v1/chat/completions", [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
      answer(*Json::parse(request.body), writer);
    });
    counting_ = std::move(http::Server::start({}, counted_.handler()).value());
    directory_.list = {{"b-1", "m", fmt::format("http://127.0.0.1:{}", counting_->port()), true},
                       {"c-1", "other", fmt::format("http://127.0.0.1:{}", counting_->port()), true}};
  }

  void answer(const Json& body, const http::ResponseWriterPtr& writer) {
    const std::string id = fmt::format("chatcmpl-{}", ++made_);
    const std::string head = fmt::format(R"("id":"{}","created":17{},"model":"{}")", id, made_.load(), *body.get_string("model"));
    if (!body.get_bool("stream").value_or(false)) {
      return writer->respond(http::Response::json(
          200, *Json::parse(fmt::format(R"({{{},"object":"chat.completion","choices":[{{"index":0,"message":{{"role":)"
                                        R"("assistant","content":"hi"}},"finish_reason":"stop"}}]}})",
                                        head))));
    }
    writer->start(200, {{"content-type", "text/event-stream"}});
    for (const char* choice :
         {R"({"index":0,"delta":{"role":"assistant","content":""}})", R"({"index":0,"delta":{"content":"h"}})",
          R"({"index":0,"delta":{"content":"i"}})", R"({"index":0,"delta":{},"finish_reason":"stop"})"})
      writer->write(http::sse_event(fmt::format(R"({{{},"object":"chat.completion.chunk","choices":[{}]}})", head, choice)));
    writer->write(http::sse_event("[DONE]"));
    writer->finish();
  }

  std::string chat(const std::string& more, const std::string& model = "m") {
    const std::string body = fmt::format(R"({{"model":"{}","messages":[{{"role":"user","content":"hello"}}]{}}})", model, more);
    const http::Response response = send("POST", "/v1/chat/completions", body);
    EXPECT_EQ(response.status, 200) << response.body;
    return fmt::format("chatcmpl-{}", made_.load());
  }
  std::string ids(const std::string& query) {
    std::string all;
    const Json page = get("/v1/chat/completions" + query);
    const Json* data = page.find("data");
    if (data == nullptr) return page.dump();
    for (const Json& each : data->items()) all += id_of(each).substr(9) + " ";
    return all + (page.get_bool("has_more").value_or(false) ? "…" : ".");
  }

  std::atomic<int> made_{0};
  http::Router counted_;
  std::unique_ptr<http::Server> counting_;
};

TEST_F(ChatsTest, OnlyWhatSaysStoreIsKeptStreamedOrNot) {
  const std::string plain = chat("");
  const std::string kept = chat(R"(,"store":true,"metadata":{"a":"b"},"temperature":0.5,"user":"u")");
  const std::string streamed = chat(R"(,"store":true,"stream":true)");
  EXPECT_EQ(send("GET", "/v1/chat/completions/" + plain).status, 404);
  EXPECT_EQ(ids(""), "2 3 .");
  const Json found = get("/v1/chat/completions/" + kept);
  EXPECT_EQ(found.get_string("object"), "chat.completion");
  EXPECT_EQ(found.find("metadata")->dump(), R"({"a":"b"})");
  EXPECT_EQ(found.find("temperature")->as_double(), 0.5);
  EXPECT_EQ(found.find("top_p")->as_double(), 1);
  EXPECT_EQ(found.get_string("input_user"), "u");
  EXPECT_TRUE(found.get_string("request_id").has_value());
  const Json joined = get("/v1/chat/completions/" + streamed);
  EXPECT_EQ(joined.find("choices")->dump(),
            R"([{"index":0,"message":{"role":"assistant","content":"hi"},"logprobs":null,"finish_reason":"stop"}])");
  EXPECT_EQ(joined.get_string("object"), "chat.completion");
  EXPECT_EQ(get("/v1/chat/completions/" + kept + "/messages").dump(),
            R"({"object":"list","data":[{"id":"chatcmpl-2-0","role":"user","content":"hello","name":null,"content_parts":null}],)"
            R"("first_id":"chatcmpl-2-0","last_id":"chatcmpl-2-0","has_more":false})");
}

TEST_F(ChatsTest, AListHasPagesAndFilters) {
  for (int i = 0; i < 4; ++i) chat(fmt::format(R"(,"store":true,"metadata":{{"even":"{}"}})", i % 2));
  chat(R"(,"store":true)", "other");
  EXPECT_EQ(ids(""), "1 2 3 4 5 .");
  EXPECT_EQ(ids("?order=desc&limit=2"), "5 4 …");
  EXPECT_EQ(ids("?order=desc&after=chatcmpl-4"), "3 2 1 .");
  EXPECT_EQ(ids("?limit=2&after=chatcmpl-3"), "4 5 .");
  EXPECT_EQ(ids("?metadata%5Beven%5D=1"), "2 4 .");
  EXPECT_EQ(ids("?metadata[even]=1&limit=1"), "2 …");
  EXPECT_EQ(ids("?model=other"), "5 .");
  EXPECT_EQ(send("GET", "/v1/chat/completions?after=chatcmpl-9").status, 404);
  EXPECT_EQ(send("GET", "/v1/chat/completions?limit=101").status, 400);
}

TEST_F(ChatsTest, MetadataChangeAndWhatIsDeletedIsGoneForItsProjectAlone) {
  const std::string id = "/v1/chat/completions/" + chat(R"(,"store":true)");
  EXPECT_EQ(post(id, R"({"metadata":{"k":"v"}})").find("metadata")->dump(), R"({"k":"v"})");
  EXPECT_EQ(get(id).find("metadata")->dump(), R"({"k":"v"})");
  EXPECT_EQ(send("POST", id, "{}").status, 400);
  EXPECT_EQ(send("POST", id, R"({"metadata":{"k":1}})").status, 400);
  EXPECT_EQ(send("GET", id, "", {{"authorization", "Bearer other"}}).status, 404);
  EXPECT_EQ(send("DELETE", id, "", {{"authorization", "Bearer other"}}).status, 404);
  stop();
  start();
  EXPECT_EQ(get(id).find("metadata")->dump(), R"({"k":"v"})");
  EXPECT_EQ(send("DELETE", id).body, R"({"object":"chat.completion.deleted","id":"chatcmpl-1","deleted":true})");
  EXPECT_EQ(send("GET", id).status, 404);
  EXPECT_EQ(send("GET", id + "/messages").status, 404);
}

TEST_F(ChatsTest, ABrokenStreamIsNotKept) {
  directory_.list = {{"a-1", "m", fmt::format("http://127.0.0.1:{}", replica_->port()), true}};
  send("POST", "/v1/chat/completions",
       R"({"model":"m","store":true,"stream":true,"messages":[{"role":"user","content":"break"}]})");
  EXPECT_EQ(ids(""), ".");
}

TEST(ChatChunks, JoinsChoicesCallsAndLogprobs) {
  ChatChunks chunks;
  for (const char* data :
       {R"({"id":"c","object":"chat.completion.chunk","usage":null,"choices":[{"index":1,"delta":{"content":"b"}},)"
        R"({"index":0,"delta":{"content":"a"},"logprobs":{"content":[{"token":"a"}],"refusal":null}}]})",
        R"({"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"x","type":"function",)"
        R"("function":{"name":"f","arguments":""}}]}}]})",
        R"({"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":"}}]}}]})",
        R"({"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]},)"
        R"("logprobs":{"content":[{"token":"b"}],"refusal":null},"finish_reason":"tool_calls"}]})"})
    chunks.push(data);
  EXPECT_FALSE(ChatChunks(chunks).take().has_value());  // choice 1 has not ended
  chunks.push(R"({"id":"c","choices":[{"index":1,"delta":{},"finish_reason":"stop"}]})");
  chunks.push(R"({"id":"c","choices":[],"usage":{"total_tokens":3}})");
  chunks.push(R"({"error":{"message":"not a chunk"}})");
  chunks.push("[DONE]");
  EXPECT_EQ(chunks.take()->dump(),
            R"({"id":"c","object":"chat.completion","usage":{"total_tokens":3},"choices":[{"index":0,"message":)"
            R"({"role":"assistant",)"
            R"("content":"a","tool_calls":[{"id":"x","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},)"
            R"("logprobs":{"content":[{"token":"a"},{"token":"b"}],"refusal":null},"finish_reason":"tool_calls"},{"index":1,)"
            R"("message":{"role":"assistant","content":"b"},"logprobs":null,"finish_reason":"stop"}]})");
}

}  // namespace
}  // namespace capstan::gateway::openai
