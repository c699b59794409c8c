// Goal: responses, files, batches and embeddings through the gateway between real sockets, over a scripted
// replica.
#include "gateway/openai/openai_testing.h"

namespace capstan::gateway::openai {
namespace {

using namespace std::chrono_literals;

TEST_F(OpenAiTest, AResponseIsStoredAndGoesOn) {
  const Json first = post("/v1/responses", R"({"model":"m","input":"one"})");
  EXPECT_EQ(output_text(first), "re: one");
  EXPECT_EQ(first.get_string("status"), "completed");
  EXPECT_EQ(get("/v1/responses/" + id_of(first)), first);
  const Json second =
      post("/openai/v1/responses",
           fmt::format(R"({{"model":"m","input":"two","previous_response_id":"{}"}})", id_of(first)));
  EXPECT_EQ(
      Json::parse(asked_body_)->find("messages")->dump(),
      R"([{"role":"user","content":"one"},{"role":"assistant","content":"re: one","reasoning":"hm"},{"role":"user",)"
      R"("content":"two"}])");
  EXPECT_EQ(get("/v1/responses/" + id_of(second) + "/input_items?order=asc").find("data")->size(), 4u);
  EXPECT_EQ(send("DELETE", "/v1/responses/" + id_of(first)).body,
            fmt::format(R"({{"id":"{}","object":"response","deleted":true}})", id_of(first)));
  EXPECT_EQ(send("GET", "/v1/responses/" + id_of(first)).status, 404);
  const Json lost = post("/v1/responses", R"({"model":"m","input":"x","previous_response_id":"resp_gone"})");
  EXPECT_EQ(lost.find("error")->get_string("code"), "previous_response_not_found");
}

TEST_F(OpenAiTest, AStatelessResponseIsNotStoredAndItsReasoningComesBackSealed) {
  const Json first =
      post("/v1/responses",
           R"({"model":"m","input":"one","store":false,"include":["reasoning.encrypted_content"]})");
  EXPECT_EQ(send("GET", "/v1/responses/" + id_of(first)).status, 404);
  Json reasoning = first.find("output")->items()[0];
  reasoning["content"] = Json::array();
  const Json body =
      Json::object({{"model", "m"},
                    {"store", false},
                    {"input", Json::array({reasoning, first.find("output")->items()[1],
                                           *Json::parse(R"({"role":"user","content":"two"})")})}});
  post("/v1/responses", body.dump());
  EXPECT_EQ(Json::parse(asked_body_)->find("messages")->items()[0].get_string("reasoning"), "hm");
}

TEST_F(OpenAiTest, AStreamEndsWithTheStoredResponse) {
  const std::string stream =
      send("POST", "/v1/responses", R"({"model":"m","input":"one","stream":true})").body;
  EXPECT_TRUE(stream.starts_with(
      "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0"))
      << stream;
  std::string last;
  http::SseParser parser([&](std::string_view, std::string_view data) { last = data; });
  parser.feed(stream);
  const Json completed = *Json::parse(last);
  EXPECT_EQ(completed.get_string("type"), "response.completed");
  EXPECT_EQ(get("/v1/responses/" + id_of(*completed.find("response"))), *completed.find("response"));
  EXPECT_TRUE(send("POST", "/v1/responses", R"({"model":"m","input":"break","stream":true})")
                  .body.contains("event: response.failed"));
}

TEST_F(OpenAiTest, ProjectsDoNotSeeEachOthersThings) {
  const std::string id = id_of(post("/v1/responses", R"({"model":"m","input":"one"})")),
                    file = upload("x", "user_data");
  const http::Headers other{{"authorization", "Bearer other"}};
  EXPECT_EQ(send("GET", "/v1/responses/" + id, {}, other).status, 404);
  EXPECT_EQ(send("DELETE", "/v1/responses/" + id, {}, other).status, 404);
  EXPECT_EQ(send("GET", "/v1/files/" + file + "/content", {}, other).status, 404);
  EXPECT_EQ(Json::parse(send("GET", "/v1/files", {}, other).body)->find("data")->size(), 0u);
  EXPECT_EQ(send("GET", "/v1/responses/" + id).status, 200);
}

// Goal: a file larger than a body in memory goes through disk, whole.
TEST_F(OpenAiTest, ALargeFileIsKept) {
  std::string content(40u << 20, ' ');
  for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>('a' + (i * 7 + i / 251) % 26);
  const std::string id = upload(content, "user_data");
  EXPECT_EQ(get("/v1/files/" + id).get_int("bytes"), static_cast<std::int64_t>(content.size()));
  EXPECT_TRUE(send("GET", "/v1/files/" + id + "/content").body == content);
}

TEST_F(OpenAiTest, FilesAreKeptListedAndDeleted) {
  const std::string first = upload("one"), second = upload("two", "user_data");
  EXPECT_EQ(get("/v1/files/" + first).get_int("bytes"), 3);
  EXPECT_EQ(send("GET", "/v1/files/" + first + "/content").body, "one");
  const Json page = get("/v1/files?limit=1");
  EXPECT_EQ(page.get_string("last_id"), second);
  EXPECT_EQ(page.get_bool("has_more"), true);
  EXPECT_EQ(get("/v1/files?after=" + second).get_string("first_id"), first);
  EXPECT_EQ(get("/v1/files?purpose=user_data").find("data")->size(), 1u);
  EXPECT_EQ(send("DELETE", "/v1/files/" + first).status, 200);
  EXPECT_EQ(send("GET", "/v1/files/" + first).status, 404);
  EXPECT_FALSE(std::filesystem::exists(scratch_ / "files" / first));
  EXPECT_EQ(send("POST", "/v1/files", "x", {{"content-type", "text/plain"}}).status, 400);
}

// Goal: what is wrong with a list, a form or a batch is told with its param. Method: one wrong thing each.
TEST_F(OpenAiTest, WrongQueriesFormsAndBatchesNameTheirParam) {
  const auto param = [](const http::Response& answer) {
    const Json body = *Json::parse(answer.body);
    return fmt::format("{} {}", answer.status, body.find("error")->get_string("param").value_or("-"));
  };
  EXPECT_EQ(param(send("GET", "/v1/files?limit=0")), "400 limit");
  EXPECT_EQ(param(send("GET", "/v1/batches?limit=x")), "400 limit");
  EXPECT_EQ(param(send("GET", "/v1/files?order=up")), "400 order");
  EXPECT_EQ(param(send("GET", "/v1/files/file-x")), "404 id");
  const auto form = [&](std::string parts) {
    return send("POST", "/v1/files", parts + "--b--\r\n", {{"content-type", "multipart/form-data; boundary=b"}});
  };
  const auto part = [](std::string_view name, std::string_view content) {
    return fmt::format("--b\r\ncontent-disposition: form-data; name=\"{}\"; filename=\"f\"\r\n\r\n{}\r\n", name, content);
  };
  EXPECT_EQ(param(form(part("purpose", "batch"))), "400 file");
  EXPECT_EQ(param(form(part("file", "x"))), "400 purpose");
  EXPECT_EQ(param(form(part("file", "x") + part("purpose", "fun"))), "400 purpose");
  EXPECT_EQ(param(form(part("file", "") + part("purpose", "batch"))), "400 file");
  EXPECT_EQ(param(form(part("expires_after[anchor]", "now") + part("file", "x") + part("purpose", "batch"))),
            "400 expires_after[anchor]");
  const std::string file = upload(line("a", "one"));
  const auto batch = [&](std::string_view more) {
    return param(
        send("POST", "/v1/batches",
             fmt::format(
                 R"({{"input_file_id":"{}","endpoint":"/v1/chat/completions","completion_window":"24h",{}}})",
                 file, more)));
  };
  EXPECT_EQ(batch(R"("metadata":"x")"), "400 metadata");
  EXPECT_EQ(batch(R"("metadata":{"a":1})"), "400 metadata.a");
  EXPECT_EQ(batch(R"("output_expires_after":{"anchor":"created_at","seconds":1})"), "400 output_expires_after.seconds");
  EXPECT_EQ(param(send("POST", "/v1/embeddings", R"({"model":"m","input":1})")), "400 input");
  EXPECT_EQ(param(send("POST", "/v1/embeddings", R"({"model":"m","input":"a","dimensions":0})")), "400 dimensions");
}

TEST_F(OpenAiTest, ABatchsOutputIsKeptAsLongAsAsked) {
  const std::string file = upload(line("a", "one"));
  const Json made = post("/v1/batches", fmt::format(R"({{"input_file_id":"{}","endpoint":"/v1/chat/completions",)"
                                                    R"("completion_window":"24h","output_expires_after":)"
                                                    R"({{"anchor":"created_at","seconds":3600}}}})",
                                                    file));
  const Json batch = wait_for("/v1/batches/" + id_of(made), "completed");
  const Json output = get("/v1/files/" + *batch.get_string("output_file_id"));
  EXPECT_EQ(output.get_int("expires_at").value_or(0) - output.get_int("created_at").value_or(0), 3600) << output.dump();
}

TEST_F(OpenAiTest, InputItemsComeBackAsOpenAiTellsThem) {
  const Json response = post("/v1/responses",
                             R"({"model":"m","input":[{"role":"user","content":"hi"},{"role":"assistant","content":"ho"},)"
                             R"({"type":"function_call","call_id":"c","name":"f","arguments":"{}"},)"
                             R"({"type":"function_call_output","call_id":"c","output":"4"},{"role":"user","content":"go on"}]})");
  const Json page = get("/v1/responses/" + id_of(response) + "/input_items?order=asc");
  std::string told;
  for (Json item : page.find("data")->items()) {
    for (const std::string_view key : {"id", "status"}) EXPECT_TRUE(item.erase(key)) << item.dump();
    told += item.dump() + "\n";
  }
  EXPECT_EQ(
      told,
      R"({"role":"user","content":[{"type":"input_text","text":"hi"}],"type":"message"}
{"role":"assistant","content":[{"type":"output_text","text":"ho","annotations":[],"logprobs":[]}],"type":"message"}
{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}
{"type":"function_call_output","call_id":"c","output":"4"}
{"role":"user","content":[{"type":"input_text","text":"go on"}],"type":"message"}
)");
  EXPECT_EQ(send("GET", "/v1/responses/" + id_of(response) + "/input_items?limit=101").status, 400);
}

// Goal: a conversation grows by what is said in it, streamed or not, and only its project sees it.
TEST_F(OpenAiTest, AConversationGoesOnFromItsItems) {
  const Json made = post("/v1/conversations", R"({"metadata":{"a":"b"},"items":[{"role":"user","content":"first"}]})");
  const std::string path = "/v1/conversations/" + id_of(made);
  EXPECT_EQ(made.get_string("object"), "conversation");
  EXPECT_EQ(get(path).dump(), made.dump());
  const auto say = [&](std::string_view text, std::string_view more) {
    return fmt::format(R"({{"model":"m","conversation":"{}","input":"{}"{}}})", id_of(made), text, more);
  };
  const Json response = post("/v1/responses", say("second", R"(,"store":false)"));
  EXPECT_EQ(response.find("conversation")->dump(), fmt::format(R"({{"id":"{}"}})", id_of(made)));
  EXPECT_EQ(send("POST", "/v1/responses", say("third", R"(,"stream":true)")).status, 200);
  EXPECT_TRUE(asked_body_.contains("first") && asked_body_.contains("re: second") &&
              asked_body_.contains("third"))
      << asked_body_;
  const Json all = get(path + "/items?limit=100&order=asc");
  EXPECT_EQ(all.find("data")->size(), 6u) << all.dump();  // first; second, reasoning, answer; third, answer
  EXPECT_EQ(get(path + "/items?limit=1").get_bool("has_more"), true);
  const std::string item = *all.get_string("first_id");
  EXPECT_EQ(get(path + "/items/" + item).dump(), all.find("data")->items()[0].dump());
  EXPECT_EQ(send("DELETE", path + "/items/" + item).status, 200);
  EXPECT_EQ(send("GET", path + "/items/" + item).status, 404);
  EXPECT_EQ(post(path + "/items", R"({"items":[{"role":"user","content":"later"}]})").find("data")->size(), 1u);
  EXPECT_EQ(post(path, R"({"metadata":{"c":"d"}})").find("metadata")->dump(), R"({"c":"d"})");
  EXPECT_EQ(send("GET", path, {}, {{"authorization", "Bearer other"}}).status, 404);
  EXPECT_EQ(send("DELETE", path).status, 200);
  EXPECT_EQ(send("POST", "/v1/responses", say("gone", "")).status, 404);
}

TEST_F(OpenAiTest, WrongConversationsNameTheirParam) {
  const auto param = [&](const std::string& target, const std::string& body) {
    return post(target, body).find("error")->get_string("param").value_or("-");
  };
  EXPECT_EQ(param("/v1/conversations", R"({"items":"x"})"), "items");
  EXPECT_EQ(param("/v1/conversations", R"({"items":[{"role":"robot","content":"x"}]})"), "items[0].role");
  EXPECT_EQ(param("/v1/conversations", R"({"items":[{"type":"telepathy"}]})"), "items[0].type");
  EXPECT_EQ(param("/v1/conversations", R"({"metadata":{"a":1}})"), "metadata.a");
  EXPECT_EQ(param("/v1/responses", R"({"model":"m","input":"x","conversation":1})"), "conversation");
  EXPECT_EQ(param("/v1/responses",
                  R"({"model":"m","input":"x","conversation":"conv_1","previous_response_id":"resp_1"})"),
            "conversation");
}

TEST_F(OpenAiTest, TokensOfAResponseAreCountedByTheReplica) {
  EXPECT_EQ(post("/v1/responses/input_tokens", R"({"model":"m","input":"hi","stream":true,"max_output_tokens":90})").dump(),
            R"({"object":"response.input_tokens","input_tokens":3})");
  EXPECT_EQ(asked_body_, R"({"model":"m","messages":[{"role":"user","content":"hi"}],"max_completion_tokens":1})");
  EXPECT_EQ(post("/v1/responses/input_tokens", R"({"model":"m"})").find("error")->get_string("param"), "input");
}

TEST_F(OpenAiTest, ABatchRunsItsLinesAndSortsWhatFailed) {
  const Json batch = wait_for(
      "/v1/batches/" + make_batch(line("a", "one") + line("b", "wrong") + line("c", "busy")), "completed");
  EXPECT_EQ(batch.find("request_counts")->dump(), R"({"total":3,"completed":2,"failed":1})");
  EXPECT_EQ(batch.find("metadata")->dump(), R"({"a":"b"})");
  const std::string output = content(batch, "output_file_id"), errors = content(batch, "error_file_id");
  EXPECT_TRUE(output.contains(R"("custom_id":"a")") && output.contains("re: one") &&
              output.contains("re: busy"))
      << output;
  EXPECT_TRUE(errors.contains(R"("custom_id":"b")") && errors.contains(R"("status_code":400)")) << errors;
  EXPECT_EQ(get("/v1/batches").find("data")->size(), 1u);
  EXPECT_EQ(send("POST", "/v1/batches/" + id_of(batch) + "/cancel").status, 409);
}

TEST_F(OpenAiTest, AWrongFileFailsItsBatch) {
  const Json batch = wait_for("/v1/batches/" + make_batch("not json\n"), "failed");
  EXPECT_EQ(batch.find("errors")->find("data")->items()[0].get_string("code"), "invalid_json_line");
  EXPECT_EQ(post("/v1/batches", "{}").find("error")->get_string("param"), "input_file_id");
}

TEST_F(OpenAiTest, ACancelledBatchKeepsWhatIsDone) {
  const std::string id = make_batch(line("a", "one") + line("b", "slow"));
  while (asked_ < 2) std::this_thread::sleep_for(1ms);
  while (get("/v1/batches/" + id).find("request_counts")->get_int("completed") != 1)
    std::this_thread::sleep_for(1ms);
  EXPECT_EQ(post("/v1/batches/" + id + "/cancel", "").get_string("status"), "cancelling");
  const Json batch = wait_for("/v1/batches/" + id, "cancelled");
  EXPECT_TRUE(content(batch, "output_file_id").contains("re: one"));
}

TEST_F(OpenAiTest, ABatchGoesOnInTheNextProcessWithWhatIsNotDone) {
  const std::string id = make_batch(line("a", "one") + line("b", "slow"));
  while (get("/v1/batches/" + id).find("request_counts")->get_int("completed") != 1)
    std::this_thread::sleep_for(1ms);
  stop();
  const int before = asked_;
  hold_ = false;
  start();
  const Json batch = wait_for("/v1/batches/" + id, "completed");
  EXPECT_EQ(batch.find("request_counts")->dump(), R"({"total":2,"completed":2,"failed":0})");
  EXPECT_EQ(asked_, before + 1);
  EXPECT_TRUE(content(batch, "output_file_id").contains("re: slow"));
}

TEST_F(OpenAiTest, EmbeddingsComeInTheEncodingAskedForOrAreRefused) {
  const std::string body = R"({"model":"m","input":"x","encoding_format":"base64"})";
  EXPECT_EQ(post("/v1/embeddings", body).find("error")->get_string("message"),
            "the model 'm' gives no embeddings");
  embeddings_ = http::Response::json(
      200, *Json::parse(
               R"({"data":[{"index":0,"embedding":[1.0]}],"usage":{"prompt_tokens":1,"total_tokens":1}})"));
  EXPECT_EQ(post("/v1/embeddings", body).find("data")->items()[0].get_string("embedding"), "AACAPw==");
  EXPECT_EQ(post("/v1/embeddings", R"({"model":"m","input":"x"})")
                .find("data")
                ->items()[0]
                .find("embedding")
                ->dump(),
            "[1.0]");
  EXPECT_EQ(post("/v1/embeddings", R"({"model":"m"})").find("error")->get_string("param"), "input");
}

}  // namespace
}  // namespace capstan::gateway::openai
