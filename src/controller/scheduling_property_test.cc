// Goal: whatever comes in whatever order, on fleets with topology and tenants: no GPU is held twice; a gang is placed whole,
// inside what it requires; no segment is split; no limit is passed; a gang that fits its tenant's cells is placed once those who
// borrowed them have left (HiveD's safety); who is made to leave does so for a gang that then starts; replay gives the same hash.
// Method: random sequences against the real controller; the test plays the workers. CAPSTAN_SEQUENCES says how many,
// CAPSTAN_SEED from which on.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdlib>

#include "base/prng.h"
#include "base/text.h"
#include "controller/controller.h"
#include "controller/effects.h"
#include "controller/planner.h"
#include "workload/fleet_yaml.h"

namespace capstan::controller {
namespace {

constexpr std::int64_t kTrayGpus = 4;

class World {
 public:
  explicit World(std::uint64_t seed) : prng_(seed) {
    domains_ = prng_.between(2, 4);
    const std::string yaml = fmt::format(
        "fleet: f\nclasses: [{{name: tray, cpus: 16, memory: 64Gi, gpus: 4, gpu_model: g}}]\n"
        "regions: [{{name: r, clusters: [{{name: c#, count: {}, blocks: [{{name: b#, count: {}, ultraservers: [{{class: "
        "tray, trays: 4, count: {}, spares: {}, name: u#}}]}}]}}]}}]\n",
        prng_.between(1, 2), prng_.between(1, 2), domains_, prng_.below(3) == 0 ? 1 : 0);
    const auto fleet = workload::parse_fleet(yaml, "f");
    EXPECT_TRUE(fleet) << fleet.error()[0].text();
    take(ApplyFleet{*fleet, true});
    constexpr const char* kOrders[] = {"fair-share", "fair-share", "fifo", "sjf", "srtf", "srsf"};
    take(SetPolicy{kOrders[prng_.below(6)], -1});
    SetTenants tenants;
    tenants.tenants.push_back({.name = "cells", .cells = {{.gpu_model = "g", .trays = 3, .count = 1}}});
    tenants.tenants.push_back({.name = "quota", .guaranteed = {.gpus = 8}, .gpus_max = 16});
    tenants.tenants.push_back({.name = "free", .weight = 2});
    take(std::move(tenants));
  }

  void run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFatalFailure(); ++i) {
      step();
      check();
    }
    calm_down();
    check_replay();
  }

  int displaced = 0;
  int placed = 0;

