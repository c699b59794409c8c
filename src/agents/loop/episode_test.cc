// Goal: the loop ends when it should and for the reason it says, tells model and judges what happened, and a
// replay comes to the same steps or says which differ. Method: a World whose answers are a script, and whose
// clock moves a second with each.
#include "agents/loop/episode.h"

#include <gtest/gtest.h>

#include <deque>
#include <filesystem>

#include "agents/loop/recording.h"
#include "agents/loop/replay.h"
#include "base/file.h"

namespace capstan::agents::loop {
namespace {

ModelReply says(std::string content, Tokens tokens = {.input = 10, .output = 5}) {
  return {.content = std::move(content), .finish = "stop", .tokens = tokens};
}

ModelReply calls(std::vector<ToolCall> calls) {
  return {.reasoning = "hm",
          .calls = std::move(calls),
          .finish = "tool_calls",
          .tokens = {.input = 10, .output = 5}};
}

Outcome good(std::string output) { return {.output = std::move(output), .ended = "exited"}; }
Outcome bad(std::string output) { return {.output = std::move(output), .ended = "exited", .exit_code = 1}; }

class ScriptedWorld final : public World {
 public:
  Result<ModelReply> ask(const Json& body, std::int64_t) override {
    now_ += 1000;
    bodies.push_back(body);
    if (replies.empty()) return fail(Code::kUnavailable, "nobody answers");
    ModelReply reply = replies.front();
    replies.pop_front();
    return reply;
  }
  Result<Outcome> call(const ToolCall& call, std::int64_t) override {
    now_ += 1000;
    called.push_back(call);
    return good("output of " + call.name);
  }
  Result<Outcome> judge(StepKind kind, const Program&, const Json& facts, std::int64_t) override {
    now_ += 1000;
    judged.push_back(facts);
    if (kind == StepKind::kScore) return good("so far\n0.75\n");
    Outcome outcome = verdicts.front();
    verdicts.pop_front();
    return outcome;
  }
  Result<void> restart() override { return ++restarts, Result<void>{}; }
  std::int64_t now_ms() override { return now_; }
  sandbox::Usage usage() override { return {.cpu_us = 7}; }

  std::deque<ModelReply> replies;
  std::deque<Outcome> verdicts;
  std::vector<Json> bodies, judged;
  std::vector<ToolCall> called;
  int restarts = 0;

