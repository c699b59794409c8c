// Goal: a scenario file becomes exactly what it says, what is wrong in it is said at its place with what would be right, and
// equal scenarios submit equal work. Method: texts against values and whole messages; the examples are loaded.
#include "sim/scenario.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "sim/random_draws.h"

namespace capstan::sim {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr std::int64_t kHourMs = 3'600'000;
constexpr std::int64_t kDayMs = 24 * kHourMs;

// A directory with a fleet file, a tenants file and a trace; removed at the end.
class ScenarioFiles : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "scenario-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    write("fleet.yaml",
          "fleet: small\nregions:\n- name: lab\n  clusters:\n  - blocks:\n    - ultraservers: [{kind: u-p6e-gb200x72, count: "
          "2, spares: 2}]\n");
    write("tenants.yaml", "tenants:\n- {name: research, weight: 3}\n- {name: vision, parent: research}\n");
    std::filesystem::create_directory(directory_ / "traces");
    write("traces/philly.csv",
          "job_id,submit_time_s,duration_s,gpus,vc\n0,0,3600,8,6214e9\n1,60,60,1,abc\n2,120,-1,1,abc\n3,180,60,16,6214e9\n");
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void write(const std::string& name, std::string_view text) { std::ofstream(directory_ / name) << text; }

  std::expected<Scenario, Diagnostics> parse(std::string_view yaml) {
    return parse_scenario(yaml, "s.yaml", directory_, {.trace_directories = {directory_ / "traces"}, .trace = {}});
  }
  Scenario good(std::string_view yaml) {
    auto out = parse(yaml);
    if (out) return *std::move(out);
    for (const workload::Diagnostic& one : out.error()) ADD_FAILURE() << one.text();
    return {};
  }
  std::string wrong(std::string_view yaml) {
    const auto out = parse(yaml);
    if (out) return "no error";
    std::string text;
    for (const workload::Diagnostic& one : out.error()) text += one.text() + "\n";
    return text;
  }
  // The head of a file, with these workloads.
  std::string wrong_workload(std::string_view item) {
    return wrong(fmt::format("scenario: s\nduration: 1d\nfleet: fleet.yaml\nworkloads:\n- {}\n", item));
  }

  std::filesystem::path directory_;
};

std::vector<Arrival> all_of(std::unique_ptr<ArrivalSource> source) {
  std::vector<Arrival> out;
  while (auto arrival = source->next()) out.push_back(*std::move(arrival));
  return out;
}

std::string text_of(const Arrival& one) {
  return fmt::format("{} {} {} {}x{} {}", one.time_ms, one.spec.name, one.spec.tenant, one.spec.ranks, one.spec.resources.gpus,
                     one.behaviour.work_ms);
}

constexpr std::string_view kWhole = R"(
scenario: lab
duration: 2d
seed: 42
sample: 30m
fleet: fleet.yaml
tenants: tenants.yaml
policy: {order: srtf, starvation: 20m}
failures: {rates: nvl72, rates_percent: 200, set: {NIC or network: 400}}
workloads:
- trace: philly.csv
  tenants: {6214e9: vision}
  tenant_prefix: vc-
  gpus_per_rank: 4
  cpus_per_gpu: 30
  memory_per_gpu: 180GiB
  checkpoint: {interval: 1h, stall: 30s}
  start: 2m
  restart: 5m
  restarts: {budget: 7}
  placement: {segment: 16, gpu_model: gb200}
  priority: 5
  estimate: {percent: 120, slack: 0s}
- generate: frontier
  ranks: 16
  gpus_per_rank: 4
  work: 1d
  every: 12h
  count: 2
  model: moe-1t
- generate: fine-tunes
  mean_gap: 5m
  curve: flat
  tenants: [vision, speech]
  sizes: [{gpus: 8, weight: 3, work: [1h, 2h, 8h]}, {gpus: 1, weight: 1, work: 10m}]
- generate: services
  count: 3
  gpus: 4
  replicas: {min: 2, max: 8}
  curve: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
  from: 1h
  until: 1d
