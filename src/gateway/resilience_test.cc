// Goal: replicas that fail, are slow, come and go do not fail requests; aliases and foreign servers; what replicas are told
// of who asks. Method: scripted replicas behind real sockets.
#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <future>
#include <mutex>
#include <thread>

#include "base/file.h"
#include "base/text.h"
#include "gateway/gateway.h"
#include "http/client.h"

namespace capstan::gateway {
namespace {

using namespace std::chrono_literals;

class Directory final : public ReplicaDirectory {
 public:
  void set(std::vector<Replica> list) {
    const std::scoped_lock lock(mutex_);
    list_ = std::move(list);
  }
  std::vector<Replica> replicas() const override {
    const std::scoped_lock lock(mutex_);
    return list_;
  }
  std::vector<std::pair<std::string, std::string>> waiting() const override { return {}; }
  std::string resolve(const std::string& model, std::string_view) const override { return model == "alias" ? "m" : model; }
  std::vector<std::string> aliases() const override { return {"alias"}; }

 private:
  mutable std::mutex mutex_;
  std::vector<Replica> list_;
};

class Scripted {
 public:
  explicit Scripted(http::Handler handler, std::string target = "/v1/chat/completions") {
    http::Router router;
    router.add("POST", std::move(target), [this, handler = std::move(handler)](const http::Request& request,
                                                                              const http::ResponseWriterPtr& writer) {
      ++got;
      handler(request, writer);
    });
    server = http::Server::start({}, router).value();
  }
  Replica replica(std::string id) const {
    return {.id = std::move(id), .model = "m", .url = fmt::format("http://127.0.0.1:{}", server->port()), .ready = true};
  }
  std::atomic<int> got{0};
  std::unique_ptr<http::Server> server;
};

void answer_well(const http::Request&, const http::ResponseWriterPtr& writer) {
  writer->respond(http::Response::json(200, Json::object({{"good", true}})));
}

class ResilienceTest : public testing::Test {
 protected:
  ResilienceTest() {
    gateway_.mount(router_);
    server_ = http::Server::start({}, router_).value();
  }
  Result<http::Response> post(std::string body, http::Headers headers = {}) {
    http::Client client;
    return client.request(fmt::format("http://127.0.0.1:{}", server_->port()),
                          {.method = "POST",
                           .target = "/v1/chat/completions",
                           .headers = std::move(headers),
                           .body = std::move(body)},
                          {});
  }
  int status(std::string body = R"({"model":"m"})") {
    const auto answer = post(std::move(body));
    return answer ? answer->status : 0;
  }

