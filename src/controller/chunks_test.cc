// Goal: task arrays in sandboxes: chunks are placed, their tallies add up to tasks, a chunk is lost with its
// host only.
#include <gtest/gtest.h>

#include "controller/controller.h"
#include "controller/decision.h"
#include "controller/effects.h"
#include "controller/view.h"

namespace capstan::controller {
namespace {

using protocol::TaskEnd;

class ChunksTest : public testing::Test {
 protected:
  void SetUp() override {
    apply(BeginEpoch{1, "b"});
    apply(JoinHost{"h", "i1", "b", "http://127.0.0.1:1", {2000, std::int64_t{8} << 30, 0}, {}});
    const auto specs = workload::parse_specs(
        "{kind: tasks, name: t, count: 25, command: [x, '{index}'], retries: 3, sandbox: {batch: 5, chunk: "
        "10}}",
        {.source = "t", .base_directory = "/"});
    ASSERT_TRUE(specs) << specs.error().front().text();
    apply(Apply{*specs, false});
  }
  Outcome apply(decltype(Input::what) what) { return controller_.apply({time_ms_ += 1000, std::move(what)}); }
  Outcome end(std::int64_t chunk, std::int64_t attempt, protocol::RankExited exit) {
    return apply(Reports{"h", {{1, {1, attempt, chunk}, std::move(exit)}}, {}});
  }
  Outcome done(std::int64_t chunk, std::int64_t succeeded, std::int64_t killed) {
    protocol::RankExited exit{.exit_code = 0, .signal = {}, .message = {}};
    exit.tally.emplace();
    exit.tally->ended[0] = succeeded;
    exit.tally->ended[static_cast<std::size_t>(TaskEnd::kMemory)] = killed;
    exit.tally->cpu_us = 1'000'000;
    if (killed > 0) exit.tally->failure = "task 24 was killed at its memory limit";
    return end(chunk, 1, std::move(exit));
  }
  const Workload& array() { return *controller_.state().find("t"); }
  TaskCounts counts() { return count_tasks(array()); }
  static std::string types(const Outcome& outcome) {
    std::string out;
    for (const Json& event : outcome.events) out += (out.empty() ? "" : " ") + *event.get_string("type");
    return out;
  }

  std::int64_t time_ms_ = 0;
  Controller controller_;
};

TEST_F(ChunksTest, ArePlacedAndTheirTalliesAddUpToTasks) {
  EXPECT_EQ(array().tasks.running, 2);
  EXPECT_EQ(counts().running, 20);
  EXPECT_EQ(counts().pending, 5);
  EXPECT_EQ(types(done(0, 10, 0)), "tasks_succeeded tasks_began");
  done(1, 10, 0);
  EXPECT_EQ(counts().succeeded, 20);
  EXPECT_EQ(counts().running, 5) << "the last chunk is not full";
  EXPECT_EQ(view(controller_.state(), array(), false).get_int("ready"), 20);
  done(2, 4, 1);
  EXPECT_EQ(array().state, WorkloadState::kFailed);
  EXPECT_EQ(array().reason, "1 of 25 tasks failed; task 24 was killed at its memory limit");
  const std::string text = *explain(controller_.state(), array()).get_string("text");
  EXPECT_NE(text.find("failed: 1 memory"), text.npos) << text;
  EXPECT_NE(text.find("3.0 CPU-seconds"), text.npos) << text;
}

TEST_F(ChunksTest, AReportThatComesTwiceCountsOnce) {
  done(0, 10, 0);
  EXPECT_EQ(types(done(0, 10, 0)), "");
  EXPECT_EQ(counts().succeeded, 10);
}

TEST_F(ChunksTest, AWorkerIsToldWhichTasksAndWithoutWhatIsEachTasksOwn) {
  const auto effect = start_effect(controller_.state(), {1, 1, 1});
  const auto& start = std::get<protocol::StartRank>(effect.body);
  ASSERT_TRUE(start.chunk);
  EXPECT_EQ(start.chunk->first, 10);
  EXPECT_EQ(start.chunk->count, 10);
  EXPECT_EQ(start.chunk->retries, 3);
  EXPECT_EQ(start.chunk->sandbox.get_int("batch"), 5);
  for (const auto& [name, value] : start.env) EXPECT_NE(name, "CAPSTAN_TASK_INDEX");
  const auto back = protocol::Effect::from_json(effect.to_json());
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(*back, effect);
}

TEST_F(ChunksTest, ALostChunkRunsAgainAndIsNobodysFailure) {
  protocol::RankExited lost;
  lost.lost = true;
  end(0, 1, lost);
  EXPECT_EQ(counts().failed, 0);
  ASSERT_TRUE(array().tasks.retried.contains(0));
  done(1, 10, 0);  // makes room for it
  time_ms_ += 100'000;
  apply(Tick{});
  const auto found = array().tasks.find(0);
  ASSERT_NE(found.run, nullptr);
  EXPECT_EQ(found.run->attempt, 2);
}

TEST_F(ChunksTest, AHostWithoutSandboxesFailsAllTasksOfTheChunk) {
  apply(Reports{
      "h", {{1, {1, 1, 0}, protocol::RankStartFailed{"this host cannot enforce memory", false}}}, {}});
  EXPECT_EQ(counts().failed, 10);
  const auto tasks = *view(controller_.state(), array(), false).find("tasks");
  EXPECT_EQ(tasks.find("failures")->get_int("lost"), 10);
}

TEST_F(ChunksTest, TalliesOutliveASnapshot) {
  done(0, 10, 0);
  std::string text;
  controller_.write_snapshot([&](std::string_view piece) { text += piece; });
  const auto back = Controller::from_snapshot_text(text);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->state().find("t")->tasks.tally, array().tasks.tally);
}

}  // namespace
}  // namespace capstan::controller
