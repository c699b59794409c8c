// Goal: the routes about the fleet and its rules, with the real controller behind them.
#include <gtest/gtest.h>

#include "api/api_testing.h"
#include "api/body.h"
#include "api/scheduling_views.h"

namespace capstan::api {
namespace {

class SchedulingTest : public ApiTest {
 protected:
  // A worker that joins with some CPUs.
  void join(const std::string& host, std::int64_t milli_cpus) {
    protocol::SyncRequest request;
    request.worker = host;
    request.incarnation = "of-" + host;
    request.build = "b";
    request.resources.milli_cpus = milli_cpus;
    request.logs_url = "http://127.0.0.1:1";
    ASSERT_EQ(send("POST", "/worker/v1/sync", request.to_json().dump(), "worker").status, 200);
  }
  Json get(const std::string& path) { return Json::parse(send("GET", path).body).value(); }
};

TEST(TimeTest, ReadsWhatPeopleWrite) {
  EXPECT_EQ(parse_time("now", 5), 5);
  EXPECT_EQ(parse_time("+1h30m", 5), 5 + 5'400'000);
  EXPECT_EQ(parse_time("1970-01-02T00:00Z", 5), 86'400'000);
  EXPECT_EQ(parse_time("2026-11-24T09:00:30Z", 0), 1'795'510'830'000);
  EXPECT_EQ(parse_time("2026-11-24 09:00", 0), 1'795'510'800'000);
  for (const char* wrong : {"", "soon", "+", "+1x", "2026-11-31T09:00", "2026-11-24", "2026-11-24T24:00Z",
                            "2026-11-24T09:00+01:00", "+99999999999d"})
    EXPECT_FALSE(parse_time(wrong, 0)) << wrong;
}

TEST(BodyTest, MistakesNameTheMember) {
  const auto error = [](std::string text, auto&& read) {
    Body body(http::Request{.body = std::move(text)}, 0);
    read(body);
    const auto result = body.finish();
    return result ? std::string("accepted") : result.error().message;
  };
  std::int64_t number = 0;
  std::string text;
  const auto both = [&](Body& body) {
    body.need("hosts", number);
    body.read("tenant", text);
    body.read_time("from", number);
  };
  EXPECT_EQ(error(R"({"hosts":1,"tenant":null})", both), "accepted");
  EXPECT_EQ(error(R"({"tenant":"a"})", both), "'hosts' is missing");
  EXPECT_EQ(error(R"({"hosts":"1"})", both), "'hosts' must be an integer, not string");
  EXPECT_EQ(error(R"({"hosts":1,"tenat":"a"})", both), "'tenat' is unknown; did you mean 'tenant'?");
  EXPECT_EQ(error(R"({"hosts":1,"from":"soon"})", both),
            "'from': 'soon' is no time; write now, +2h30m, or 2026-11-24T09:00Z (UTC)");
  EXPECT_EQ(error("[]", both), "the body must be a JSON object, not array");
}

TEST_F(SchedulingTest, TheFleetIsATreeOfCounts) {
  join("h1", 4000);
  join("h2", 4000);
  EXPECT_EQ(send("POST", "/api/v1/hosts/cordon", R"({"names":["h2"],"why":"noise"})").status, 200);
  const Json fleet = get("/api/v1/fleet");
  const Json& total = *fleet.find("total");
  EXPECT_EQ(total.get_int("hosts"), 2);
  EXPECT_EQ(total.get_int("hosts_free"), 1);
  EXPECT_EQ(total.get_int("milli_cpus"), 8000);
  EXPECT_EQ(total.get_int("milli_cpus_free"), 4000);
  EXPECT_EQ(total.find("unavailable")->dump(), R"({"cordoned":1})");
  const Json& cluster = fleet.find("regions")->items().at(0).find("clusters")->items().at(0);
  EXPECT_EQ(cluster.find("blocks")->items().at(0).get_int("hosts"), 2);
  EXPECT_EQ(send("POST", "/api/v1/hosts/uncordon", R"({"names":["h2"]})").status, 200);
  EXPECT_EQ(get("/api/v1/fleet").find("total")->get_int("hosts_free"), 2);
}

TEST_F(SchedulingTest, ConditionsOfHostsThatAreNotThereAreRefused) {
  join("h1", 4000);
  EXPECT_EQ(send("POST", "/api/v1/hosts/drain", R"({"names":["h9"]})").status, 404);
  EXPECT_EQ(send("POST", "/api/v1/hosts/drain", R"({"names":[]})").status, 400);
  const auto unknown = send("POST", "/api/v1/hosts/explode", R"({"names":["h1"]})");
  EXPECT_EQ(unknown.status, 400);
  EXPECT_NE(message_of(unknown).find("explode"), std::string::npos);
}

TEST_F(SchedulingTest, TenantsAreSetListedAndRemoved) {
  const std::string yaml = "tenants:\n- name: research\n  weight: 2\n- name: nlp\n  parent: research\n";
  const auto set = send("POST", "/api/v1/tenants?source=t.yaml", yaml);
  ASSERT_EQ(set.status, 200) << set.body;
  const Json tenants = get("/api/v1/tenants");
  std::vector<std::string> names;
  for (const Json& tenant : tenants.find("tenants")->items())
    names.push_back(fmt::format("{}{}", tenant.get_string("name").value(), tenant.get_int("depth").value()));
  EXPECT_EQ(names, (std::vector<std::string>{"default0", "research0", "nlp1"}));
  EXPECT_EQ(send("POST", "/api/v1/tenants/research/remove").status, 409);
  EXPECT_EQ(send("POST", "/api/v1/tenants/nlp/remove").status, 200);
  EXPECT_EQ(send("POST", "/api/v1/tenants/nlp/remove").status, 404);
  const auto wrong = send("POST", "/api/v1/tenants?source=t.yaml", "tenants:\n- name: a\n  wieght: 2\n");
  EXPECT_EQ(wrong.status, 400);
  EXPECT_NE(message_of(wrong).find("t.yaml:3:3: unknown key 'wieght'; did you mean 'weight'?"),
            std::string::npos)
      << message_of(wrong);
}

TEST_F(SchedulingTest, TheQueueSaysWhoWaitsInWhichOrderAndWhy) {
  join("h1", 1000);
  const auto job = [](std::string_view name, int priority) {
    return fmt::format("kind: job\nname: {}\npriority: {}\nresources: {{cpus: 2}}\ncommand: x\n", name,
                       priority);
  };
  ASSERT_EQ(send("POST", "/api/v1/apply", job("low", 1) + "---\n" + job("high", 2)).status, 200);
  const Json queue = get("/api/v1/queue");
  EXPECT_EQ(queue.get_int("waiting"), 2);
  const auto& list = queue.find("workloads")->items();
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].get_string("name"), "high");
  EXPECT_EQ(list[0].get_int("position"), 1);
  EXPECT_EQ(list[0].get_string("decision"), "never");
  EXPECT_FALSE(list[0].get_string("reason").value_or("").empty());
  EXPECT_EQ(list[1].get_string("name"), "low");
  EXPECT_EQ(get("/api/v1/queue?limit=1").find("workloads")->size(), 1u);
}

