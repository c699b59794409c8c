// Goal: the control API over real sockets, with the real controller behind it and no worker but the one that
// the test plays.
#include "api/api.h"

#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include <mutex>

#include "controller/controller.h"

namespace capstan::api {
namespace {

// The controller without a journal: every event counts as durable at once.
class DirectBackend final : public Backend {
 public:
  Result<Json> apply(controller::Apply command) override { return decide(std::move(command)); }
  Result<Json> cancel(controller::Cancel command) override { return decide(std::move(command)); }
  Result<protocol::SyncAnswer> sync(protocol::SyncRequest request) override {
    if (request.incarnation != incarnation_) {
      incarnation_ = request.incarnation;
      (void)decide(controller::JoinHost{request.worker, request.incarnation, request.build, request.logs_url,
                                        request.resources, request.capabilities});
    }
    if (!request.reports.empty()) (void)decide(controller::Reports{request.worker, request.reports});
    protocol::SyncAnswer answer;
    answer.epoch = 1;
    if (!request.reports.empty()) answer.reports_acked = request.reports.back().seq;
    return answer;
  }
  Result<void> read(std::function<void(const controller::State&)> callback) override {
    const std::scoped_lock lock(mutex_);
    callback(controller_.state());
    return {};
  }
  Result<std::vector<Json>> events(std::int64_t since, std::int64_t limit) override {
    const std::scoped_lock lock(mutex_);
    std::vector<Json> out;
    for (const Json& event : events_) {
      if (event.get_int("seq").value_or(0) > since && static_cast<std::int64_t>(out.size()) < limit)
        out.push_back(event);
    }
    return out;
  }
  bool wait_for_event(std::int64_t, int) override { return !shut_down; }
  Result<void> ready() override { return {}; }
  void shutdown(bool) override { shut_down = true; }

  std::atomic<bool> shut_down{false};

 private:
  template <class Command>
  Result<Json> decide(Command command) {
    const std::scoped_lock lock(mutex_);
    auto outcome = controller_.apply({++now_ms_, std::move(command)});
    for (Json& event : outcome.events) {
      event["seq"] = static_cast<std::int64_t>(events_.size()) + 1;
      events_.push_back(std::move(event));
    }
    return outcome.answer;
  }
  std::mutex mutex_;
  controller::Controller controller_;
  std::vector<Json> events_;
  std::int64_t now_ms_ = 1000;
  std::string incarnation_;
};

class ApiTest : public testing::Test {
 protected:
  void SetUp() override {
    api_.mount(router_);
    server_ = std::move(http::Server::start({}, router_.handler()).value());
    url_ = fmt::format("http://127.0.0.1:{}", server_->port());
  }
  void TearDown() override { api_.cancel(); }

  http::Response send(std::string method, std::string target, std::string body = "",
                      std::string token = "control") {
    http::Request request{.method = std::move(method), .target = std::move(target), .body = std::move(body)};
    if (!token.empty()) request.headers.set("authorization", "Bearer " + token);
    return client_.request(url_, request, {}).value();
  }
  static std::string message_of(const http::Response& response) {
    const auto body = Json::parse(response.body);
    const Json* error = body ? body->find("error") : nullptr;
    return error != nullptr ? error->get_string("message").value_or("") : "";
  }

