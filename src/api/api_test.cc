// Goal: the control API over real sockets, with the real controller behind it and no worker but the one that
// the test plays.
#include "api/api_testing.h"

namespace capstan::api {
namespace {

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
            "'kind' cannot be 'jobs'; known are job, service, tasks, sandbox");
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
  for (const char* path : {"/api/v1/apply", "/api/v1/workloads/{name}/logs", "/api/v1/events", "/api/v1/workloads/{name}/results",
                           "/api/v1/shutdown", "/api/v1/fleet", "/api/v1/hosts/{verb}",
                           "/api/v1/tenants/{name}/remove", "/api/v1/queue", "/api/v1/policy", "/api/v1/keys/revoke",
                           "/api/v1/usage", "/v1/chat/completions", "/v1/responses/{id}", "/model/{model}/converse"}) {
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