TEST_F(SchedulingTest, ReservationsAndWindowsAreListedAndEnd) {
  join("h1", 4000);
  join("h2", 4000);
  ASSERT_EQ(send("POST", "/api/v1/tenants", "tenants:\n- name: nlp\n").status, 200);
  const auto made = send("POST", "/api/v1/reservations",
                         R"({"name":"march","tenant":"nlp","hosts":1,"from":"+1h","until":"+2h"})");
  ASSERT_EQ(made.status, 200) << made.body;
  ASSERT_EQ(send("POST", "/api/v1/maintenance", R"({"names":["h2"],"from":"+3h","until":"+4h"})").status,
            200);
  const auto list = get("/api/v1/reservations").find("reservations")->items();
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].get_string("name"), "march");
  EXPECT_EQ(list[0].get_string("kind"), "reservation");
  EXPECT_EQ(list[0].get_int("hosts"), 1);
  EXPECT_EQ(list[0].get_string("state"), "comes");
  EXPECT_EQ(list[1].get_string("kind"), "maintenance");
  EXPECT_EQ(send("POST", "/api/v1/reservations", R"({"name":"x","tenant":"nobody","hosts":1,"until":"+2h"})")
                .status,
            404);
  const auto endless = send("POST", "/api/v1/reservations", R"({"name":"x","tenant":"nlp","hosts":1})");
  EXPECT_EQ(endless.status, 400);
  EXPECT_EQ(message_of(endless), "'until' is missing");
  EXPECT_EQ(send("POST", "/api/v1/reservations/march/remove").status, 200);
  EXPECT_EQ(send("POST", "/api/v1/reservations/march/remove").status, 404);
  EXPECT_EQ(send("POST", "/api/v1/reservations/h2/remove").status, 200);  // the window, by the name of its first host
  EXPECT_EQ(get("/api/v1/reservations").find("reservations")->size(), 0u);
}

