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

TEST(SpecTest, StoredFormReadsBackEqual) {
  for (const char* yaml :
       {"kind: job\nname: a\nranks: 3\ncommand: 'true'\nlabels: {x: y}\ncheckpoint: {interval: 5m}\n",
        "kind: service\nname: b\nengine: {model: ./m, context: 512}\nhealth: {path: /ok}\n",
        "kind: tasks\nname: c\ncount: 1000000\nparallelism: 4\nretries: 2\ntimeout: 30s\ncommand: "
        "'true'\n"}) {
    const Spec spec = parse_one(yaml);
    const auto again = from_json(Json::parse(to_json(spec).dump()).value());
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(*again, spec);
    EXPECT_TRUE(differences(spec, *again).empty());
  }
}

TEST(SpecTest, StoredFormWithoutAFieldIsRefusedByName) {
  Json json = to_json(parse_one("kind: job\nname: a\ncommand: 'true'\n"));
  json.erase("ranks");
  EXPECT_NE(from_json(json).error().message.find("'ranks'"), std::string::npos);
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
  EXPECT_GE(files, 12);
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