  DirectBackend backend_;
  Api api_{backend_, {"control", "worker"}, std::make_shared<prometheus::Registry>()};
  http::Router router_;
  std::unique_ptr<http::Server> server_;
  std::string url_;
  http::Client client_;
};

TEST_F(ApiTest, EveryPathNeedsItsOwnToken) {
  EXPECT_EQ(send("GET", "/api/v1/workloads", "", "").status, 401);
  EXPECT_EQ(send("GET", "/api/v1/workloads", "", "worker").status, 401);
  EXPECT_EQ(send("POST", "/worker/v1/sync", "{}", "control").status, 401);
  EXPECT_EQ(send("GET", "/api/v1/workloads").status, 200);
  for (const char* open : {"/healthz", "/readyz", "/metrics", "/api/v1/openapi.json"})
    EXPECT_EQ(send("GET", open, "", "").status, 200) << open;
}

TEST_F(ApiTest, AppliedWorkloadsAreListedDescribedAndCancelled) {
  const std::string spec = "kind: job\nname: a\nlabels: {team: x}\ncommand: 'true'\n";
  EXPECT_NE(send("POST", "/api/v1/apply?source=a.yaml", spec).body.find(R"("action":"created")"),
            std::string::npos);
  EXPECT_NE(send("POST", "/api/v1/apply?source=a.yaml", spec).body.find(R"("action":"unchanged")"),
            std::string::npos);
  EXPECT_NE(send("GET", "/api/v1/workloads?label=team%3Dx&kind=job").body.find(R"("name":"a")"),
            std::string::npos);
  EXPECT_EQ(send("GET", "/api/v1/workloads?label=team%3Dy").body, R"({"workloads":[]})");
  EXPECT_EQ(Json::parse(send("GET", "/api/v1/workloads/a").body)->find("spec")->get_string("name"), "a");
  EXPECT_EQ(send("POST", "/api/v1/workloads/a/cancel", "{}").status, 200);
  EXPECT_EQ(Json::parse(send("GET", "/api/v1/workloads/a").body)->get_string("state"), "cancelled");
}

TEST_F(ApiTest, MistakesSayWhatWouldBeRight) {
  EXPECT_EQ(
      message_of(send("POST", "/api/v1/apply?source=a.yaml", "kind: job\nname: a\nrank: 2\ncommand: x\n")),
      "a.yaml:3:1: unknown key 'rank'; did you mean 'ranks'?");
  EXPECT_EQ(message_of(send("GET", "/api/v1/workloads?kind=jobs")),
            "'kind' cannot be 'jobs'; known are job, service, tasks");
  EXPECT_EQ(message_of(send("GET", "/api/v1/events?since=x")),
            "'since' must be a whole number from 0, not 'x'");
  EXPECT_EQ(message_of(send("GET", "/api/v1/workloads/b")), "there is no workload 'b'");
  EXPECT_EQ(send("POST", "/worker/v1/sync", "{}", "worker").status, 400);
}

TEST_F(ApiTest, EventsAreFollowedFromWhereTheClientStands) {
  send("POST", "/api/v1/apply", "kind: job\nname: a\ncommand: 'true'\n");
  std::string seen;
  const http::Request request{.target = "/api/v1/events?follow=1&since=0",
                              .headers = {{"authorization", "Bearer control"}}};
  const auto result = client_.stream(
      url_, request, {.timeout_ms = 5000}, [](const http::Response& head) { return head.status == 200; },
      [&](std::string_view piece) {
        seen += piece;
        return seen.find("id: 1\n") == std::string::npos;
      });
  EXPECT_EQ(result.error().code, Code::kCancelled);
  EXPECT_NE(seen.find("data: {"), std::string::npos);
}

TEST_F(ApiTest, HostsAndMetricsShowAWorkerThatJoined) {
  protocol::SyncRequest join;
  join.worker = "h1";
  join.incarnation = "aa";
  join.build = "b";
  join.resources.milli_cpus = 2000;
  join.logs_url = "http://127.0.0.1:1";
  EXPECT_EQ(send("POST", "/worker/v1/sync", join.to_json().dump(), "worker").status, 200);
  EXPECT_EQ(
      Json::parse(send("GET", "/api/v1/hosts").body)->find("hosts")->items().at(0).get_int("milli_cpus_free"),
      2000);
  EXPECT_NE(send("GET", "/metrics").body.find("capstan_hosts 1"), std::string::npos);
}

TEST_F(ApiTest, OpenApiDocumentNamesEveryRoute) {
  const auto document = Json::parse(send("GET", "/api/v1/openapi.json").body);
  ASSERT_TRUE(document);
  EXPECT_EQ(document->get_string("openapi"), "3.1.0");
  const Json* paths = document->find("paths");
  for (const char* path :
       {"/api/v1/apply", "/api/v1/workloads/{name}/logs", "/api/v1/events", "/api/v1/shutdown"}) {
    EXPECT_TRUE(paths->contains(path)) << path;
  }
}

TEST_F(ApiTest, ShutdownIsAcceptedAndReachesTheProcess) {
  EXPECT_EQ(send("POST", "/api/v1/shutdown", R"({"stop_ranks":true})").status, 200);
  for (int i = 0; i < 100 && !backend_.shut_down; ++i) usleep(10'000);
  EXPECT_TRUE(backend_.shut_down);
}

}  // namespace
}  // namespace capstan::api
