// Goal: work lasts as long as its behaviour says, through checkpoints, failures, preemption and shrinking; the books add up;
// equal setups give equal hashes. Method: tiny fleets, faults at chosen moments, times worked out by hand.
#include "sim/world.h"

#include <gtest/gtest.h>

#include "workload/fleet_yaml.h"

namespace capstan::sim {
namespace {

constexpr std::int64_t kMinuteMs = 60'000;

class Listed : public ArrivalSource {
 public:
  explicit Listed(std::vector<Arrival> arrivals) : arrivals_(std::move(arrivals)) {}
  std::optional<Arrival> next() override {
    if (at_ == arrivals_.size()) return std::nullopt;
    return arrivals_[at_++];
  }

 private:
  std::vector<Arrival> arrivals_;
  std::size_t at_ = 0;
};
class Planned : public FaultSource {
 public:
  explicit Planned(std::vector<Fault> faults) : faults_(std::move(faults)) {}
  std::optional<Fault> next() override {
    if (at_ == faults_.size()) return std::nullopt;
    return faults_[at_++];
  }

 private:
  std::vector<Fault> faults_;
  std::size_t at_ = 0;
};

Arrival gang(std::string name, std::int64_t ranks, std::int64_t work_minutes, std::int64_t at_minutes = 0) {
  Arrival out;
  out.time_ms = at_minutes * kMinuteMs;
  out.kind = "gang";
  out.spec.name = std::move(name);
  out.spec.command = {"x"};
  out.spec.ranks = ranks;
  out.spec.resources.gpus = 4;
  out.spec.restarts.budget = 100;
  out.behaviour.work_ms = work_minutes * kMinuteMs;
  return out;
}

Setup setup(std::vector<Arrival> arrivals, std::vector<Fault> faults = {}) {
  Setup out;
  out.name = "test";
  out.duration_ms = 24 * 60 * kMinuteMs;
  out.until_idle = true;
  const auto fleet = workload::parse_fleet(
      "fleet: f\nclasses: [{name: tray, cpus: 16, memory: 64Gi, gpus: 4, gpu_model: g}, {name: cpu, cpus: 64, memory: 64Gi}]\n"
      "regions: [{name: r, clusters: [{name: c, blocks: [{name: b, ultraservers: [{class: tray, trays: 4, name: u}], hosts: "
      "[{class: cpu, name: p}]}]}]}]\n",
      "f");
  EXPECT_TRUE(fleet) << fleet.error().front().text();
  out.fleet = *fleet;
  out.arrivals = std::make_unique<Listed>(std::move(arrivals));
  out.make_faults = [faults](const fleet::Topology&, const Setup&) { return std::make_unique<Planned>(faults); };
  return out;
}

Results run(Setup of) {
  World world(std::move(of));
  EXPECT_EQ(world.refused(), "");
  for (int i = 0; i < 1'000 && !world.done(); ++i) world.advance(1'000);
  EXPECT_TRUE(world.done());
  return world.results();
}

std::int64_t completion(const Results& results) {
  for (const auto& one : results.distributions) {
    if (one.name == "completion of gang") return one.mean;
  }
  return -1;
}

TEST(World, AGangTakesItsStartAndItsWork) {
  Arrival one = gang("a", 4, 60);
  one.behaviour.start_ms = 5 * kMinuteMs;
  const Results results = run(setup({one}));
  // 5 minutes to prepare, 60 of work, half a second to launch.
  EXPECT_EQ(completion(results), 65 * kMinuteMs + 500);
  EXPECT_EQ(results.totals.at("gpu_hours_useful"), 16);
  EXPECT_EQ(results.totals.at("workloads_done"), 1);
}

TEST(World, EachCheckpointStallsTheGangButTheLast) {
  Arrival one = gang("a", 4, 60);
  one.spec.checkpoint.interval_ms = 10 * kMinuteMs;
  one.behaviour.checkpoint_stall_ms = kMinuteMs;
  EXPECT_EQ(completion(run(setup({one}))), 65 * kMinuteMs + 500);
}

TEST(World, AFailedTrayCostsTheWorkSinceTheLastCheckpointAndTheTimeUntilItIsNoticed) {
  Arrival one = gang("a", 3, 60);
  one.spec.checkpoint.interval_ms = 10 * kMinuteMs;
  one.spec.placement.segment = 3;
  const Fault fault{.time_ms = 25 * kMinuteMs + 500, .scope = Fault::Scope::kHost, .host = fleet::HostId{1}, .gpu = 0,
                    .detected_after_ms = 3 * kMinuteMs, .repair_ms = 600 * kMinuteMs, .cause = "tray"};
  const Results results = run(setup({one}, {fault}));
  // 25 minutes of work, of which 20 are kept; three until it is noticed; then 40 more on a spare tray, after the others have left
  // (0.2 s), a pause before the restart, and a launch (0.5 s).
  const std::int64_t least = (25 + 3 + 40) * kMinuteMs + 500 + 200 + 500;
  EXPECT_GE(completion(results), least);
  EXPECT_LE(completion(results), least + 2'000);
  EXPECT_EQ(results.totals.at("interruptions"), 1);
  EXPECT_EQ(results.totals.at("gpu_hours_useful"), 12);
  EXPECT_EQ(results.totals.at("gpu_hours_lost"), 1);
}

TEST(World, WithoutCheckpointsAFailureCostsEverything) {
  const Fault fault{.time_ms = 30 * kMinuteMs + 500, .scope = Fault::Scope::kProcess, .host = fleet::HostId{0}, .gpu = 0,
                    .detected_after_ms = 0, .repair_ms = 0, .cause = "software"};
  const Results results = run(setup({gang("a", 1, 60)}, {fault}));
  EXPECT_GE(completion(results), 90 * kMinuteMs);
  EXPECT_LE(completion(results), 90 * kMinuteMs + 5'000);
  EXPECT_EQ(results.totals.at("gpu_hours_lost"), 2);
}

TEST(World, WhoIsPreemptedGracefullyGoesOnWhereItWas) {
  Arrival low = gang("low", 4, 60), high = gang("high", 4, 30, 25);
  low.spec.checkpoint.interval_ms = 20 * kMinuteMs;
  high.spec.priority = 5;
  const Results results = run(setup({low, high}));
  EXPECT_EQ(results.totals.at("stopped: preempted"), 1);
  EXPECT_EQ(results.totals.at("gpu_hours_lost"), 0);
  EXPECT_EQ(results.totals.at("gpu_hours_useful"), 24);  // 16 GPUs x 1.5 hours
}

TEST(World, AnElasticGangOnHalfItsRanksTakesTwiceAsLong) {
  Arrival one = gang("a", 8, 60);
  one.spec.ranks_min = 4;
  EXPECT_EQ(completion(run(setup({one}))), 120 * kMinuteMs + 500);
}

TEST(World, TasksOfALostHostRunAgain) {
  Arrival tasks;
  tasks.kind = "tasks";
  tasks.spec.kind = workload::Kind::kTasks;
  tasks.spec.name = "t";
  tasks.spec.command = {"x"};
  tasks.spec.count = 100;
  tasks.spec.resources.milli_cpus = 1'000;
  tasks.spec.placement.host_class = "cpu";
  tasks.spec.retries = 3;
  tasks.behaviour.work_ms = 10 * kMinuteMs;
  tasks.behaviour.spread_milli = 500;
  const Fault fault{.time_ms = 3 * kMinuteMs, .scope = Fault::Scope::kHost, .host = fleet::HostId{4}, .gpu = 0,
                    .detected_after_ms = 10'000, .repair_ms = 10 * kMinuteMs, .cause = "host"};
  const Results results = run(setup({tasks}, {fault}));
  EXPECT_EQ(results.totals.at("tasks_done"), 100);
  EXPECT_EQ(results.totals.at("failures"), 1);
}

TEST(World, EqualSetupsGiveEqualHashesAndOthersDoNot) {
  const auto make = [](std::int64_t work) { return setup({gang("a", 2, work), gang("b", 4, 30, 5), gang("c", 1, 7, 9)}); };
  EXPECT_EQ(run(make(20)).hash, run(make(20)).hash);
  EXPECT_NE(run(make(20)).hash, run(make(21)).hash);
}

}  // namespace
}  // namespace capstan::sim
