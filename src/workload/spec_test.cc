#include "workload/spec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "base/file.h"
#include "base/prng.h"

namespace capstan::workload {
namespace {

Spec parse_one(std::string_view yaml) {
  auto specs = parse_specs(yaml, {.source = "t.yaml", .base_directory = "/home/ada"});
  if (!specs) ADD_FAILURE() << specs.error().front().text();
  return specs ? specs->front() : Spec{};
}

TEST(SpecTest, ReadsAJobWithItsDefaults) {
  const Spec spec = parse_one(R"(
kind: job
name: train
ranks: 2
command: [python3, train.py]
workdir: .
env: {B: 2, A: one}
resources: {cpus: 0.5, memory: 2GiB}
restarts: {budget: 5}
)");
  EXPECT_EQ(spec.command, (std::vector<std::string>{"python3", "train.py"}));
  EXPECT_EQ(spec.workdir, "/home/ada");
  EXPECT_EQ(spec.env, (Spec::Pairs{{"A", "one"}, {"B", "2"}}));
  EXPECT_EQ(spec.resources.milli_cpus, 500);
  EXPECT_EQ(spec.restarts.budget, 5);
  EXPECT_EQ(spec.grace_ms, 30'000);
}

TEST(SpecTest, EngineServiceGetsHealthAndAModelName) {
  const Spec spec = parse_one("kind: service\nname: chat\nengine: {model: abacus}\n");
  EXPECT_EQ(spec.model_name, "chat");
  ASSERT_TRUE(spec.health.has_value());
  EXPECT_EQ(spec.health->path, "/health");
}

TEST(SpecTest, TheGatewayIsToldHowToAskReplicas) {
  const Spec engine = parse_one("kind: service\nname: chat\nengine: {model: abacus}\nhedge_after: 0.3\n");
  EXPECT_EQ(engine.hedge_after_ms, 300);
  EXPECT_TRUE(engine.speaks_http2());
  const std::string command = "kind: service\nname: chat\ncommand: serve\nmodel_name: m\n";
  EXPECT_FALSE(parse_one(command).speaks_http2());
  EXPECT_TRUE(parse_one(command + "http2: true\n").speaks_http2());
  const auto changes = differences(parse_one(command), parse_one(command + "http2: true\nhedge_after: 1s\n"));
  ASSERT_EQ(changes.size(), 2u);
  EXPECT_EQ(changes[0].path + " " + changes[0].from + " " + changes[0].to, "hedge_after 0s 1s");
  EXPECT_EQ(changes[1].path + " " + changes[1].from + " " + changes[1].to, "http2 default true");
  EXPECT_EQ(changes[1].restart, Restart::kNone);
  const auto wrong = parse_specs("kind: service\nname: a\ncommand: x\nhttp2: true\n", {.source = "t.yaml"});
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().front().text(),
            "t.yaml:4:8: 'http2' is how the gateway asks; give the service a 'model_name'");
}

// Goal: both stored forms lose nothing, with every field away from its default at least once.
TEST(SpecTest, StoredFormsReadBackEqual) {
  for (const char* yaml :
       {"kind: job\nname: a\nranks: 3\ncommand: 'true'\nlabels: {x: y}\ncheckpoint: {interval: 5m}\n",
        "kind: job\nname: a\nranks: 64\nranks_min: 32\ncommand: 'true'\ntime_limit: 1h\npreemptible: false\n"
        "placement: {segment: 16, required: region, preferred: block, gpu_model: gb200, host_class: x.y, "
        "cluster: c1, region: r1, reservation: march}\n"
        "helpers: {ranks: 8, resources: {cpus: 2, memory: 1GiB}, command: [load, it]}\n",
        "kind: job\nname: a\ncommand: 'true'\nresources: {cpus: 1, gpus: 0.25}\nhelpers: {ranks: 1}\n"
        "restarts: {budget: 0, backoff: 2s, backoff_max: 3s}\nuser: ada\nworkdir: /w\ngrace: 1s\npriority: "
        "-3\n"
        "placement: {required: none}\n",
        "kind: service\nname: b\nengine: {model: ./m, context: 512}\nhealth: {path: /ok}\n",
        "kind: service\nname: b\ncommand: 'true'\nmodel_name: m\nhedge_after: 300ms\nhttp2: false\n",
        "kind: service\nname: b\ncommand: 'true'\nreplicas: 4\nplacement: {required: block}\nenv: {A: ''}\n",
        "kind: tasks\nname: c\ncount: 1000000\nparallelism: 4\nretries: 2\ntimeout: 30s\ncommand: "
        "'true'\n"}) {
    const Spec spec = parse_one(yaml);
    for (const Defaults defaults : {Defaults::kLeftOut, Defaults::kWritten}) {
      const auto again = from_json(Json::parse(to_json(spec, defaults).dump()).value());
      ASSERT_TRUE(again) << again.error().message;
      EXPECT_EQ(*again, spec) << yaml;
      EXPECT_TRUE(differences(spec, *again).empty());
      EXPECT_EQ(to_json(*again).dump(), to_json(spec).dump());
    }
  }
}

TEST(SpecTest, DefaultsAreLeftOutOfTheCanonicalFormAndWrittenForPeople) {
  const Spec spec = parse_one("kind: tasks\nname: a\ncount: 5\ncommand: [x]\npriority: 0\n");
  EXPECT_EQ(to_json(spec).dump(), R"({"kind":"tasks","name":"a","command":["x"],"count":5})");
  const Json all = to_json(spec, Defaults::kWritten);
  EXPECT_EQ(all.get_int("grace_ms"), 30'000);
  EXPECT_EQ(all.find("placement")->get_string("required"), "none");
  EXPECT_EQ(all.get_bool("preemptible"), true);
}

// What version 0.1 wrote: all its fields, none of the later ones.
TEST(SpecTest, JournalsOfTheFirstVersionStillRead) {
  const auto job = from_json(*Json::parse(
      R"({"kind":"job","name":"a","tenant":"t","priority":10,"labels":{},"user":"","command":["x"],"env":{"A":"1"},)"
      R"("workdir":"","resources":{"milli_cpus":500,"memory_bytes":7,"gpus":4},"grace_ms":30000,)"
      R"("restarts":{"budget":3,"backoff_ms":1000,"backoff_max_ms":60000},"ranks":2,)"
      R"("checkpoint":{"interval_ms":600000},"time_limit_ms":0})"));
  ASSERT_TRUE(job) << job.error().message;
  EXPECT_EQ(*job,
            parse_one("kind: job\nname: a\ntenant: t\npriority: 10\ncommand: [x]\nenv: {A: 1}\nranks: 2\n"
                      "resources: {cpus: 0.5, memory: 7, gpus: 4}\ncheckpoint: {interval: 10m}\n"));
  const auto tasks = from_json(*Json::parse(
      R"({"kind":"tasks","name":"a","tenant":"default","priority":0,"labels":{},"user":"","command":["x"],"env":{},)"
      R"("workdir":"","resources":{"milli_cpus":1000,"memory_bytes":0,"gpus":0},"grace_ms":30000,)"
      R"("restarts":{"budget":3,"backoff_ms":1000,"backoff_max_ms":60000},"count":9,"parallelism":0,"retries":0,)"
      R"("timeout_ms":0})"));
  ASSERT_TRUE(tasks) << tasks.error().message;
  EXPECT_EQ(*tasks, parse_one("kind: tasks\nname: a\ncommand: [x]\ncount: 9\n"));
}

TEST(SpecTest, StoredFormsThatAreDamagedAreRefusedByField) {
  const Json good =
      to_json(parse_one("kind: job\nname: a\ncommand: 'true'\nranks: 2\nplacement: {segment: 2}\n"));
  const auto message = [&](auto&& damage) {
    Json json = good;
    damage(json);
    const auto read = from_json(json);
    return read ? "accepted" : read.error().message;
  };
  EXPECT_NE(message([](Json& json) { json.erase("name"); }).find("'name'"), std::string::npos);
  EXPECT_NE(message([](Json& json) { json.erase("kind"); }).find("'kind'"), std::string::npos);
  EXPECT_NE(message([](Json& json) { json["ranks"] = "2"; }).find("'ranks'"), std::string::npos);
  EXPECT_NE(message([](Json& json) { json["command"] = "x"; }).find("'command'"), std::string::npos);
  EXPECT_NE(message([](Json& json) { json["placement"]["required"] = "rack"; }).find("'placement.required'"),
            std::string::npos);
  EXPECT_NE(message([](Json& json) { json["placement"] = 1; }).find("'placement'"), std::string::npos);
}

TEST(SpecTest, ServicesAndTasksSpreadUnlessTheySayOtherwise) {
  EXPECT_EQ(parse_one("kind: job\nname: a\ncommand: x\n").placement.required, fleet::Level::kCluster);
  EXPECT_EQ(parse_one("kind: service\nname: a\ncommand: x\n").placement.required, fleet::Level::kNone);
  EXPECT_EQ(parse_one("kind: tasks\nname: a\ncommand: x\n").placement.required, fleet::Level::kNone);
  EXPECT_EQ(parse_one("kind: tasks\nname: a\ncommand: x\nplacement: {required: block}\n").placement.required,
            fleet::Level::kBlock);
}

TEST(SpecTest, ReadsSharesOfAGpuAndWholeOnes) {
  const auto gpus = [](std::string_view text) {
    const Resources out =
        parse_one(fmt::format("kind: job\nname: a\ncommand: x\nresources: {{gpus: {}}}\n", text)).resources;
    return std::pair(out.gpus, out.gpu_milli);
  };
  EXPECT_EQ(gpus("4"), std::pair(4L, 0L));
  EXPECT_EQ(gpus("1.0"), std::pair(1L, 0L));
  EXPECT_EQ(gpus("0.25"), std::pair(0L, 250L));
  EXPECT_EQ(gpus("0.999"), std::pair(0L, 999L));
}

TEST(SpecTest, ChangesOfPlacementAndHelpersRestartAJobAndPreemptibleDoesNot) {
  const std::string head = "kind: job\nname: a\ncommand: x\nranks: 8\n";
  const Spec from = parse_one(head + "helpers: {ranks: 1}\nresources: {gpus: 1}\n");
  const Spec to =
      parse_one(head +
                "helpers: {ranks: 2, resources: {memory: 1GiB}}\nranks_min: 4\npreemptible: false\n"
                "placement: {segment: 4, gpu_model: gb200}\n");
  const auto changes = differences(from, to);
  const auto find = [&](std::string_view path) {
    const auto at = std::ranges::find(changes, path, &Change::path);
    return at != changes.end() ? fmt::format("{} -> {} {}", at->from, at->to, static_cast<int>(at->restart))
                               : "";
  };
  EXPECT_EQ(changes.size(), 6u);
  EXPECT_EQ(find("helpers"), "1 with 1 cpus -> 2 with 1 cpus, 1GiB 1");
  EXPECT_EQ(find("resources.gpus"), "1 -> 0 1");
  EXPECT_EQ(find("ranks_min"), "0 -> 4 0");
  EXPECT_EQ(find("preemptible"), "true -> false 0");
  EXPECT_EQ(find("placement.segment"), "0 -> 4 1");
  EXPECT_EQ(find("placement.gpu_model"), " -> gb200 1");
}

TEST(SpecTest, DifferencesSayWhatChangesAndWhatRestarts) {
  const Spec from = parse_one("kind: job\nname: a\ncommand: 'true'\npriority: 1\nenv: {A: 1}\n");
  const Spec to =
      parse_one("kind: job\nname: a\ncommand: 'true'\npriority: 2\nenv: {A: 2, B: 3}\ngrace: 5s\n");
  const auto changes = differences(from, to);
  ASSERT_EQ(changes.size(), 4u);
  EXPECT_EQ(changes[0].path, "priority");
  EXPECT_EQ(changes[0].restart, Restart::kNone);
  EXPECT_EQ(changes[1].path, "env.A");
  EXPECT_EQ(changes[1].restart, Restart::kRanks);
  EXPECT_EQ(changes[3].from, "30s");
}

// Goal: each malformed file gets exactly the messages that its golden file holds, for a newcomer to act on.
// Method: every tests/golden/specs/NAME.yaml against NAME.expected; CAPSTAN_UPDATE_GOLDEN=1 rewrites them.
TEST(SpecTest, MalformedFilesGetTheirGoldenMessages) {
  const std::filesystem::path directory = "tests/golden/specs";
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().extension() != ".yaml") continue;
    ++files;
    const std::string name = entry.path().filename();
    const auto parsed = parse_specs(read_file(entry.path()).value(), {.source = name});
    ASSERT_FALSE(parsed) << name << " was accepted";
    std::string text;
    for (const Diagnostic& diagnostic : parsed.error()) text += diagnostic.text() + "\n";
    auto expected = entry.path();
    expected.replace_extension(".expected");
    if (std::getenv("CAPSTAN_UPDATE_GOLDEN") != nullptr) {
      ASSERT_TRUE(write_file_atomic(expected, text));
    }
    EXPECT_EQ(text, read_file(expected).value_or("")) << name;
  }
  EXPECT_GE(files, 20);
}

// Goal: no input crashes the parser. Method: seeded mutations of a valid file, a thousand of them.
TEST(SpecTest, MutatedFilesNeverCrash) {
  const std::string valid =
      "kind: job\nname: train\nranks: 2\ncommand: [a, b]\nenv: {A: 1}\nresources: {cpus: 1, memory: "
      "1GiB}\n---\n"
      "kind: tasks\nname: many\ncount: 10\ncommand: 'true'\nlabels: &l {x: y}\n";
  Prng prng(7);
  int refused = 0;
  for (int round = 0; round < 1000; ++round) {
    std::string text = valid;
    for (std::int64_t edits = prng.between(1, 8); edits > 0; --edits) {
      const auto at = prng.below(text.size());
      if (prng.below(2) == 0) {
        text[at] = "{}[]:,-&*!|>'\"%@`\n\t 0a"[prng.below(22)];
      } else {
        text.erase(at, prng.below(4) + 1);
      }
      if (text.empty()) text = "x";
    }
    refused += !parse_specs(text, {}).has_value();
  }
  EXPECT_GT(refused, 500);
}

TEST(SpecTest, AliasBombIsRefused) {
  std::string yaml = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 9; ++i) {
    yaml += fmt::format("a{}: &a{} [", i, i);
    for (int j = 0; j < 10; ++j) yaml += fmt::format("*a{}, ", i - 1);
    yaml += "x]\n";
  }
  const auto parsed = parse_specs(yaml, {});
  ASSERT_FALSE(parsed);
  EXPECT_NE(parsed.error().front().message.find("aliases"), std::string::npos);
}

}  // namespace
}  // namespace capstan::workload
