// Goal: what people write becomes exactly one spec, mistakes are told with their place and what would be
// right, and a spec survives its recording.
#include "agents/loop/spec.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"

namespace capstan::agents::loop {
namespace {

AgentsSpec good(const std::string& text) {
  auto parsed = parse_agents(text, {.source = "task.yaml"});
  EXPECT_TRUE(parsed) << (parsed ? "" : parsed.error().front().text());
  return parsed ? *parsed : AgentsSpec{};
}

std::string mistakes(const std::string& text) {
  const auto parsed = parse_agents(text, {.source = "task.yaml"});
  std::string out;
  if (!parsed) {
    for (const auto& diagnostic : parsed.error()) out += diagnostic.text() + "\n";
  }
  return out;
}

TEST(AgentSpec, AShortOneHasEveryDefault) {
  const AgentsSpec spec = good("kind: agent\nname: hello\nprompt: Say hello.\n");
  EXPECT_FALSE(spec.array);
  EXPECT_EQ(spec.agent.prompt, "Say hello.");
  EXPECT_EQ(spec.agent.budget.steps, 50);
  EXPECT_EQ(spec.agent.sandbox.memory_bytes, 256 << 20);
  EXPECT_EQ(spec.output, "hello.run");
  EXPECT_EQ(spec.tasks.size(), 1u);
}

TEST(AgentSpec, MistakesNameTheirPlaceAndWhatWouldBeRight) {
  EXPECT_EQ(mistakes("kind: agent\nname: a\nprompt: p\ntols: [python]\n"),
            "task.yaml:4:1: unknown key 'tols'; did you mean 'tools'?\n");
  EXPECT_EQ(mistakes("kind: agent\nname: a\nprompt: p\ntools: [pyton]\n"),
            "task.yaml:4:9: unknown tool 'pyton'; did you mean 'python'?\n");
  EXPECT_EQ(
      mistakes("kind: agent\nname: a\nprompt: p\nmodel: {server: 'http://x'}\nbudget: {dollars: 1}\n"),
      "task.yaml:5:19: 'dollars' needs to know what tokens cost; write for example 'price: {input: 0.07, "
      "output: 0.30}' in 'model' (dollars for a million tokens)\n");
  EXPECT_EQ(mistakes("kind: agent\nname: a\nprompt: p\nmodel: {key_env: K, key_file: /k}\n"),
            "task.yaml:4:31: the key is in 'key_env' or in 'key_file', not in both\n");
  EXPECT_EQ(mistakes("kind: agent\nname: a\nprompt: p\nmodel: {temperature: hot}\n"),
            "task.yaml:4:22: 'temperature' must be a number from 0 to 2, not 'hot'\n");
  EXPECT_EQ(
      mistakes("kind: agent\nname: a\nprompt: p\ncheck: {attempts: 2}\n"),
      "task.yaml:4:8: 'check' needs either 'python' (code) or 'command' (a shell line or a list of words)\n");
  EXPECT_EQ(
      mistakes("kind: agent\nname: a\nprompt: p\nsandbox: {files: [{path: /etc/passwd, content: x}]}\n"),
      "task.yaml:4:19: a file's 'path' must be below /work, such as /work/data.csv, not '/etc/passwd'\n");
  EXPECT_EQ(mistakes("kind: agent\nname: a\nprompt: p\nepisodes: 3\n"),
            "task.yaml:4:1: 'episodes' is for kind: agents\n");
  EXPECT_EQ(mistakes("kind: agents\nname: a\nprompt: '{{question}}'\ntasks: [{question: x}, {frage: y}]\n"),
            "task.yaml:3:9: '{{question}}' is no value of task 2\n");
  EXPECT_EQ(mistakes("name: a\nprompt: p\n"),
            "task.yaml:1:1: 'kind' is missing; write 'kind: agent', or 'kind: agents' for many episodes\n");
}

TEST(AgentSpec, AnEpisodeHasItsTasksValuesAndASeedOfItsOwn) {
  const AgentsSpec spec = good(
      "kind: agents\nname: a\nmodel: {seed: 10}\nprompt: 'What is {{ question }}?'\ninstructions: Be "
      "{{tone}}.\n"
      "tasks:\n- {question: 1+1, tone: kind}\n- {question: 2+2, tone: brief}\nepisodes: 4\n");
  EXPECT_EQ(spec.episode_count(), 8);
  const AgentSpec episode = spec.episode(1, 3);
  EXPECT_EQ(episode.prompt, "What is 2+2?");
  EXPECT_EQ(episode.instructions, "Be brief.");
  EXPECT_EQ(episode.model.seed, 13);
  EXPECT_NE(spec.episode(0, 3).hash(), episode.hash());
  EXPECT_NE(spec.episode(1, 2).hash(), episode.hash());
}

TEST(AgentSpec, TasksComeFromAFileOfJsonLines) {
  const std::filesystem::path directory = testing::TempDir() + "agent-spec-" + random_hex(4);
  ASSERT_TRUE(make_directories(directory));
  ASSERT_TRUE(
      write_file_atomic(directory / "t.jsonl", "{\"q\":\"a\",\"n\":7}\n\n{\"q\":\"b\",\"n\":[1,2]}\n"));
  const std::string text = "kind: agents\nname: a\nprompt: '{{q}}'\ntasks: t.jsonl\n";
  const auto spec = parse_agents(text, {.source = "x.yaml", .base_directory = directory});
  ASSERT_TRUE(spec) << spec.error().front().text();
  EXPECT_EQ(spec->tasks, (std::vector<Pairs>{{{"q", "a"}, {"n", "7"}}, {{"q", "b"}, {"n", "[1,2]"}}}));
  ASSERT_TRUE(write_file_atomic(directory / "t.jsonl", "{\"q\":\"a\"}\n[3]\n"));
  const auto bad = parse_agents(text, {.source = "x.yaml", .base_directory = directory});
  ASSERT_FALSE(bad);
  EXPECT_NE(bad.error().front().text().find("t.jsonl:2: each line must be a JSON object"), std::string::npos);
  std::filesystem::remove_all(directory);
}

TEST(AgentSpec, TheJsonOfARecordingReadsBackAsTheSameSpec) {
  AgentSpec spec = good(R"(
kind: agent
name: whole
model: {name: m, api: responses, temperature: 0.7, seed: 3, max_tokens: 99, reasoning_effort: high,
        price: {input: 0.07, cached: 0.007, output: 0.3}}
instructions: be kind
prompt: go
tools: [python, run_command, read_file, write_file]
budget: {steps: 3, tokens: 1000, time: 90s, dollars: 0.5}
sandbox:
  memory: 64MiB
  cpus: 0.5
  disk: 8MiB
  network: loopback
  call: {time: 5s, cpu_time: 4s, memory: 32MiB, output: 2KiB}
  files: [{path: /work/a.txt, content: "one\ntwo: {{x}}\n"}, {path: /work/empty, content: ""}]
check: {command: [test, -f, /work/done], attempts: 5, again: restart, temperature: 0.9}
score: {python: "1", pass: 0.25}
task: {x: "null", y: "12"}
)")
                       .agent;
  spec.prompt = "tab\there, quote \" and \\, café 😀, \x01 and a\nnew line: {not: yaml} # {{no}} comment";
  const auto back = agent_from_json(*Json::parse(spec.to_json().dump()));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->to_json().dump(), spec.to_json().dump());
  EXPECT_EQ(back->hash(), spec.hash());
  EXPECT_EQ(back->prompt, spec.prompt);
  EXPECT_EQ(back->model.price->cached, 7000);
  EXPECT_EQ(back->sandbox.files[0].content, "one\ntwo: {{x}}\n");
  EXPECT_EQ(back->task[0].second, "null");
}

TEST(AgentSpec, NamesInDoubleBracesAreFilledInAndOthersStay) {
  std::string missing;
  EXPECT_EQ(fill_in("{{a}} {{ b }} {c} {{", {{"a", "1"}, {"b", "{{a}}"}}, &missing), "1 {{a}} {c} {{");
  EXPECT_EQ(missing, "");
  EXPECT_EQ(fill_in("{{no}}!", {}, &missing), "{{no}}!");
  EXPECT_EQ(missing, "no");
}

}  // namespace
}  // namespace capstan::agents::loop
