// Goal: the shipped weights answer through the real engine, and the evaluation says so in a form programs can read.
// Method: the real program on models/abacus (the tests run in the source root), few problems so that it takes seconds.
#include <gtest/gtest.h>

#include <sys/wait.h>

#include <cstdio>
#include <string>

#include "base/json.h"

namespace capstan {
namespace {

struct Ran {
  std::string output;
  int exit_code = -1;
};

Ran run_evaluation(const std::string& arguments) {
  Ran ran;
  std::FILE* pipe = ::popen((CAPSTAN_EVAL_ABACUS " " + arguments + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return ran;
  char buffer[4096];
  for (std::size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) ran.output.append(buffer, n);
  const int status = ::pclose(pipe);
  if (WIFEXITED(status)) ran.exit_code = WEXITSTATUS(status);
  return ran;
}

TEST(EvalAbacusTest, TheShippedWeightsAddUnseenNumbers) {
  const Ran ran = run_evaluation("--model models/abacus --kind addition --problems 40 --json");
  ASSERT_EQ(ran.exit_code, 0) << ran.output;
  const auto report = Json::parse(ran.output);
  ASSERT_TRUE(report) << ran.output;
  EXPECT_EQ(report->get_int("problems"), 40);
  EXPECT_GE(report->get_int("right").value_or(0), 36) << ran.output;
}

TEST(EvalAbacusTest, MistakesOnTheCommandLineAndMissingModelsHaveTheirExitCodes) {
  const Ran unknown = run_evaluation("--kind additions");
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_NE(unknown.output.find("unknown kind 'additions'"), std::string::npos) << unknown.output;
  const Ran missing = run_evaluation("--model /nonexistent");
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_NE(missing.output.find("/nonexistent"), std::string::npos) << missing.output;
}

}  // namespace
}  // namespace capstan
