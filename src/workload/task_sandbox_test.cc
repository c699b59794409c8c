#include "workload/task_sandbox.h"

#include <gtest/gtest.h>

#include "workload/spec.h"

namespace capstan::workload {
namespace {

std::expected<std::vector<Spec>, std::vector<Diagnostic>> parse(const std::string& yaml) {
  return parse_specs(yaml, {.source = "t.yaml", .base_directory = "/home/ada"});
}
std::string error_of(const std::string& sandbox, const std::string& more = "command: 'true'\n") {
  const auto specs = parse("kind: tasks\nname: a\ncount: 10\n" + more + "sandbox: " + sandbox + "\n");
  return specs ? "" : specs.error().front().text();
}

TEST(TaskSandboxTest, ReadsEveryFieldAndFillsInTheDefaults) {
  const auto specs = parse(R"(
kind: tasks
name: squares
count: 1000
timeout: 5s
sandbox:
  lane: python
  code: |
    print(1)
  network: namespace
  input: lines.txt
  collect: /work/out-{index}
  batch: 50
  chunk: 200
  pids: 8
  disk: 1MiB
  files: 100
  cpu_time: 3s
  output: 4KiB
)");
  ASSERT_TRUE(specs) << specs.error().front().text();
  const Spec& spec = specs->front();
  ASSERT_TRUE(spec.sandbox);
  EXPECT_EQ(*spec.sandbox, (TaskSandbox{.lane = "python",
                                        .code = "print(1)\n",
                                        .template_root = "",
                                        .network = "namespace",
                                        .batch = 50,
                                        .chunk = 200,
                                        .input = "/home/ada/lines.txt",
                                        .collect = "/work/out-{index}",
                                        .pids = 8,
                                        .disk_bytes = 1 << 20,
                                        .files = 100,
                                        .cpu_time_ms = 3000,
                                        .output_bytes = 4096}));
  EXPECT_EQ(spec.resources.memory_bytes, kSandboxMemoryDefault);
  EXPECT_EQ(spec.chunks(), 5);
  const auto back = from_json(to_json(spec));
  ASSERT_TRUE(back);
  EXPECT_EQ(*back, spec);
  EXPECT_EQ(*from_json(to_json(spec, Defaults::kWritten)), spec);
}

TEST(TaskSandboxTest, AChunkIsABatchUnlessItSaysOtherwiseAndTheLastOneMayBeSmall) {
  const auto specs = parse("kind: tasks\nname: a\ncount: 1001\ncommand: 'true'\nsandbox: {batch: 100}\n");
  ASSERT_TRUE(specs);
  EXPECT_EQ(specs->front().chunk(), 100);
  EXPECT_EQ(specs->front().chunks(), 11);
}

TEST(TaskSandboxTest, WhatCannotWorkIsRefusedWithWhatWouldBeRight) {
  EXPECT_NE(error_of("{lane: pyton, code: x}", "").find("did you mean 'python'"), std::string::npos);
  EXPECT_NE(error_of("{lane: python}", "").find("'sandbox.code' is missing"), std::string::npos);
  EXPECT_NE(error_of("{lane: python, code: x}").find("'command' is for the lane process"), std::string::npos);
  EXPECT_NE(error_of("{code: x}").find("lanes python and node"), std::string::npos);
  EXPECT_NE(error_of("{lane: node, code: x, batch: 2}", "").find("a sandbox each"), std::string::npos);
  EXPECT_NE(error_of("{batch: 10, chunk: 15}").find("such as 20"), std::string::npos);
  EXPECT_NE(error_of("{collect: /etc/passwd}").find("below /work"), std::string::npos);
  EXPECT_NE(error_of("{}", "command: 'true'\nresources: {gpus: 1}\n").find("no GPUs"), std::string::npos);
  EXPECT_NE(error_of("{}", "command: 'true'\nworkdir: /tmp\n").find("leave 'workdir' out"),
            std::string::npos);
  EXPECT_NE(error_of("{}", "").find("'command' is missing"), std::string::npos);
  EXPECT_EQ(error_of("{batch: 10, chunk: 20}"), "");
}

// Goal: an array grows only where its last chunk is full, for that one may have run.
TEST(TaskSandboxTest, AnArrayWithAFullLastChunkMayGrow) {
  const auto of = [](std::int64_t count) {
    return parse(fmt::format("kind: tasks\nname: a\ncount: {}\ncommand: 'true'\nsandbox: {{batch: 10}}\n",
                             count))
        ->front();
  };
  EXPECT_EQ(differences(of(20), of(35)).front().restart, Restart::kNone);
  EXPECT_EQ(differences(of(25), of(35)).front().restart, Restart::kRefused);
}

}  // namespace
}  // namespace capstan::workload