  Directory directory_;
  Gateway gateway_{directory_, std::make_shared<prometheus::Registry>(), {}};
  http::Router router_;
  std::unique_ptr<http::Server> server_;
};

TEST_F(ResilienceTest, ASlowReplicaIsHedgedAndTheFirstToAnswerWins) {
  std::atomic<bool> left{false};
  const auto slow = [&left](const http::Request&, const http::ResponseWriterPtr& writer) {
    for (int i = 0; i < 2'000 && !writer->client_gone(); ++i) std::this_thread::sleep_for(5ms);
    left = writer->client_gone();
    writer->respond(http::Response::json(200, Json::object({{"slow", true}})));
  };
  Scripted slow_one(slow), good(answer_well);
  auto list = std::vector<Replica>{slow_one.replica("a"), good.replica("b")};
  for (Replica& replica : list) replica.hedge_after_ms = 30;
  directory_.set(list);
  // Until one of them goes to the slow replica first.
  for (int i = 0; i < 50 && slow_one.got == 0; ++i) {
    const auto answer = post(fmt::format(R"({{"model":"m","n":{}}})", i));
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->body, R"({"good":true})");
  }
  EXPECT_EQ(slow_one.got, 1);
  for (int i = 0; i < 1'000 && !left; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_TRUE(left) << "the loser is given up";
}

TEST_F(ResilienceTest, AHedgeThatFailsLeavesTheFirstReplicaItsTime) {
  std::atomic<bool> hedged{false};
  const auto late = [&hedged](const http::Request&, const http::ResponseWriterPtr& writer) {
    for (int i = 0; i < 2'000 && !hedged; ++i) std::this_thread::sleep_for(5ms);
    std::this_thread::sleep_for(50ms);
    answer_well({}, writer);
  };
  const auto refuse = [&hedged](const http::Request&, const http::ResponseWriterPtr& writer) {
    writer->respond(http::Response::json(429, Json::object({})));
    hedged = true;
  };
  Scripted first(late), second(refuse);
  auto list = std::vector<Replica>{first.replica("a"), second.replica("b")};
  for (Replica& replica : list) replica.hedge_after_ms = 20;
  directory_.set(list);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(status(fmt::format(R"({{"model":"m","n":{}}})", i)), 200);
  EXPECT_TRUE(hedged);
}

TEST_F(ResilienceTest, AReplicaThatKeepsFailingGetsNoMoreThanAProbe) {
  Scripted bad([](const http::Request&, const http::ResponseWriterPtr& writer) {
    writer->respond(http::Response::json(502, Json::object({})));
  });
  Scripted good(answer_well);
  directory_.set({bad.replica("a"), good.replica("b")});
  for (int i = 0; i < 100; ++i) EXPECT_EQ(status(fmt::format(R"({{"model":"m","n":{}}})", i)), 200);
  EXPECT_GE(bad.got, 5);
  EXPECT_LE(bad.got, 5 + 20) << "its circuit opens after five";
  EXPECT_EQ(good.got, 100);
}

TEST_F(ResilienceTest, ARollingUpdateFailsNoRequest) {
  const auto work = [](const http::Request&, const http::ResponseWriterPtr& writer) {
    std::this_thread::sleep_for(3ms);
    answer_well({}, writer);
  };
  auto one = std::make_unique<Scripted>(work);
  directory_.set({one->replica("v1")});
  std::atomic<bool> stop{false};
  std::atomic<int> good{0}, bad{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < 6; ++i) {
    clients.emplace_back([&] {
      while (!stop) ++(status() == 200 ? good : bad);
    });
  }
  for (int version = 2; version < 8; ++version) {
    auto next = std::make_unique<Scripted>(work);
    directory_.set({one->replica(fmt::format("v{}", version - 1)), next->replica(fmt::format("v{}", version))});
    std::this_thread::sleep_for(20ms);
    directory_.set({next->replica(fmt::format("v{}", version))});
    one->server->stop(2'000);  // as a rank that was told to stop: what is under way ends
    one = std::move(next);
  }
  stop = true;
  for (auto& client : clients) client.join();
  EXPECT_EQ(bad, 0);
  EXPECT_GT(good, 50);
}

TEST_F(ResilienceTest, AnAliasReachesTheReplicaUnderTheModelsOwnName) {
  std::string seen;
  Scripted one([&seen](const http::Request& request, const http::ResponseWriterPtr& writer) {
    seen = request.body;
    answer_well({}, writer);
  });
  directory_.set({one.replica("a")});
  EXPECT_EQ(status(R"({"messages":[{"content":"\"model\":\"alias\""}], "model" : "alias","x":1})"), 200);
  EXPECT_EQ(seen, R"({"messages":[{"content":"\"model\":\"alias\""}], "model" : "m","x":1})");
  http::Client client;
  const auto list = client.request(fmt::format("http://127.0.0.1:{}", server_->port()), {.target = "/v1/models"}, {});
  EXPECT_NE(list->body.find(R"("id":"alias")"), std::string::npos) << list->body;
}

TEST_F(ResilienceTest, ReplicasAreToldWhoAsksAndForeignServersAreNot) {
  http::Headers seen;
  const auto note = [&seen](const http::Request& request, const http::ResponseWriterPtr& writer) {
    seen = request.headers;
    answer_well({}, writer);
  };
  Scripted own(note), foreign(note, "/openai/v1/chat/completions");
  const http::Headers forged{{"x-capstan-tenant", "somebody/else"}, {"x-capstan-priority", "100"}};
  directory_.set({own.replica("own")});
  EXPECT_EQ(post(R"({"model":"m","service_tier":"flex"})", forged)->status, 200);
  EXPECT_EQ(seen.get("x-capstan-tenant"), "default/default");
  EXPECT_EQ(seen.get("x-capstan-priority"), "-1");
  Replica there = foreign.replica("upstream/m");
  there.base_path = "/openai/v1";
  there.external = true;
  directory_.set({there});
  const http::Headers with_key{{"x-capstan-tenant", "somebody/else"}, {"authorization", "Bearer the-clients"}};
  EXPECT_EQ(post(R"({"model":"m"})", with_key)->status, 200);
  EXPECT_EQ(seen.find("x-capstan-tenant"), nullptr);
  EXPECT_EQ(seen.find("x-capstan-priority"), nullptr);
  EXPECT_EQ(seen.find("authorization"), nullptr);
  there.key = "sk-there";
  directory_.set({there});
  EXPECT_EQ(post(R"({"model":"m"})", with_key)->status, 200);
  EXPECT_EQ(seen.get("authorization"), "Bearer sk-there");
}

