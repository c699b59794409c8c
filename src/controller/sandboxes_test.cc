// Goal: the lives of sandboxes. Method: scripts (script_testing.h).
#include "controller/script_testing.h"

namespace capstan::controller {
namespace {

// Goal: to the controller a sandbox is a gang of one, whose end is told in its own words.
TEST(Controller, ASandboxIsPlacedRunsAndEndsWithAReason) {
  check_script(R"(
    host h1 2 -> host_joined
    apply {kind: sandbox, name: a, timeout: 1h} -> workload_submitted attempt_began workload_state:starting +start:1-1-0
    started a/0 5e55 -> rank_started:0 workload_state:running
    explain a -> sandbox a is running | attempt 1 is placed: 1 ranks on h1
    apply {kind: sandbox, name: a, timeout: 2h}
      -> refused: sandbox a: timeout cannot change from 1h to 2h while it runs; cancel it first
    apply {kind: sandbox, name: a, timeout: 1h, priority: 3} -> workload_updated
    ended a/0 its time is over -> rank_ended:0 attempt_ended:succeeded workload_state:succeeded
    show a -> succeeded 1/1 its time is over
  )");
}

TEST(Controller, ALostSandboxFailsUnlessItMayStartAgain) {
  check_script(R"(
    host h1 2 -> host_joined
    apply {kind: sandbox, name: a} -> workload_submitted attempt_began workload_state:starting +start:1-1-0
    started a/0 5e55 -> rank_started:0 workload_state:running
    lostrank a/0 -> rank_ended:0 attempt_stopping:failure attempt_ended:failed workload_state:failed
    show a -> failed 0/1 it was lost: gone
    apply {kind: sandbox, name: b, restarts: {budget: 1, backoff: 1s}}
      -> workload_submitted attempt_began workload_state:starting +start:2-1-0
    started b/0 5e56 -> rank_started:0 workload_state:running
    lostrank b/0 -> rank_ended:0 attempt_stopping:failure attempt_ended:restart workload_state:restarting
    wait 1000 -> attempt_began workload_state:starting +start:2-2-0
    started b/0 5e57 -> rank_started:0 workload_state:running
    cancel b -> workload_cancelling attempt_stopping:cancel workload_state:stopping +stop:2-2-0
    exit b/0 0 stopped -> rank_ended:0 attempt_ended:cancelled workload_state:cancelled
  )");
}

// Goal: preemption ends it gracefully and puts it back into the queue; it begins again elsewhere or later.
TEST(Controller, ASandboxMakesRoomForWorkOfHigherPriority) {
  check_script(R"(
    host h1 2 -> host_joined
    apply {kind: sandbox, name: a, resources: {cpus: 2}}
      -> workload_submitted attempt_began workload_state:starting +start:1-1-0
    started a/0 5e55 -> rank_started:0 workload_state:running
    apply {kind: job, name: b, priority: 10, command: x, resources: {cpus: 2}}
      -> workload_submitted claim_added attempt_stopping:preempted workload_state:stopping +stop:1-1-0
    exit a/0 0 stopped
      -> rank_ended:0 attempt_ended:resume attempt_began workload_state:pending workload_state:starting +start:2-1-0
    exit b/0 0
      -> rank_ended:0 attempt_ended:succeeded workload_state:succeeded attempt_began workload_state:starting +start:1-2-0
  )");
}

// Goal: what a host is told of a sandbox, and that a snapshot knows its session.
TEST(Controller, ASandboxIsStartedWithItsTermsAndSnapshotsKeepItsSession) {
  Controller controller;
  controller.apply({1, JoinHost{"h1", "i1", "b", "http://127.0.0.1:1", {2000, std::int64_t{8} << 30, 0}, {}}});
  const auto specs = workload::parse_specs(
      "{kind: sandbox, name: a, template: tools, timeout: none, network: {allow: [x.org]}, env: {K: v}}",
      {.source = "t"});
  ASSERT_TRUE(specs);
  controller.apply({2, Apply{*specs, false}});
  const RankId id{1, 1, 0};
  const auto effect = start_effect(controller.state(), id);
  const auto& start = std::get<protocol::StartRank>(effect.body);
  EXPECT_EQ(start.kind, "sandbox");
  EXPECT_TRUE(start.command.empty());
  EXPECT_EQ(start.resources.memory_bytes, workload::kSessionMemoryDefault);
  ASSERT_TRUE(start.session);
  EXPECT_EQ(start.session->dump(), R"({"template":"tools","timeout_ms":0,"allow":["x.org"]})");
  std::map<std::string, std::string> env(start.env.begin(), start.env.end());
  EXPECT_EQ(env, (std::map<std::string, std::string>{
                     {"CAPSTAN_ATTEMPT", "1"}, {"CAPSTAN_JOB", "a"}, {"CAPSTAN_JOB_ID", "1"}, {"K", "v"}}));
  const auto back = protocol::Effect::from_json(*Json::parse(effect.to_json().dump()));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(*back, effect);

  controller.apply({3, Reports{"h1", {{1, id, protocol::RankStarted{0, 0, "5e55"}}}, {}}});
  EXPECT_EQ(view(controller.state(), *controller.state().find("a"), false).get_string("session"), "5e55");
  std::string text;
  controller.write_snapshot([&](std::string_view piece) { text += piece; });
  const auto again = Controller::from_snapshot_text(text);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->state_hash(), controller.state_hash());
  EXPECT_EQ(again->state().find("a")->job.session, "5e55");
}

}  // namespace
}  // namespace capstan::controller