- generate: agents
  mean_gap: 10m
  arrays: 3
  tasks: {min: 5, max: 50}
  work: {min: 1s, max: 1m}
  resources: {cpus: 0.5, memory: 1GiB}
  spread_percent: 20
variants:
- {name: base}
- {name: fifo, policy: {order: fifo}}
- {name: bare, spares: 0, failures: none, checkpoint: {interval: 4h}}
- {name: others, failures: llama3}
)";

TEST_F(ScenarioFiles, EveryFieldIsRead) {
  const Scenario scenario = good(kWhole);
  EXPECT_EQ(scenario.name, "lab");
  EXPECT_EQ(scenario.duration_ms, 2 * kDayMs);
  EXPECT_EQ(scenario.seed, 42u);
  EXPECT_EQ(scenario.sample_ms, kHourMs / 2);
  EXPECT_EQ(fleet::hosts_of(scenario.fleet), 36);
  EXPECT_EQ(scenario.policy, (PolicyChoice{"srtf", 20 * 60'000}));
  EXPECT_EQ(scenario.failures, (FailureChoice{"nvl72", 200, 100, {{"NIC or network", 400}}}));
  std::vector<std::string> tenants;
  for (const auto& tenant : scenario.tenants) tenants.push_back(tenant.name);
  EXPECT_THAT(tenants, ElementsAre("research", "vision", "vc-abc", "speech")) << "those that are only named come last";
  ASSERT_EQ(scenario.workloads.size(), 5u);
  const auto& trace = std::get<TraceWorkload>(scenario.workloads[0].what);
  EXPECT_EQ(trace.replay.pattern.spec.restarts.budget, 7);
  EXPECT_EQ(trace.replay.pattern.behaviour.restart_ms, 300'000);
  EXPECT_THAT(scenario.notes, ElementsAre(HasSubstr("philly: 1 rows of the trace")));
  const auto& tunes = std::get<FineTunes>(scenario.workloads[2].what);
  EXPECT_EQ(tunes.sizes[0].work[1].share_milli, 500);
  EXPECT_EQ(tunes.sizes[0].work[1].work_ms, 2 * kHourMs);
  EXPECT_EQ(tunes.sizes[1].work[1].work_ms, 600'000);
  EXPECT_EQ(std::get<AgentBursts>(scenario.workloads[4].what).pattern.spec.resources.milli_cpus, 500);
}

TEST_F(ScenarioFiles, ATracesJobsAreShapedByItsTemplate) {
  const Scenario scenario = good(kWhole);
  std::vector<Arrival> jobs;
  for (Arrival& one : all_of(arrivals_of(scenario, 1))) {
    if (one.kind == "philly") jobs.push_back(std::move(one));
  }
  ASSERT_EQ(jobs.size(), 3u);
  EXPECT_EQ(text_of(jobs[0]), "0 philly-0 vision 2x4 3600000");
  EXPECT_EQ(text_of(jobs[1]), "60000 philly-1 vc-abc 1x1 60000");
  EXPECT_EQ(text_of(jobs[2]), "180000 philly-3 vision 4x4 60000");
  const workload::Spec& spec = jobs[0].spec;
  EXPECT_EQ(spec.resources.milli_cpus, 120'000);
  EXPECT_EQ(spec.resources.memory_bytes, 720LL << 30);
  EXPECT_EQ(spec.placement.segment, 2);
  EXPECT_EQ(spec.placement.gpu_model, "gb200");
  EXPECT_EQ(spec.priority, 5);
  EXPECT_EQ(spec.time_limit_ms, (3'600'000 + 30'000 + 120'000) * 12 / 10);
}

TEST_F(ScenarioFiles, ArrivalsComeInOrderAndAWorkloadsDoNotDependOnTheOthers) {
  const Scenario scenario = good(kWhole);
  const auto all = all_of(arrivals_of(scenario, 7));
  Scenario alone = scenario;
  alone.workloads = {scenario.workloads[2]};
  std::string in_company, by_itself, again, other;
  std::int64_t last_ms = 0;
  for (const Arrival& one : all) {
    EXPECT_LE(last_ms, one.time_ms);
    last_ms = one.time_ms;
    if (one.kind == "fine-tune") in_company += text_of(one) + "\n";
    if (one.kind == "service") {
      EXPECT_GE(one.time_ms, kHourMs);
      EXPECT_LT(one.time_ms, kDayMs);
      if (one.behaviour.withdrawn_after_ms > 0) {
        EXPECT_EQ(one.time_ms + one.behaviour.withdrawn_after_ms, kDayMs);
      }
    }
    again += text_of(one) + "\n";
  }
  EXPECT_LT(last_ms, 2 * kDayMs);
  for (const Arrival& one : all_of(arrivals_of(alone, 7))) by_itself += text_of(one) + "\n";
  EXPECT_FALSE(in_company.empty());
  EXPECT_EQ(in_company, by_itself);
  for (const Arrival& one : all_of(arrivals_of(scenario, 8))) other += text_of(one) + "\n";
  EXPECT_NE(again, other);
  std::string repeated;
  for (const Arrival& one : all_of(arrivals_of(scenario, 7))) repeated += text_of(one) + "\n";
  EXPECT_EQ(again, repeated);
}

TEST_F(ScenarioFiles, VariantsDifferInWhatTheySay) {
  const Scenario scenario = good(kWhole);
  const auto runs = comparison(scenario);
  ASSERT_EQ(runs.size(), 4u);
  EXPECT_EQ(runs[0].variant, "base");
  EXPECT_EQ(runs[0].policy, scenario.policy);
  EXPECT_EQ(runs[1].policy, (PolicyChoice{"fifo", 20 * 60'000})) << "what a variant leaves out stays";
  EXPECT_EQ(runs[1].failures, scenario.failures);
  EXPECT_EQ(runs[2].failures, FailureChoice{});
  EXPECT_EQ(runs[3].failures, (FailureChoice{"llama3", 200, 100, {}})) << "changed causes are those of another set";
  EXPECT_EQ(runs[1].fleet, scenario.fleet);
  EXPECT_EQ(runs[2].fleet.regions[0].clusters[0].blocks[0].ultraservers[0].spares, 0);
  const auto pattern = [](const Scenario& run, std::size_t i) {
    return std::get<TraceWorkload>(run.workloads[i].what).replay.pattern;
  };
  EXPECT_EQ(pattern(runs[2], 0).spec.checkpoint.interval_ms, 4 * kHourMs);
  EXPECT_EQ(std::get<FrontierRuns>(runs[2].workloads[1].what).pattern.spec.checkpoint.interval_ms, 0) << "it never checkpoints";
  EXPECT_EQ(std::get<TraceWorkload>(runs[0].workloads[0].what).trace, std::get<TraceWorkload>(runs[1].workloads[0].what).trace)
      << "one copy of the trace";
  Scenario plain = scenario;
  plain.variants.clear();
  EXPECT_EQ(comparison(plain).size(), 1u);
  EXPECT_EQ(comparison(plain)[0].variant, "");
}

TEST_F(ScenarioFiles, FleetsAndTenantsMayStandInTheFile) {
  const Scenario scenario = good(R"(
scenario: inline
duration: 1h
fleet:
  fleet: tiny
  regions: [{name: r, clusters: [{blocks: [{hosts: [{class: hgx-h100, count: 3}]}]}]}]
tenants: [{name: a, guaranteed: {gpus: 8}}]
workloads: [{generate: fine-tunes, tenant: a}]
)");
  EXPECT_EQ(fleet::hosts_of(scenario.fleet), 3);
  ASSERT_EQ(scenario.tenants.size(), 1u);
  EXPECT_EQ(scenario.tenants[0].guaranteed.gpus, 8);
}

TEST_F(ScenarioFiles, WithoutADurationATraceRunsToItsEnd) {
  const Scenario scenario =
      good("scenario: s\nfleet: fleet.yaml\nworkloads: [{trace: philly.csv}, {generate: fine-tunes, until: 1h}]\n");
  EXPECT_EQ(scenario.duration_ms, 0);
  EXPECT_EQ(scenario.sample_ms, kHourMs);
  EXPECT_GE(all_of(arrivals_of(scenario, 1)).size(), 3u);
}

TEST_F(ScenarioFiles, WhatIsWrongIsSaidAtItsPlace) {
  EXPECT_THAT(wrong(""), HasSubstr("s.yaml:1:1: the file is empty: a scenario begins with 'scenario: NAME'"));
  EXPECT_THAT(
      wrong("scenario: s\nduration: 1d\nfleet: fleet.yaml\npolcy: {order: fifo}\nworkloads: [{generate: fine-tunes}]\n"),
      HasSubstr("s.yaml:4:1: unknown key 'polcy'; did you mean 'policy'?"));
  const std::string several = wrong("scenario: s\npolicy: {order: fifoo, starvation: soon}\nworkloads: []\n");
  EXPECT_THAT(several, HasSubstr("s.yaml:2:17: unknown order 'fifoo'; did you mean 'fifo'?"));
  EXPECT_THAT(several, HasSubstr("s.yaml:2:36: 'starvation'"));
  EXPECT_THAT(several, HasSubstr("'fleet' is missing"));
  EXPECT_THAT(several, HasSubstr("'workloads' is missing or empty"));
  const std::string failures =
      wrong("scenario: s\nfailures: {rates: nvl72, set: {moon: 4}}\nvariants:\n- {name: a, failures: nvl7}\n");
  EXPECT_THAT(failures, HasSubstr("s.yaml:2:11: nvl72 has no cause 'moon'"));
  EXPECT_THAT(failures, HasSubstr("s.yaml:4:23: unknown failure rates 'nvl7'; did you mean 'nvl72'?"));
  EXPECT_THAT(wrong("scenario: s\nduration: 1d\nfleet: none.yaml\nworkloads: [{generate: fine-tunes}]\n"),
              HasSubstr("s.yaml:3:8: "));
  write("bad.yaml", "fleet: f\nregions:\n- {name: r, clusters: [{blocks: [{hosts: [{class: hgx-h1000}]}]}]}\n");
  EXPECT_THAT(wrong("scenario: s\nduration: 1d\nfleet: bad.yaml\nworkloads: [{generate: fine-tunes}]\n"),
              testing::AllOf(HasSubstr("bad.yaml:3:"), HasSubstr("unknown host class 'hgx-h1000'; did you mean 'hgx-h100'?")));
}

TEST_F(ScenarioFiles, WhatIsWrongInAWorkloadIsSaidAtItsPlace) {
  EXPECT_THAT(wrong_workload("{}"), HasSubstr("s.yaml:5:3: a workload has either 'trace: FILE' or 'generate:"));
  EXPECT_THAT(wrong_workload("{generate: frontir}"),
              HasSubstr("s.yaml:5:14: unknown generator 'frontir'; did you mean 'frontier'?"));
  EXPECT_THAT(wrong_workload("{generate: frontier}"), HasSubstr("'ranks' is missing; write for example 'ranks: 2048'"));
  EXPECT_THAT(wrong_workload("{generate: fine-tunes, mean_gap: 0s}"), HasSubstr("'mean_gap' must be at least 1ms, not 0"));
  EXPECT_THAT(wrong_workload("{generate: fine-tunes, from: 40000d}"), HasSubstr("'from' must be at most 36600d, a century"));
  EXPECT_THAT(wrong_workload("{generate: fine-tunes, curve: offce-hours}"), HasSubstr("did you mean 'office-hours'?"));
  EXPECT_THAT(wrong_workload("{generate: fine-tunes, curve: [1, 2]}"), HasSubstr("a list of 24 numbers"));
  EXPECT_THAT(wrong_workload("{generate: fine-tunes, sizes: [{gpus: 8, work: [2h, 1h]}]}"), HasSubstr("must not fall"));
  EXPECT_THAT(wrong_workload("{generate: services, replicas: {min: 5, max: 2}}"),
              HasSubstr("s.yaml:5:34: 'replicas' must be one value, or"));
  EXPECT_THAT(wrong_workload("{generate: services, checkpoint: {interval: 1h}}"), HasSubstr("unknown key 'checkpoint'"));
  EXPECT_THAT(wrong_workload("{generate: agents, tasks: many}"), HasSubstr("'tasks': must be a whole number"));
  EXPECT_THAT(wrong_workload("{generate: fine-tunes, from: 2h, until: 1h}"), HasSubstr("'until' must be after 'from'"));
  EXPECT_THAT(wrong_workload("{generate: fine-tunes, resources: {gpus: 2}}"), HasSubstr("write 'cpus_per_gpu'"));
  EXPECT_THAT(
      wrong_workload("{generate: fine-tunes}\n- {generate: fine-tunes}"),
      HasSubstr("s.yaml:6:3: two workloads are of kind 'fine-tune'; give one another name, such as 'kind: fine-tune-2'"));
  EXPECT_THAT(wrong("scenario: s\nfleet: fleet.yaml\nworkloads:\n- {generate: agents}\n"),
              HasSubstr("s.yaml:4:3: without a 'duration' of the scenario this never ends"));
  EXPECT_THAT(wrong_workload("{trace: nowhere.csv}"),
              testing::AllOf(HasSubstr("s.yaml:5:11: there is no trace 'nowhere.csv' in"), HasSubstr("--traces")));
  write("traces/bad.csv", "submit_time_s,duration_s,gpus\n0,1,x\n");
  EXPECT_THAT(wrong_workload("{trace: bad.csv}"), HasSubstr("bad.csv:2: 'gpus' must be a whole number"));
}

TEST_F(ScenarioFiles, AnotherTraceMayStandForTheOneThatIsNamed) {
  write("other.csv", "submit_time_s,duration_s,gpus\n0,5,2\n");
  const auto scenario = parse_scenario("scenario: s\nfleet: fleet.yaml\nworkloads: [{trace: philly.csv, kind: jobs}]\n",
                                       "s.yaml", directory_, {.trace_directories = {}, .trace = directory_ / "other.csv"});
  ASSERT_TRUE(scenario);
  const auto arrivals = all_of(arrivals_of(*scenario, 1));
  ASSERT_EQ(arrivals.size(), 1u);
  EXPECT_EQ(text_of(arrivals[0]), "0 jobs-0 default 1x2 5000");
}

TEST(Examples, Load) {
  for (const char* name : {"lab", "training-month", "philly", "muri-64"}) {
    const auto scenario = load_scenario(fmt::format("examples/scenarios/{}.yaml", name));
    ASSERT_TRUE(scenario) << scenario.error().front().text();
    EXPECT_EQ(scenario->name, name);
    EXPECT_GE(comparison(*scenario).size(), 2u);
    EXPECT_TRUE(arrivals_of(*scenario, 1)->next().has_value());
  }
}

// Goal: damaged files are refused or read, never worse. Method: the whole example with random bytes replaced, cut and doubled.
TEST_F(ScenarioFiles, DamagedTextsAreRefusedOrRead) {
  Prng prng(11);
  int read = 0;
  for (int round = 0; round < 1'000; ++round) {
    std::string text(kWhole);
    for (std::uint64_t edits = prng.below(3) + 1; edits > 0; --edits) {
      const std::size_t at = prng.below(text.size());
      switch (prng.below(3)) {
        case 0:
          text[at] = static_cast<char>(prng.below(2) == 0 ? '0' + prng.below(10) : ' ' + prng.below(95));
          break;
        case 1:
          text.erase(at, 1 + prng.below(20));
          break;
        default:
          text.insert(at, text.substr(prng.below(text.size()), prng.below(30)));
      }
    }
    const auto scenario = parse(text);
    if (!scenario) {
      EXPECT_FALSE(scenario.error().empty());
      continue;
    }
    ++read;
    for (const Scenario& run : comparison(*scenario)) {
      const auto source = arrivals_of(run, 1);
      for (int i = 0; i < 300 && source->next(); ++i) {
      }
    }
  }
  EXPECT_GT(read, 10);
}

}  // namespace
}  // namespace capstan::sim