 private:
  std::int64_t now_ = 0;
};

AgentSpec spec_of(const std::string& more = "") {
  auto parsed = parse_agents(
      "kind: agent\nname: t\nmodel: {name: m, seed: 4, price: {input: 2, cached: 1, output: 10}}\n"
      "prompt: p\ntools: [python]\n" +
          more,
      {.source = "t"});
  EXPECT_TRUE(parsed) << (parsed ? "" : parsed.error().front().text());
  return parsed->agent;
}

struct Ran {
  Result<End> end = End{};
  std::vector<Step> steps;
};

Ran run(const AgentSpec& spec, World& world) {
  Ran out;
  out.end = run_episode(spec, world, [&](const Step& step) { out.steps.push_back(step); });
  return out;
}

std::string kinds(const Ran& run) {
  std::string out;
  for (const Step& step : run.steps) out += std::string(step_kind_name(step.kind)) + " ";
  return out;
}

TEST(Episode, TurnsAndCallsGoOnUntilAnAnswerWithoutACall) {
  ScriptedWorld world;
  world.replies = {calls({{"srv-1", "python", "{\"code\":\"1\"}"}, {"srv-2", "python", "{}"}}), says("42")};
  const Ran ran = run(spec_of(), world);
  ASSERT_TRUE(ran.end) << ran.end.error().message;
  EXPECT_EQ(kinds(ran), "model tool tool model ");
  EXPECT_EQ(ran.end->reason, "done");
  EXPECT_EQ(ran.end->answer, "42");
  EXPECT_EQ(ran.end->tokens.total(), 30);
  EXPECT_EQ(ran.end->pico_dollars, 20 * 2'000'000 + 10 * 10'000'000);
  // The second request holds the first turn, its reasoning, and both results under ids of ours.
  const Json& messages = *world.bodies[1].find("messages");
  ASSERT_EQ(messages.size(), 4u);
  EXPECT_EQ(messages.items()[1].get_string("reasoning"), "hm");
  EXPECT_EQ(messages.items()[2].get_string("tool_call_id"), "call00001");
  EXPECT_EQ(messages.items()[3].get_string("tool_call_id"), "call00002");
  EXPECT_EQ(messages.items()[3].get_string("content"), "output of python");
}

TEST(Episode, AToolThatWasNotOfferedDoesNotRunAndTheModelIsToldWhichThereAre) {
  ScriptedWorld world;
  world.replies = {calls({{"1", "run_command", "{\"command\":\"id\"}"}}), says("sorry")};
  const Ran ran = run(spec_of(), world);
  ASSERT_TRUE(ran.end);
  EXPECT_TRUE(world.called.empty());
  EXPECT_EQ(ran.steps[1].outcome.ended, "refused");
  EXPECT_EQ(ran.steps[1].outcome.output, "there is no tool 'run_command'; there are: python");
}

TEST(Episode, EachBudgetEndsItAndIsNamed) {
  const auto reason = [](const std::string& budget) {
    ScriptedWorld world;
    for (int i = 0; i < 100; ++i) world.replies.push_back(calls({{"1", "python", "{}"}}));
    const Ran ran = run(spec_of("budget: " + budget), world);
    EXPECT_TRUE(ran.end);
    return fmt::format("{} after {}", ran.end->reason, ran.steps.size());
  };
  EXPECT_EQ(reason("{steps: 5}"), "steps after 5");
  EXPECT_EQ(reason("{tokens: 40}"), "tokens after 5");        // 15 a turn: the third goes over
  EXPECT_EQ(reason("{time: 4s}"), "time after 4");            // each step takes a second
  EXPECT_EQ(reason("{dollars: 0.0002}"), "dollars after 5");  // 70 millionths a turn
}

TEST(Episode, ATurnMayNotUseMoreTokensThanAreLeft) {
  ScriptedWorld world;
  world.replies = {calls({{"1", "python", "{}"}}), says("x")};
  run(spec_of("budget: {tokens: 100}"), world);
  EXPECT_EQ(world.bodies[0].get_int("max_completion_tokens"), 100);
  EXPECT_EQ(world.bodies[1].get_int("max_completion_tokens"), 85);
}

TEST(Episode, ACheckThatFailsTellsTheModelWhyAndItTriesAgain) {
  ScriptedWorld world;
  world.replies = {says("41"), says("42")};
  world.verdicts = {bad("41 is not it"), good("")};
  const Ran ran = run(spec_of("check: {python: x}\nscore: {python: y}\n"), world);
  ASSERT_TRUE(ran.end);
  EXPECT_EQ(kinds(ran), "model check model check score ");
  EXPECT_EQ(ran.end->attempts, 2);
  EXPECT_EQ(ran.end->score, 0.75);
  EXPECT_FALSE(ran.end->passed);  // 0.75 is less than 1
  EXPECT_EQ(world.bodies[1].find("messages")->items()[2].get_string("content"),
            "A check of your answer failed:\n41 is not it\nPlease correct it.");
  EXPECT_EQ(world.judged[2].get_string("answer"), "42");
  EXPECT_EQ(world.restarts, 0);
}

TEST(Episode, ARestartForgetsTheConversationAndTakesAnotherSeed) {
  ScriptedWorld world;
  world.replies = {says("41"), says("43"), says("44")};
  world.verdicts = {bad("no"), bad("no"), bad("no")};
  const Ran ran = run(spec_of("check: {python: x, attempts: 3, again: restart, temperature: 0.5}\n"), world);
  ASSERT_TRUE(ran.end);
  EXPECT_EQ(ran.end->reason, "check");
  EXPECT_FALSE(ran.end->passed);
  EXPECT_EQ(world.restarts, 2);
  EXPECT_EQ(world.bodies[2].find("messages")->size(), 1u);
  EXPECT_EQ(world.bodies[0].find("temperature"), nullptr);
  EXPECT_EQ(world.bodies[1].get_double("temperature"), 0.5);
  EXPECT_NE(world.bodies[0].get_int("seed"), world.bodies[1].get_int("seed"));
  EXPECT_NE(world.bodies[1].get_int("seed"), world.bodies[2].get_int("seed"));
}

TEST(Episode, AServerThatIsGoneIsAFailureAndNotAnEnd) {
  ScriptedWorld world;
  const Ran ran = run(spec_of(), world);
  ASSERT_FALSE(ran.end);
  EXPECT_EQ(ran.end.error().code, Code::kUnavailable);
}

TEST(Episode, AScoreIsTheLastLinesNumberOfAScorerThatSucceeded) {
  EXPECT_EQ(parse_score(good("noise\n 0.5 \n\n")), 0.5);
  EXPECT_EQ(parse_score(good("-2e3")), -2000);
  EXPECT_EQ(parse_score(good("")), std::nullopt);
  EXPECT_EQ(parse_score(good("1 of 2")), std::nullopt);
  EXPECT_EQ(parse_score(good("nan")), std::nullopt);
  EXPECT_EQ(parse_score(bad("1")), std::nullopt);
}

class ReplayTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(make_directories(directory_));
    path_ = directory_ / "1.jsonl";
    ScriptedWorld world;
    world.replies = {calls({{"srv", "python", "{\"code\":\"6*7\"}"}}), says("41"), says("42")};
    world.verdicts = {bad("no"), good("")};
    const AgentSpec spec = spec_of("check: {python: x}\nscore: {python: y}\nbudget: {time: 7s}\n");
    auto writer = RecordingWriter::create(path_, spec, {.server = "http://there"});
    ASSERT_TRUE(writer) << writer.error().message;
    const auto end = run_episode(spec, world, [&](const Step& step) { (*writer)->add(step); });
    ASSERT_TRUE(end);
    EXPECT_FALSE(std::filesystem::exists(path_));
    ASSERT_TRUE((*writer)->finish(*end));
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  // The recording with `from` replaced, replayed without running anything.
  std::string replayed(const std::string& from = "", const std::string& to = "") {
    std::string text = *read_file(path_);
    if (!from.empty()) {
      const auto at = text.find(from);
      EXPECT_NE(at, std::string::npos) << from << " in " << text;
      text.replace(at, from.size(), to);
    }
    const auto changed = directory_ / "changed.jsonl";
    EXPECT_TRUE(write_file_atomic(changed, text));
    const auto recording = read_recording(changed);
    if (!recording) return recording.error().message.substr(changed.string().size());
    const auto report = replay(*recording, {});
    if (!report) return report.error().message;
    std::string out;
    for (const Difference& each : report->differences) out += fmt::format("{}:{} ", each.step, each.what);
    return out + (report->same() ? fmt::format("{} the same", report->steps) : "");
  }