 private:
  void step() {
    time_ms_ += static_cast<std::int64_t>(prng_.below(20'000));
    switch (prng_.below(12)) {
      case 0:
        return end_one();
      case 1:
        return settle();
      case 2:
        return host();
      case 3:
        take(Tick{});
        return;
      case 4:
        take(Cancel{name_of(prng_.below(12))}, true);
        return;
      case 5:
        if (prng_.below(4) == 0) restart();
        return;
      default:
        return submit();
    }
  }

  static std::string name_of(std::uint64_t number) { return "j" + std::to_string(number); }

  void submit() {
    const std::string name = name_of(prng_.below(12));
    if (const Workload* known = state().find(name); known != nullptr && !has_ended(known->state)) return;
    constexpr const char* kTenants[] = {"default", "cells", "quota", "free"};
    const std::int64_t segment = prng_.below(2) == 0 ? 0 : prng_.between(1, 4);
    const std::int64_t ranks = segment > 0 ? segment * prng_.between(1, 3) : prng_.between(1, 6);
    const std::int64_t gpus = prng_.below(3) == 0 ? prng_.between(1, 3) : kTrayGpus;
    constexpr const char* kLevels[] = {"cluster", "block", "ultraserver"};
    std::string yaml = fmt::format(
        "{{kind: job, name: {}, tenant: {}, priority: {}, command: x, ranks: {}, resources: {{gpus: {}, cpus: 1}}, "
        "placement: {{segment: {}, required: {}}}",
        name, kTenants[prng_.below(4)], prng_.between(0, 2), ranks, gpus, segment,
        kLevels[prng_.below(8) < 5 ? 0 : prng_.below(3)]);
    if (prng_.below(3) == 0) yaml += fmt::format(", time_limit: {}m", 10 * prng_.between(1, 6));
    if (prng_.below(4) == 0 && segment == 0) yaml += fmt::format(", ranks_min: {}", prng_.between(1, ranks));
    if (prng_.below(6) == 0) yaml += ", preemptible: false";
    const auto specs = workload::parse_specs(yaml + "}", {.source = "t", .base_directory = "/"});
    if (!specs) return;  // a segment that is larger than its gang, say
    const Outcome outcome = take(Apply{*specs, false}, true);
    if (outcome.answer) check_displacement(outcome);
  }

  std::string newest() const {
    std::string text;
    for (std::size_t i = rows_.size() > 30 ? rows_.size() - 30 : 0; i < rows_.size(); ++i)
      text += "\n" + rows_[i].second.substr(0, 400);
    return text;
  }

  // Who is where, and who waits for what.
  std::string picture() const {
    std::string text;
    for (const auto& [id, workload] : state().workloads) {
      if (has_ended(workload.state)) continue;
      text += fmt::format("\n{} {} priority {} {}", workload.spec.name, workload.spec.tenant, workload.spec.priority,
                          workload.job.in_attempt ? scheduler::hold_name(workload.hold) : "waits");
      for (const auto& slice : workload.job.slices) text += fmt::format(" {}x{}", state().name(slice.host), slice.ranks);
      if (const auto* claim = state().claims.of_job(id)) {
        text += claim->patient ? " awaits" : " claims";
        for (const HostId host : claim->hosts) text += " " + state().name(host);
      }
    }
    return text;
  }

  // Whoever is asked to leave leaves for somebody who then starts.
  void check_displacement(const Outcome& outcome) {
    constexpr std::string_view kFor = "makes room for job ";
    std::map<std::string, std::int64_t> attempts;  // of those for whom others leave
    for (const Json& event : outcome.events) {
      if (event.get_string("type") != "attempt_stopping" || event.get_string("why") != "preempted") continue;
      const std::string name = event.get_string("reason").value_or("").substr(kFor.size());
      attempts[name] = state().find(name)->job.attempt;
      ASSERT_NE(state().claims.of_job(state().find(name)->id), nullptr) << "room that is made is kept";
    }
    if (attempts.empty()) return;
    ++displaced;
    if (prng_.below(2) == 0) submit();  // somebody else may come in between: the room is not his
    settle();
    for (const auto& [name, attempt] : attempts) {
      const Workload* workload = state().find(name);
      ASSERT_TRUE(workload != nullptr);
      // Its tenant may have come to its limit meanwhile by other work.
      const auto admission = state().tenants.admission(workload->tenant, ask_of(request_of(*workload)));
      ASSERT_TRUE(workload->job.attempt > attempt || !admission.admitted())
          << "displaced in vain for " << name << newest();
    }
  }

  void end_one() {
    if (state().running.empty()) return;
    auto at = state().running.begin();
    std::advance(at, static_cast<std::ptrdiff_t>(prng_.below(state().running.size())));
    const Workload& workload = *state().find(at->first);
    if (workload.job.stopping != StopWhy::kNone) return;
    const std::vector<Rank> ranks = workload.job.ranks;
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      if (!ranks[i].live()) continue;
      protocol::RankExited exit;
      exit.exit_code = 0;
      report(ranks[i].host, {workload.id, workload.job.attempt, static_cast<std::int64_t>(i)}, exit);
    }
  }

  void host() {
    const HostId host{static_cast<std::uint32_t>(prng_.below(state().inventory.hosts()))};
    const std::string name = state().name(host);
    switch (prng_.below(6)) {
      case 0:
        take(SetHealth{name, fleet::Health::kLost});
        lost_.insert(host);
        break;
      case 1:
        for (const HostId one : std::exchange(lost_, {})) take(SetHealth{state().name(one), fleet::Health::kHealthy});
        break;
      case 2:
        take(SetCondition{{name}, HostVerb::kDrain, {}, ""});
        break;
      default:
        take(SetCondition{{name}, HostVerb::kReturn, {}, ""});
    }
    settle();
  }

  void settle() {
    for (int rounds = 0; !stops_.empty(); ++rounds) {
      ASSERT_LT(rounds, 100) << "they make room for each other for ever" << newest();
      for (const auto& [host, id] : std::exchange(stops_, {})) {
        protocol::RankExited exit;
        exit.exit_code = 75;
        exit.stopped = true;
        report(host, id, exit);
      }
    }
  }

  void report(HostId host, const RankId& id, protocol::RankExited exit) {
    take(Reports{state().name(host), {{1, id, std::move(exit)}}, {}});
  }

  Outcome take(decltype(Input::what) what, bool may_fail = false) {
    Outcome outcome = controller_.apply({time_ms_, std::move(what)});
    if (!outcome.answer && !may_fail) ADD_FAILURE() << outcome.answer.error().message;
    for (const Json& event : outcome.events) {
      rows_.emplace_back(outcome.time_ms, event.dump());
      placed += event.get_string("type") == "attempt_began";
    }
    for (const HostEffect& effect : outcome.effects) {
      for (std::int64_t i = 0; effect.kind == HostEffect::Kind::kStop && i < effect.count; ++i)
        stops_.emplace_back(effect.host, RankId{effect.job, effect.attempt, effect.first + i});
    }
    return outcome;
  }

  // A new process: what the events say, and nothing else.
  void restart() {
    std::string text;
    controller_.write_snapshot([&](std::string_view piece) { text += piece; });
    auto read = Controller::from_snapshot_text(text);
    ASSERT_TRUE(read) << read.error().message;
    ASSERT_EQ(read->state_hash(), controller_.state_hash());
    controller_ = *std::move(read);
    take(BeginEpoch{state().epoch + 1, "b"});
  }

  void check_replay() {
    Controller replayed;
    for (const auto& [time_ms, event] : rows_) {
      const auto folded = replayed.replay(time_ms, *Json::parse(event));
      ASSERT_TRUE(folded) << folded.error().message;
    }
    ASSERT_EQ(replayed.state_hash(), controller_.state_hash());
  }

  void check() {
    std::map<HostId, scheduler::GpuSet> held;
    for (const auto& [id, workload] : state().workloads) {
      const Job& job = workload.job;
      if (!job.in_attempt) continue;
      check_gang(workload);
      for (std::size_t i = 0; i < job.ranks.size(); ++i) {
        if (!job.ranks[i].live()) continue;
        const scheduler::GpuSet mine = rank_gpus(job, static_cast<std::int64_t>(i));
        ASSERT_EQ(std::popcount(mine), job.each(static_cast<std::int64_t>(i)).gpus);
        ASSERT_EQ(held[job.ranks[i].host] & mine, 0u) << "a GPU is held twice";
        held[job.ranks[i].host] |= mine;
      }
    }
    const auto quota = *state().tenants.find("quota");
    ASSERT_LE(state().tenants.usage(quota).used.gpus, 16) << "a limit is passed";
  }

  void check_gang(const Workload& workload) {
    const Job& job = workload.job;
    const auto& topology = state().inventory.topology();
    std::int64_t ranks = 0;
    std::set<fleet::ClusterId> clusters;
    std::set<fleet::BlockId> blocks;
    std::set<fleet::DomainId> domains;
    for (const auto& slice : job.slices) {
      ranks += slice.ranks;
      clusters.insert(topology.cluster_of(slice.host));
      blocks.insert(topology.block_of(slice.host));
      domains.insert(topology.domain_of(slice.host));
    }
    ASSERT_EQ(ranks, static_cast<std::int64_t>(job.ranks.size()));
    ASSERT_GE(ranks, workload.spec.ranks_min > 0 ? workload.spec.ranks_min : workload.spec.ranks);
    ASSERT_EQ(clusters.size(), 1u);
    const auto required = workload.spec.placement.required;
    if (required == fleet::Level::kBlock) {
      ASSERT_EQ(blocks.size(), 1u);
    }
    if (required == fleet::Level::kDomain) {
      ASSERT_EQ(domains.size(), 1u);
    }
    const std::int64_t segment = std::max<std::int64_t>(1, workload.spec.placement.segment);
    for (std::size_t i = 0; i < job.ranks.size(); ++i) {
      const auto& first = job.ranks[i / static_cast<std::size_t>(segment) * static_cast<std::size_t>(segment)];
      ASSERT_EQ(topology.domain_of(job.ranks[i].host), topology.domain_of(first.host)) << "a segment is split";
    }
  }

  // Every host is back and everybody who is asked to leaves: a gang that fits the promised cell alone is placed.
  void calm_down() {
    for (std::uint32_t i = 0; i < state().inventory.hosts(); ++i) {
      take(SetHealth{state().name(HostId{i}), fleet::Health::kHealthy});
      take(SetCondition{{state().name(HostId{i})}, HostVerb::kReturn, {}, ""});
    }
    for (int i = 0; i < 60; ++i) {  // reasons to leave, one after another
      time_ms_ += 30'000;
      take(Tick{});
      settle();
    }
    const auto tenant = *state().tenants.find("cells");
    const bool cell_free = std::none_of(state().workloads.begin(), state().workloads.end(), [&](const auto& entry) {
      // Its own work it does not displace, nor takes what is kept for it.
      const bool holds = entry.second.job.in_attempt || state().claims.of_job(entry.first) != nullptr;
      return holds && entry.second.tenant == tenant;
    });
    for (const auto& [id, workload] : state().workloads) {
      if (has_ended(workload.state) || workload.tenant != tenant || workload.job.in_attempt || !cell_free) continue;
      const auto& spec = workload.spec;
      const bool fits = spec.ranks <= 3 && spec.ranks_min == 0 && spec.resources.gpus == kTrayGpus &&
                        spec.placement.segment == spec.ranks;
      ASSERT_TRUE(!fits || unyielding() || workload.job.in_attempt)
          << spec.name << " waits beside its own cell" << newest() << picture();
    }
  }

  // Somebody who may not be displaced runs: then the promise was given away by people.
  bool unyielding() const {
    return std::any_of(state().workloads.begin(), state().workloads.end(), [](const auto& entry) {
      return entry.second.job.in_attempt && !entry.second.spec.preemptible;
    });
  }

  const State& state() const { return controller_.state(); }

  Prng prng_;
  Controller controller_;
  std::int64_t time_ms_ = 1'000;
  std::int64_t domains_ = 0;
  std::set<HostId> lost_;
  std::vector<std::pair<HostId, RankId>> stops_;
  std::vector<std::pair<std::int64_t, std::string>> rows_;
};

TEST(SchedulingProperty, RandomSequencesKeepWhatIsPromised) {
  const auto number = [](const char* name, std::uint64_t otherwise) {
    const char* text = std::getenv(name);
    return text == nullptr ? otherwise : static_cast<std::uint64_t>(std::atoll(text));
  };
  const std::uint64_t first = number("CAPSTAN_SEED", 1), sequences = number("CAPSTAN_SEQUENCES", 500);
  int displaced = 0, placed = 0;
  for (std::uint64_t seed = first; seed < first + sequences; ++seed) {
    World world(seed);
    world.run(40);
    ASSERT_FALSE(testing::Test::HasFailure()) << "seed " << seed;
    displaced += world.displaced;
    placed += world.placed;
  }
  // The sequences are worth something.
  EXPECT_GT(placed, static_cast<int>(sequences) * 3);
  EXPECT_GT(displaced, static_cast<int>(sequences) / 8);
}

}  // namespace
}  // namespace capstan::controller
