// Goal: what the planner remembers between its looks never keeps work from room that is there, and what gives way to a gang
// does not come back before it.
// Method: inputs by hand on a fleet of one UltraServer; ranks end when they are told to.
#include "controller/planner.h"

#include <gtest/gtest.h>

#include "controller/controller.h"

namespace capstan::controller {
namespace {

// Four trays of four GPUs, one of them spare: three may be in use.
class OneUltraServer : public testing::Test {
 protected:
  OneUltraServer() {
    fleet::HostClass tray{.name = "tray", .capacity = {16'000, std::int64_t{1} << 40, 4, 0}, .gpu_model = "g"};
    fleet::UltraServerGroup group{.kind = "", .host_class = "tray", .trays = 4, .count = 1, .spares = 1, .name = "u"};
    fleet::BlockSpec block{.name = "b", .count = 1, .ultraservers = {group}, .hosts = {}};
    fleet::FleetSpec spec;
    spec.name = "one";
    spec.classes = {tray};
    spec.regions = {{.name = "r", .clusters = {{.name = "c", .count = 1, .blocks = {block}}}}};
    apply(ApplyFleet{spec, true});
  }

  Outcome apply(decltype(Input::what) what) {
    Outcome outcome = controller_.apply({1'000, std::move(what)});
    EXPECT_TRUE(outcome.answer.has_value()) << outcome.answer.error().message;
    return outcome;
  }
  Outcome submit(std::string name, std::int64_t trays, std::int64_t priority = 0) {
    workload::Spec spec;
    spec.name = std::move(name);
    spec.command = {"x"};
    spec.ranks = trays;
    spec.priority = priority;
    spec.resources.gpus = 4;
    spec.placement.segment = trays;
    return apply(Apply{{spec}, false});
  }
  // All ranks of the gang end; with `stopped` as they were asked to.
  void end(const std::string& name, bool stopped) {
    const Job& job = state().find(name)->job;
    const std::vector<Rank> ranks = job.ranks;
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      protocol::RankExited exit;
      exit.exit_code = stopped ? 75 : 0;
      exit.stopped = stopped;
      const RankId id{state().find(name)->id, job.attempt, static_cast<std::int64_t>(i)};
      apply(Reports{state().name(ranks[i].host), {{1, id, exit}}, {}});
    }
  }
  bool runs(const std::string& name) const {
    const Workload* workload = state().find(name);
    return workload->job.in_attempt && workload->job.stopping == StopWhy::kNone;
  }
  std::string tray(int number) const { return state().name(HostId{static_cast<std::uint32_t>(number)}); }
  const State& state() const { return controller_.state(); }

  Controller controller_;
};

TEST_F(OneUltraServer, ARefusalIsForgottenWhenNobodyWaitsAndRoomGrows) {
  submit("a", 3);
  submit("b", 2);
  EXPECT_FALSE(runs("b"));
  apply(Cancel{"b"});
  end("a", false);
  submit("c", 2);
  EXPECT_TRUE(runs("c"));
}

TEST_F(OneUltraServer, AVictimOnTheTrayThatMustStaySpareDoesNotComeBackBeforeTheGang) {
  for (int i = 0; i < 3; ++i) apply(SetCondition{{tray(i)}, HostVerb::kCordon, {}, ""});
  submit("small", 1);
  for (int i = 0; i < 3; ++i) apply(SetCondition{{tray(i)}, HostVerb::kUncordon, {}, ""});
  ASSERT_EQ(state().find("small")->job.slices.front().host, HostId{3});
  submit("urgent", 3, 5);
  ASSERT_TRUE(state().find("small")->job.stopping == StopWhy::kPreempted);
  end("small", true);
  EXPECT_TRUE(runs("urgent"));
  EXPECT_FALSE(runs("small"));
  EXPECT_EQ(state().find("small")->job.preemptions, 1);
}

TEST_F(OneUltraServer, NobodyTakesTheTrayThatMustStaySpareWhileVictimsLeave) {
  submit("small", 1);
  submit("urgent", 3, 5);
  ASSERT_TRUE(state().find("small")->job.stopping == StopWhy::kPreempted);
  submit("late", 1);
  EXPECT_FALSE(runs("late"));
  end("small", true);
  EXPECT_TRUE(runs("urgent"));
}

}  // namespace
}  // namespace capstan::controller