TEST_F(SchedulingTest, AFleetFileAddsItsHostsAndWhatIsWrongInItHasALine) {
  const std::string yaml =
      "fleet: lab\nregions:\n- name: lab\n  clusters:\n  - name: main\n    blocks:\n    - name: b0\n"
      "      ultraservers: [{kind: u-p6e-gb200x72, count: 2, spares: 2, name: u#}]\n"
      "      hosts: [{class: m8g.48xlarge, count: 3, name: cpu#}]\n";
  const auto added = send("POST", "/api/v1/fleet?source=lab.yaml&present=1", yaml);
  ASSERT_EQ(added.status, 200) << added.body;
  const Json fleet = get("/api/v1/fleet");
  EXPECT_EQ(fleet.find("total")->get_int("ultraservers"), 2);
  EXPECT_EQ(fleet.find("total")->get_int("ultraservers_free"), 2);
  EXPECT_EQ(fleet.find("total")->get_int("hosts"), 2 * 18 + 3);
  EXPECT_EQ(fleet.find("total")->get_int("gpus_free"), 144);
  EXPECT_EQ(fleet.find("regions")->items().at(0).get_string("name"), "lab");
  EXPECT_EQ(fleet.find("classes")->size(), 2u);
  const auto again = send("POST", "/api/v1/fleet?source=lab.yaml", yaml);
  EXPECT_EQ(again.status, 409) << again.body;
  // A whole UltraServer by its name.
  const auto cordoned = send("POST", "/api/v1/hosts/cordon", R"({"names":["main-b0-u0"]})");
  EXPECT_EQ(Json::parse(cordoned.body)->get_int("hosts"), 18) << cordoned.body;
  EXPECT_EQ(get("/api/v1/fleet").find("total")->get_int("ultraservers_free"), 1);
  const auto matched = [&](const std::string& query) {
    return get("/api/v1/hosts?" + query).get_int("matched");
  };
  EXPECT_EQ(matched("unavailable=1"), 18);
  EXPECT_EQ(matched("under=main-b0-u1"), 18);
  EXPECT_EQ(matched("under=main-b0-u1&unavailable=1"), 0);
  EXPECT_EQ(matched("under=main/b0"), 39);
  EXPECT_EQ(matched("under=main"), 39);
  EXPECT_EQ(get("/api/v1/hosts?under=lab&limit=5").find("hosts")->size(), 5u);
  EXPECT_EQ(send("GET", "/api/v1/hosts?under=nowhere").status, 404);
  const auto wrong = send("POST", "/api/v1/fleet?source=lab.yaml", "fleet: lab\nregoins: []\n");
  EXPECT_EQ(wrong.status, 400);
  EXPECT_NE(message_of(wrong).find("lab.yaml:"), std::string::npos) << message_of(wrong);
}

TEST_F(SchedulingTest, DefragmentationProposesNothingWhereNothingRuns) {
  join("h1", 4000);
  const auto added =
      send("POST", "/api/v1/fleet?present=1",
           "fleet: lab\nregions: [{name: r, clusters: [{name: c, blocks: [{name: b, ultraservers: "
           "[{kind: u-p6e-gb200x72}]}]}]}]\n");
  ASSERT_EQ(added.status, 200) << added.body;
  const auto plan = send("POST", "/api/v1/defragment", R"({"dry_run":true})");
  ASSERT_EQ(plan.status, 200) << plan.body;
  EXPECT_EQ(Json::parse(plan.body)->find("moves")->size(), 0u);
}

TEST_F(SchedulingTest, ThePolicyOfTheQueueChanges) {
  const std::string first = get("/api/v1/policy").get_string("order").value();
  EXPECT_EQ(send("POST", "/api/v1/policy", R"({"order":"srsf"})").status, 200);
  EXPECT_EQ(get("/api/v1/policy").get_string("order"), "srsf");
  EXPECT_EQ(get("/api/v1/queue").get_string("order"), "srsf");
  EXPECT_EQ(send("POST", "/api/v1/policy", fmt::format(R"({{"order":"{}"}})", first)).status, 200);
  EXPECT_EQ(send("POST", "/api/v1/policy", R"({"order":"lifo"})").status, 400);
  EXPECT_EQ(send("POST", "/api/v1/policy", R"({"oder":"fifo"})").status, 400);
}

}  // namespace
}  // namespace capstan::api