  std::filesystem::path directory_ = testing::TempDir() + "agent-replay-" + random_hex(4), path_;
};

TEST_F(ReplayTest, ARecordingComesToTheSameSteps) { EXPECT_EQ(replayed(), "7 the same"); }

TEST_F(ReplayTest, WhatAModelWasToldCannotBeChangedUnseen) {
  EXPECT_EQ(replayed("output of python", "output of Python"), "3:request 5:request ");
}

TEST_F(ReplayTest, AnAnswerOrAnEndThatWasChangedIsFound) {
  EXPECT_EQ(replayed("\"content\":\"42\"", "\"content\":\"43\""), "0:answer ");
  EXPECT_EQ(replayed("\"reason\":\"done\"", "\"reason\":\"check\""), "0:reason ");
  EXPECT_EQ(replayed("\"score\":0.75,\"took", "\"score\":1.0,\"took"), "7:score ");
}

TEST_F(ReplayTest, AVerdictThatWasChangedLeadsAnotherWay) {
  EXPECT_EQ(replayed("\"output\":\"no\",\"ended\":\"exited\",\"exit_code\":1",
                     "\"output\":\"no\",\"ended\":\"exited\",\"exit_code\":0"),
            "5:step 0:steps ");
}

TEST_F(ReplayTest, AChangedSpecAMissingStepAndAMissingEndAreRefusedByName) {
  EXPECT_EQ(replayed("\"prompt\":\"p\"", "\"prompt\":\"q\""),
            ":1: the spec is not the one that was run: its hash differs");
  const std::string text = *read_file(path_);
  const auto second = text.find('\n') + 1, third = text.find('\n', second) + 1;
  EXPECT_EQ(replayed(text.substr(second, third - second), ""), ":2: step 2 stands where 1 should");
  EXPECT_EQ(replayed(text.substr(text.rfind("{\"kind\":\"end\"")), ""),
            " has no end: the episode was broken off, or the file was cut");
  EXPECT_FALSE(RecordingWriter::create(path_, spec_of(), {}));  // never written over
}

}  // namespace
}  // namespace capstan::agents::loop
