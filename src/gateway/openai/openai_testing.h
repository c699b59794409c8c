// Of this folder's tests: responses, files and batches between real sockets, over a scripted replica.
#pragma once

#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>

#include "base/file.h"
#include "gateway/openai/api_testing.h"
#include "gateway/openai/openai.h"
#include "http/client.h"

namespace capstan::gateway::openai {

class OpenAiTest : public testing::Test {
 protected:
  void SetUp() override {
    upstream_.add("POST", "/v1/chat/completions",
                  [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
                    chat(*Json::parse(request.body), writer);
                  });
    upstream_.add("POST", "/v1/embeddings",
                  [this](const http::Request&, const http::ResponseWriterPtr& writer) {
                    writer->respond(embeddings_);
                  });
    replica_ = std::move(http::Server::start({}, upstream_.handler()).value());
    directory_.list = {{"a-1", "m", fmt::format("http://127.0.0.1:{}", replica_->port()), true}};
    start();
  }
  void TearDown() override {
    hold_ = false;
    stop();
    std::filesystem::remove_all(scratch_);
  }

  virtual ContainerHost* containers() { return nullptr; }

  // A Capstan's front, over what the one before left.
  void start() {
    database_ = *store::open_sqlite(scratch_ / "tables.sqlite", parts_, {.fsync = false});
    gateway_ = std::make_unique<Gateway>(directory_, std::make_shared<prometheus::Registry>());
    gateway_->set_authenticator(std::make_unique<Projects>());
    api_ = *OpenAiApi::make(*gateway_, *database_,
                            {.files = scratch_ / "files", .seal_key = std::string(32, 'k'), .containers = containers()});
    http::Router router;
    gateway_->mount(router);
    server_ = std::move(http::Server::start({}, router.handler()).value());
    api_->start();
  }
  void stop() {
    gateway_->cancel();
    server_.reset();
    api_.reset();
    gateway_.reset();
    database_.reset();
  }

  // Answers with the last message; "busy" is refused twice, "wrong" is a 400, and "slow" takes until hold_
  // ends.
  void chat(const Json& body, const http::ResponseWriterPtr& writer) {
    ++asked_;
    {
      const std::scoped_lock lock(asked_mutex_);
      asked_body_ = body.dump();
    }
    const std::string text = body.find("messages")->items().back().get_string("content").value_or("");
    if (text == "busy" && ++busy_ <= 2) return writer->respond(http::Response::json(503, Json::object()));
    if (text == "wrong")
      return writer->respond(
          http::Response::json(400, *Json::parse(R"({"error":{"message":"no","code":"bad"}})")));
    while (text == "slow" && hold_ && !writer->client_gone()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const Json usage = *Json::parse(R"({"prompt_tokens":3,"completion_tokens":2,"total_tokens":5})");
    if (!body.get_bool("stream").value_or(false)) {
      Json choice = Json::object({{"index", 0}, {"finish_reason", "stop"}});
      choice["message"] =
          Json::object({{"role", "assistant"}, {"content", "re: " + text}, {"reasoning", "hm"}});
      return writer->respond(
          http::Response::json(200, Json::object({{"choices", Json::array({choice})}, {"usage", usage}})));
    }
    writer->start(200, {{"content-type", "text/event-stream"}});
    writer->write(http::sse_event(R"({"choices":[{"index":0,"delta":{"content":"re: "}}]})"));
    if (text == "break") return writer->finish();
    writer->write(http::sse_event(fmt::format(
        R"({{"choices":[{{"index":0,"delta":{{"content":"{}"}},"finish_reason":"stop"}}]}})", text)));
    writer->write(http::sse_event(Json::object({{"choices", Json::array()}, {"usage", usage}}).dump()));
    writer->write(http::sse_event("[DONE]"));
    writer->finish();
  }

  http::Response send(std::string method, std::string target, std::string body = {},
                      http::Headers headers = {}) {
    return client_
        .request(fmt::format("http://127.0.0.1:{}", server_->port()),
                 {.method = std::move(method),
                  .target = std::move(target),
                  .headers = std::move(headers),
                  .body = std::move(body)},
                 {})
        .value();
  }
  Json get(const std::string& target) { return *Json::parse(send("GET", target).body); }
  Json post(const std::string& target, const std::string& body) {
    return *Json::parse(send("POST", target, body).body);
  }
  static std::string id_of(const Json& object) {
    return object.get_string("id").value_or("no id in " + object.dump());
  }
  static std::string output_text(const Json& response) {
    const Json* output = response.find("output");
    if (output == nullptr || output->size() == 0) return "no output in " + response.dump();
    return output->items().back().find("content")->items()[0].get_string("text").value_or("");
  }
  std::string upload(const std::string& content, const std::string& purpose = "batch") {
    const http::Request request = upload_request("in.jsonl", content, purpose);
    return id_of(*Json::parse(send(request.method, request.target, request.body, request.headers).body));
  }
  static std::string line(const std::string& id, const std::string& text) {
    return fmt::format(
        R"({{"custom_id":"{}","method":"POST","url":"/v1/chat/completions","body":{{"model":"m",)"
      R"("messages":[{{"role":"user","content":"{}"}}]}}}})"
        "\n",
        id, text);
  }
  std::string make_batch(const std::string& content) {
    return id_of(post(
        "/v1/batches",
        fmt::format(
            R"({{"input_file_id":"{}","endpoint":"/v1/chat/completions","completion_window":"24h","metadata":{{"a":"b"}}}})",
            upload(content))));
  }
  Json wait_for(const std::string& target, const std::string& status) {
    Json object;
    for (int i = 0; i < 1500; ++i) {
      object = get(target);
      if (object.get_string("status") == status) return object;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ADD_FAILURE() << "never " << status << ": " << object.dump();
    return object;
  }
  std::string content(const Json& batch, const char* which) {
    const auto id = batch.get_string(which);
    return id ? send("GET", "/v1/files/" + *id + "/content").body : "";
  }

  const std::filesystem::path scratch_ = testing::TempDir() + "openai_test_" + random_hex(6);
  const std::vector<const store::Tables*> parts_ =
      (std::filesystem::create_directories(scratch_),
       std::vector<const store::Tables*>{&kChatTables, &kResponseTables, &kConversationTables, &kFileTables, &kBatchTables});
  std::atomic<int> asked_{0}, busy_{0};
  std::atomic<bool> hold_{true};
  std::mutex asked_mutex_;
  std::string asked_body_;  // read when nothing is under way
  http::Response embeddings_ = http::Response::json(404, Json::object());
  Directory directory_;
  http::Router upstream_;
  std::unique_ptr<http::Server> replica_, server_;
  std::unique_ptr<store::Database> database_;
  std::unique_ptr<Gateway> gateway_;
  std::unique_ptr<OpenAiApi> api_;
  http::Client client_;
};

}  // namespace capstan::gateway::openai
