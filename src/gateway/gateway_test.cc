// Goal: the gateway between real sockets: clients on one side, scripted replicas on the other.
#include "gateway/gateway.h"

#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace capstan::gateway {
namespace {

using namespace std::chrono_literals;

class Directory final : public ReplicaDirectory {
 public:
  std::vector<Replica> list;
  std::vector<std::pair<std::string, std::string>> absent;
  std::vector<Replica> replicas() const override { return list; }
  std::vector<std::pair<std::string, std::string>> waiting() const override { return absent; }
};

class GatewayTest : public testing::Test {
 protected:
  void SetUp() override {
    upstream_.add("POST", "/v1/chat/completions", [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
      ++served_;
      last_id_ = request.headers.get("x-request-id");
      if (!Json::parse(request.body)->get_bool("stream").value_or(false)) {
        return writer->respond(http::Response::json(200, Json::object({{"echo", request.body}})));
      }
      writer->start(200, {{"content-type", "text/event-stream"}});
      int sent = 0;
      while (sent < 1000 && writer->write(http::sse_event(std::to_string(sent)))) {
        ++sent;
        std::this_thread::sleep_for(1ms);
      }
      streamed_ = sent;
      writer->finish();
    });
    replica_ = std::move(http::Server::start({}, upstream_.handler()).value());
    directory_.list = {{"a-1", "abacus", fmt::format("http://127.0.0.1:{}", replica_->port()), true}};
    gateway_.mount(router_);
    server_ = std::move(http::Server::start({}, router_.handler()).value());
    url_ = fmt::format("http://127.0.0.1:{}", server_->port());
  }

  http::Response post(std::string body, std::string target = "/v1/chat/completions") {
    return client_.request(url_, {.method = "POST", .target = std::move(target), .body = std::move(body)}, {}).value();
  }
  static Json error_of(const http::Response& response) { return *Json::parse(response.body)->find("error"); }

  Directory directory_;
  Gateway gateway_{directory_, std::make_shared<prometheus::Registry>()};
  http::Router upstream_;
  http::Router router_;
  std::unique_ptr<http::Server> replica_;
  std::unique_ptr<http::Server> server_;
  std::string url_;
  http::Client client_;
  std::atomic<int> served_{0};
  std::atomic<int> streamed_{-1};
  std::string last_id_;
};

TEST_F(GatewayTest, RelaysBytesUnchangedAndNamesTheRequest) {
  const std::string body = R"({"model": "abacus",  "messages": []})";
  for (const char* target : {"/v1/chat/completions", "/openai/v1/chat/completions"}) {
    const auto answer = post(body, target);
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(Json::parse(answer.body)->get_string("echo"), body);
    EXPECT_EQ(answer.headers.get("x-request-id"), last_id_);
  }
}

TEST_F(GatewayTest, ModelsAreListed) {
  const auto answer = client_.request(url_, {.target = "/v1/models"}, {});
  EXPECT_EQ(answer->body, R"({"object":"list","data":[{"id":"abacus","object":"model","created":0,"owned_by":"capstan"}]})");
  EXPECT_EQ(client_.request(url_, {.target = "/v1/models/abacus"}, {})->status, 200);
  EXPECT_EQ(client_.request(url_, {.target = "/v1/models/org/other"}, {})->status, 404);
}

TEST_F(GatewayTest, WrongRequestsGetOpenAiErrors) {
  EXPECT_EQ(post("{").status, 400);
  EXPECT_EQ(error_of(post("{}")).get_string("param"), "model");
  const auto answer = post(R"({"model":"abakus"})");
  EXPECT_EQ(answer.status, 404);
  EXPECT_EQ(error_of(answer).get_string("message"), "the model 'abakus' does not exist; did you mean 'abacus'?");
  EXPECT_EQ(error_of(answer).get_string("code"), "model_not_found");
}

TEST_F(GatewayTest, NotReadyIsRetryableAndSaysWhy) {
  directory_.list[0].ready = false;
  auto answer = post(R"({"model":"abacus"})");
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.headers.get("x-should-retry"), "true");
  directory_.list.clear();
  directory_.absent = {{"abacus", "waits for 2 cpus"}};
  answer = post(R"({"model":"abacus"})");
  EXPECT_EQ(error_of(answer).get_string("message"), "model 'abacus' is not ready: waits for 2 cpus");
}

TEST_F(GatewayTest, ADeadReplicaIsPassedOver) {
  directory_.list.push_back({"dead", "abacus", "http://127.0.0.1:1", true});
  for (int i = 0; i < 20; ++i) EXPECT_EQ(post(fmt::format(R"({{"model":"abacus","n":{}}})", i)).status, 200);
  EXPECT_EQ(served_, 20);
}

TEST_F(GatewayTest, AClientThatLeavesEndsTheReplicasWork) {
  const http::Request request{.method = "POST", .target = "/v1/chat/completions", .body = R"({"model":"abacus","stream":true})"};
  int pieces = 0;
  const auto result = client_.stream(url_, request, {}, [](const http::Response&) { return true; }, [&](std::string_view) { return ++pieces < 5; });
  EXPECT_EQ(result.error().code, Code::kCancelled);
  for (int i = 0; i < 300 && streamed_ < 0; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_GE(streamed_, 0);
  EXPECT_LT(streamed_, 1000);
}

}  // namespace
}  // namespace capstan::gateway
