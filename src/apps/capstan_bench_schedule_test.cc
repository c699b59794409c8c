// Goal: the scheduler's benchmark works at a hundredth of its size: every figure that it promises is there,
// its proofs hold, and the same decisions come out of two runs. (No time is asserted.)
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>

#include "apps/bench/recipe.h"
#include "base/json.h"
#include "base/text.h"

namespace capstan::apps {
namespace {

struct Outcome {
  int exit_code = 0;
  std::string output;
};

Outcome run(const std::string& arguments) {
  Outcome outcome;
  FILE* const pipe =
      popen((std::string(CAPSTAN_BENCH_SCHEDULE) + " " + arguments + " 2>/dev/null").c_str(), "r");
  for (int byte = std::fgetc(pipe); byte != EOF; byte = std::fgetc(pipe)) {
    outcome.output.push_back(static_cast<char>(byte));
  }
  outcome.exit_code = WEXITSTATUS(pclose(pipe));
  return outcome;
}

Json result_of(const std::string& arguments) {
  const Outcome outcome = run(arguments);
  EXPECT_EQ(outcome.exit_code, 0);
  const auto json = Json::parse(outcome.output);
  EXPECT_TRUE(json.has_value()) << outcome.output;
  return json ? *json : Json::object();
}

TEST(ScheduleBenchmark, PrintsOneObjectWithEveryFigure) {
  const Json result = result_of("--scale 0.01");
  for (const char* key : {"gang_1024x16_p99_ms", "gang_4096x16_p99_ms", "gang_preempt_p99_ms",
                          "explain_p99_ms", "scaling_exponent", "tasks_per_s", "tasks_durable_per_s",
                          "admission_p99_ms", "queue_decisions_per_s"}) {
    ASSERT_TRUE(result.contains(key)) << key;
    EXPECT_NE(result.find(key)->as_double(), 0) << key << ": nothing was measured";
  }
  for (const char* key : {"load_s", "rss_mib", "recover_s", "snapshot_stall_ms"}) {
    ASSERT_TRUE(result.contains("half_million"));
    EXPECT_TRUE(result.find("half_million")->contains(key)) << key;
  }
}

TEST(ScheduleBenchmark, DecidesTheSameInTwoRuns) {
  const auto fingerprints = [](const Json& result) {
    std::string all;
    for (const char* section : {"gangs", "queue"})
      all += result.find("conditions")->find(section)->get_string("fingerprint").value_or("none") + " ";
    return all;
  };
  const std::string first = fingerprints(result_of("--scale 0.005 --only gangs,queue"));
  EXPECT_EQ(first.find("none"), std::string::npos);
  EXPECT_EQ(first, fingerprints(result_of("--scale 0.005 --only gangs,queue")));
}

TEST(ScheduleBenchmark, RefusesSectionsThatItDoesNotHave) { EXPECT_EQ(run("--only gongs").exit_code, 2); }

TEST(ScheduleBenchmark, ARecipeThatIsWrongIsNamedWithItsLine) {
  const auto recipe = bench::parse_recipe("seed: 1\nseeed: 2\n", "r.yaml");
  ASSERT_FALSE(recipe);
  EXPECT_TRUE(recipe.error().message.starts_with("r.yaml:")) << recipe.error().message;
}

}  // namespace
}  // namespace capstan::apps
