#include "workload/session_spec.h"

#include <gtest/gtest.h>

#include "workload/spec.h"

namespace capstan::workload {
namespace {

std::expected<std::vector<Spec>, std::vector<Diagnostic>> parse(const std::string& more) {
  return parse_specs("kind: sandbox\nname: workbench\n" + more, {.source = "t.yaml"});
}
std::string error_of(const std::string& more) {
  const auto specs = parse(more);
  return specs ? "" : specs.error().front().text();
}

constexpr const char* kFull = R"(template: python-tools
timeout: 90m
resources: {cpus: 2, memory: 1GiB}
env: {GREETING: hello}
network: {allow: [pypi.org, '*.example.org:8443']}
tenant: research
priority: 5
labels: {team: a}
placement: {host_class: m8g}
preemptible: false
restarts: {budget: 2}
)";

TEST(SessionSpecTest, ASandboxIsReadWithItsDefaults) {
  const auto specs = parse("");
  ASSERT_TRUE(specs) << specs.error().front().text();
  const Spec& spec = specs->front();
  EXPECT_EQ(spec.kind, Kind::kSandbox);
  EXPECT_TRUE(spec.is_gang());
  EXPECT_EQ(spec.session, SessionSpec{});
  EXPECT_EQ(spec.resources.milli_cpus, 1000);
  EXPECT_EQ(spec.resources.memory_bytes, kSessionMemoryDefault);
  EXPECT_EQ(spec.restarts.budget, 0);
  EXPECT_EQ(spec.placement.required, fleet::Level::kNone);
}

TEST(SessionSpecTest, EveryFieldIsReadAndBothStoredFormsReadBackEqual) {
  for (const std::string& yaml : {std::string(kFull), std::string("timeout: none\nnetwork: {allow: []}\n"), std::string()}) {
    const auto specs = parse(yaml);
    ASSERT_TRUE(specs) << specs.error().front().text();
    for (const Defaults defaults : {Defaults::kLeftOut, Defaults::kWritten}) {
      const auto back = from_json(*Json::parse(to_json(specs->front(), defaults).dump()));
      ASSERT_TRUE(back) << back.error().message;
      EXPECT_EQ(*back, specs->front());
      EXPECT_TRUE(differences(specs->front(), *back).empty());
    }
  }
  const Spec spec = parse(kFull)->front();
  EXPECT_EQ(spec.session, (SessionSpec{"python-tools", 90 * 60'000, {{"pypi.org", "*.example.org:8443"}}}));
  EXPECT_EQ(spec.restarts.budget, 2);
  EXPECT_EQ(spec.env, (Spec::Pairs{{"GREETING", "hello"}}));
  EXPECT_EQ(parse("timeout: none\n")->front().session.timeout_ms, 0);
}

TEST(SessionSpecTest, TheCanonicalFormOfADefaultSandboxIsShort) {
  EXPECT_EQ(to_json(parse("")->front()).dump(),
            R"({"kind":"sandbox","name":"workbench","resources":{"memory_bytes":536870912}})");
}

TEST(SessionSpecTest, AStoredSessionWithAWrongTypeIsCorruptAndNamed) {
  const auto read = [](const std::string& session) {
    const auto spec = from_json(*Json::parse(R"({"kind":"sandbox","name":"a","session":)" + session + "}"));
    return spec ? "" : spec.error().message;
  };
  EXPECT_NE(read("[]").find("'session'"), std::string::npos);
  EXPECT_NE(read(R"({"timeout_ms":-1})").find("timeout_ms"), std::string::npos);
  EXPECT_NE(read(R"({"template":5})").find("template"), std::string::npos);
  EXPECT_NE(read(R"({"allow":[1]})").find("allow"), std::string::npos);
  EXPECT_EQ(read(R"({"allow":["a"]})"), "");
}

TEST(SessionSpecTest, WhatCannotWorkIsRefusedWithItsPlaceAndWhatWouldBeRight) {
  EXPECT_EQ(error_of("command: ls\n").find("t.yaml:3:1: a sandbox waits for commands"), 0u);
  EXPECT_NE(error_of("workdir: /x\n").find("/home/user"), std::string::npos);
  EXPECT_NE(error_of("user: ada\n").find("leave it out"), std::string::npos);
  EXPECT_NE(error_of("ranks: 2\n").find("a document of its own"), std::string::npos);
  EXPECT_NE(error_of("timeout: 0\n").find("or 'none'"), std::string::npos);
  EXPECT_NE(error_of("timeout: never\n").find("'timeout'"), std::string::npos);
  EXPECT_NE(error_of("resources: {gpus: 1}\n").find("no GPUs"), std::string::npos);
  EXPECT_NE(error_of("resources: {memory: 1KiB}\n").find("at least 1MiB"), std::string::npos);
  EXPECT_NE(error_of("network: {}\n").find("'network.allow' is missing"), std::string::npos);
  EXPECT_NE(error_of("network: {allow: pypi.org}\n").find("must be a list"), std::string::npos);
  EXPECT_NE(error_of("network: {alow: []}\n").find("allow"), std::string::npos);
  EXPECT_NE(error_of("template: ../x\n").find("capstan session templates"), std::string::npos);
  EXPECT_NE(error_of("placement: {segment: 2}\n").find("a sandbox is placed by itself"), std::string::npos);
  EXPECT_NE(error_of("lane: python\n").find("unknown key 'lane'"), std::string::npos);
}

// Goal: nothing that would empty a running sandbox happens by an apply.
TEST(SessionSpecTest, WhatARunningSandboxIsMadeOfCannotChangeAndTheRestCan) {
  const Spec base = parse("")->front();
  for (const char* changed : {"template: other\n", "timeout: 1h\n", "network: {allow: []}\n", "env: {A: b}\n",
                              "resources: {cpus: 2}\n", "placement: {cluster: c}\n"}) {
    const auto changes = differences(base, parse(changed)->front());
    ASSERT_EQ(changes.size(), 1u) << changed;
    EXPECT_EQ(changes[0].restart, Restart::kRefused) << changed;
  }
  for (const char* changed : {"priority: 3\n", "labels: {a: b}\n", "preemptible: false\n", "grace: 1s\n",
                              "restarts: {budget: 1}\n"}) {
    const auto changes = differences(base, parse(changed)->front());
    ASSERT_EQ(changes.size(), 1u) << changed;
    EXPECT_EQ(changes[0].restart, Restart::kNone) << changed;
  }
  const auto timeout = differences(base, parse("timeout: none\n")->front());
  EXPECT_EQ(timeout[0].from + " " + timeout[0].to, "8h none");
}

}  // namespace
}  // namespace capstan::workload