// Goal: what an operator finds of a request afterwards. Method: an access log in a file, a replica that notes its headers.
TEST(AccessLine, EveryRequestHasOneObjectWithItsTraceAndTheReplicaHasTheSameTrace) {
  const std::string trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  const std::filesystem::path file = testing::TempDir() + "access_line_" + random_hex(6);
  http::Headers seen;
  Scripted replica([&seen](const http::Request& request, const http::ResponseWriterPtr& writer) {
    seen = request.headers;
    writer->respond(http::Response::json(
        200, *Json::parse(R"({"usage":{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":5}}})")));
  });
  Directory directory;
  directory.set({replica.replica("a-1")});
  {
    Gateway gateway(directory, std::make_shared<prometheus::Registry>(), {.access_log = file.string()});
    http::Router router;
    gateway.mount(router);
    const auto server = http::Server::start({}, router).value();
    http::Client client;
    const auto ask = [&](std::string body, http::Headers headers) {
      return client.request(fmt::format("http://127.0.0.1:{}", server->port()),
                            {.method = "POST",
                             .target = "/v1/chat/completions",
                             .headers = std::move(headers),
                             .body = std::move(body)},
                            {});
    };
    EXPECT_EQ(ask(R"({"model":"m","messages":[]})", {{"traceparent", trace},
                                                     {"tracestate", "vendor=value"},
                                                     {"x-request-id", "mine"},
                                                     {"authorization", "Bearer sk-secret"}})
                  ->status,
              200);
    EXPECT_EQ(ask(R"({"model":"unknown"})", {})->status, 404);
  }
  EXPECT_EQ(seen.get("traceparent"), trace);
  EXPECT_EQ(seen.get("tracestate"), "vendor=value");
  EXPECT_EQ(seen.get("x-request-id"), "mine");
  const std::string text = read_file(file, 1 << 20).value();
  EXPECT_EQ(text.find("sk-secret"), std::string::npos);
  const auto lines = split(text, '\n');
  ASSERT_EQ(lines.size(), 3u);  // the last one is empty
  Json line = Json::parse(lines[0]).value();
  EXPECT_GT(line.get_int("time_ms"), 0);
  for (const char* time : {"time_ms", "queued_ms", "first_byte_ms", "total_ms"}) {
    EXPECT_TRUE(line.get_int(time)) << time;
    line.erase(time);
  }
  EXPECT_EQ(line.dump(),
            R"({"id":"mine","path":"/v1/chat/completions","status":200,"model":"m","replica":"a-1","organisation":"default",)"
            R"("project":"default","stream":false,"prompt_tokens":9,"cached_tokens":5,"completion_tokens":4,)" +
                fmt::format(R"("traceparent":"{}"}})", trace));
  const Json refused = Json::parse(lines[1]).value();
  EXPECT_EQ(refused.get_int("status"), 404);
  EXPECT_FALSE(refused.get_string("replica"));
  std::filesystem::remove(file);
}

// Goal: who has a replica to himself takes HTTP/1.1, those beside him share a connection of HTTP/2.
TEST(LoneRequestTest, TakesHttp1) {
  std::promise<void> release, arrived;
  const std::shared_future<void> released = release.get_future().share();
  http::Router upstream, router;
  upstream.add("POST", "/v1/chat/completions",
               [&, released](const http::Request& request, const http::ResponseWriterPtr& writer) {
                 if (request.body.contains("hold")) {
                   arrived.set_value();
                   released.wait();
                 }
                 writer->respond(http::Response::json(200, Json::object({{"version", request.http_version}})));
               });
  const auto replica = http::Server::start({}, upstream).value();
  Directory directory;
  directory.set({{.id = "a-1", .model = "m", .url = fmt::format("http://127.0.0.1:{}", replica->port()), .ready = true,
                  .http2 = true}});
  Gateway gateway(directory, std::make_shared<prometheus::Registry>());
  gateway.mount(router);
  const auto server = http::Server::start({}, router).value();
  const auto version = [&](const std::string& user) {
    http::Client client;
    const auto answer = client.request(fmt::format("http://127.0.0.1:{}", server->port()),
                                       {.method = "POST",
                                        .target = "/v1/chat/completions",
                                        .body = R"({"model":"m","user":")" + user + "\"}"},
                                       {});
    return answer ? Json::parse(answer->body)->get_string("version").value_or(answer->body) : answer.error().message;
  };
  EXPECT_EQ(version("first"), "1.1");
  EXPECT_EQ(version("second"), "1.1");
  auto held = std::async(std::launch::async, version, "hold");
  arrived.get_future().wait();
  EXPECT_EQ(version("beside"), "2");
  release.set_value();
  EXPECT_EQ(held.get(), "1.1");
}

}  // namespace
}  // namespace capstan::gateway
