// Goal: the OpenB benchmark reads its traces, says what is wrong with bad ones, and measures what it says it
// measures, on traces of a few lines. (The published traces themselves are no part of the tests.)
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zstd.h>

#include <cstdio>
#include <filesystem>

#include "apps/openb/replay.h"
#include "base/file.h"
#include "base/json.h"

namespace capstan::apps {
namespace {

constexpr std::string_view kNodes =
    "sn,cpu_milli,memory_mib,gpu,model\n"
    "n0,64000,262144,2,P100\n"
    "n1,96000,393216,8,G2\n"
    "n2,32000,131072,0,\n";
constexpr std::string_view kPods =
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,"
    "scheduled_time\n"
    "p0,12000,16384,1,1000,,LS,Running,0,12537496,0\n"
    "p1,6000,12288,1,460,G2|P100|G2,LS,Running,427061,12902960,427061\n"
    "p2,8000,1024,0,0,,BE,Running,1,2,3\n"
    "p3,8000,1024,4,1000,G2,BE,Running,1,2,3\n";

class OpenbBenchmark : public testing::Test {
 protected:
  OpenbBenchmark() { std::filesystem::create_directories(folder_); }
  ~OpenbBenchmark() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& name, std::string_view text) {
    const std::string path = folder_ / name;
    EXPECT_TRUE(write_file_atomic(path, text));
    return path;
  }

  struct Outcome {
    int exit_code = 0;
    std::string output;  // of both streams
  };
  static Outcome run(const std::string& arguments) {
    Outcome outcome;
    FILE* const pipe = popen((std::string(CAPSTAN_BENCH_OPENB) + " " + arguments + " 2>&1").c_str(), "r");
    for (int byte = std::fgetc(pipe); byte != EOF; byte = std::fgetc(pipe)) {
      outcome.output.push_back(static_cast<char>(byte));
    }
    outcome.exit_code = WEXITSTATUS(pclose(pipe));
    return outcome;
  }

  const std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("capstan-openb-test-" + std::to_string(getpid()));
};

void expect_refused(const auto& result, std::string_view message) {
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().message, message);
}

TEST_F(OpenbBenchmark, ReadsNodesAndPods) {
  const auto nodes = parse_openb_nodes("nodes.csv", kNodes);
  ASSERT_TRUE(nodes) << nodes.error().message;
  ASSERT_EQ(nodes->size(), 3u);
  EXPECT_EQ((*nodes)[0].name, "n0");
  EXPECT_EQ((*nodes)[0].gpu_model, "P100");
  EXPECT_EQ((*nodes)[0].capacity, (fleet::Capacity{64'000, std::int64_t{262'144} << 20, 2, 0}));
  const auto pods = parse_openb_pods("pods.csv", kPods);
  ASSERT_TRUE(pods) << pods.error().message;
  ASSERT_EQ(pods->size(), 4u);
  EXPECT_EQ((*pods)[0].each, (fleet::Capacity{12'000, std::int64_t{16'384} << 20, 1, 0}))
      << "1000 is a whole GPU";
  EXPECT_EQ((*pods)[1].each, (fleet::Capacity{6'000, std::int64_t{12'288} << 20, 0, 460}));
  EXPECT_EQ((*pods)[1].gpu_models, (std::vector<std::string>{"G2", "P100"}));
  EXPECT_EQ((*pods)[2].each, (fleet::Capacity{8'000, std::int64_t{1'024} << 20, 0, 0}));
  EXPECT_EQ((*pods)[3].each.gpus, 4);
}

TEST_F(OpenbBenchmark, SaysWhichLineOfATableIsWrong) {
  expect_refused(parse_openb_nodes("n.csv", ""), "n.csv: is empty; the first line names the columns");
  expect_refused(parse_openb_nodes("n.csv", "sn,cpu_milli,gpu,model\n"), "n.csv:1: no column 'memory_mib'");
  expect_refused(parse_openb_nodes("n.csv", "sn,cpu_milli,memory_mib,gpu,model\nn0,1,1,33,T4\n"),
                 "n.csv:2: gpu is '33', not a number from 0 to 32");
  expect_refused(parse_openb_nodes("n.csv", "sn,cpu_milli,memory_mib,gpu,model\nn0,1,1,1,T4\nn1,1,1\n"),
                 "n.csv:3: 3 cells, the header has 5");
  const std::string header = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n";
  expect_refused(parse_openb_pods("p.csv", header + "p0,x,1,1,1000,\n"),
                 "p.csv:2: cpu_milli is 'x', not a number from 0 to 1000000000");
  expect_refused(parse_openb_pods("p.csv", header + "p0,1,1,2,500,\n"),
                 "p.csv:2: gpu_milli is '500', not 1000");
}

TEST_F(OpenbBenchmark, ReadsZstdAndRefusesABrokenFile) {
  std::string packed(ZSTD_compressBound(kPods.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), kPods.data(), kPods.size(), 3));
  const std::string nodes = write("nodes.csv", kNodes);
  const auto trace = read_openb(nodes, write("pods.csv.zst", packed));
  ASSERT_TRUE(trace) << trace.error().message;
  EXPECT_EQ(trace->pods, *parse_openb_pods("pods.csv", kPods));
  const std::string cut = write("cut.csv.zst", std::string_view(packed).substr(0, packed.size() - 3));
  expect_refused(read_openb(nodes, cut), cut + ": the zstd data ends too early");
  packed[8] = static_cast<char>(packed[8] ^ 0x7F);
  EXPECT_FALSE(read_openb(nodes, write("broken.csv.zst", packed)));
  EXPECT_EQ(read_openb(nodes, folder_ / "none.csv").error().code, Code::kNotFound);
}

// Two GPUs and pods of 600 thousandths: the third and later ones find no room, whatever the policy.
TEST_F(OpenbBenchmark, RecordsWhatIsAllocatedWhenSoMuchHasArrived) {
  OpenbTrace trace;
  trace.nodes = {{"n0", {.milli_cpus = 64'000, .memory_bytes = 1, .gpus = 2, .gpu_milli = 0}, "T4"}};
  trace.pods = {{.each = {.milli_cpus = 1, .memory_bytes = 0, .gpus = 0, .gpu_milli = 600},
                 .gpu_models = {},
                 .host_class = {}}};
  for (const char* policy : {"best_fit", "fgd", "first_fit"}) {
    const auto run = replay_openb(trace, {.policy = policy, .seed = 1});
    ASSERT_TRUE(run) << run.error().message;
    EXPECT_EQ(run->pods, 5) << "5 x 600 is the first multiple that reaches 130% of 2000";
    EXPECT_EQ(run->placed, 2);
    EXPECT_EQ(run->percent_at(0), 30.0);
    EXPECT_EQ(run->percent_at(30), 30.0);
    EXPECT_EQ(run->percent_at(31), 60.0);
    EXPECT_EQ(run->percent_at(100), 60.0);
    EXPECT_EQ(run->percent_at(130), 60.0);
  }
  expect_refused(replay_openb(trace, {.policy = "worst"}),
                 "no policy 'worst'; there are best_fit, fgd and first_fit");
  trace.pods[0].each.gpu_milli = 0;
  expect_refused(replay_openb(trace, {}), "no pod of the trace asks for a GPU");
}

TEST_F(OpenbBenchmark, PrintsOneJsonObjectAsItsLastLineAndTheSameOneAgain) {
  const std::string arguments =
      "--nodes " + write("nodes.csv", kNodes) + " --pods " + write("pods.csv", kPods);
  const Outcome outcome = run(arguments + " --seeds 7-9 --policies fgd,best_fit");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  const std::string text = outcome.output.substr(0, outcome.output.size() - 1);
  const auto json = Json::parse(text.substr(text.rfind('\n') + 1));
  ASSERT_TRUE(json) << outcome.output;
  for (const char* policy : {"fgd", "best_fit"}) {
    ASSERT_NE(json->find(policy), nullptr);
    const double at_130 = json->find(policy)->get_double("alloc_at_130").value();
    EXPECT_GT(at_130, 50);
    EXPECT_LE(at_130, 100);
    EXPECT_GE(at_130, json->find(policy)->get_double("alloc_at_100").value());
  }
  EXPECT_EQ(run(arguments + " --seeds 7-9 --policies fgd,best_fit").output, outcome.output);
  EXPECT_EQ(run(arguments + " --seeds 7 --ties random --hosts file").exit_code, 0);
}

TEST_F(OpenbBenchmark, RefusesAWrongCommandLineInWords) {
  const std::string nodes = write("nodes.csv", kNodes), pods = write("pods.csv", kPods);
  const std::string both = "--nodes " + nodes + " --pods " + pods;
  const auto expect_exit = [](int code, const std::string& arguments, const std::string& words) {
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.exit_code, code) << outcome.output;
    EXPECT_NE(outcome.output.find(words), std::string::npos) << outcome.output;
  };
  for (const char* seeds : {"51-42", "x", "1-", "1-99999", "-4"}) {
    expect_exit(2, both + " --seeds=" + seeds, "not a number or a range like 42-51");
  }
  expect_exit(2, both + " --policies fgd,worst", "no policy 'worst'");
  expect_exit(1, "--nodes " + nodes + " --pods /none.csv", "/none.csv");
  expect_exit(2, "--nodes " + pods + " --pods " + nodes, "no column 'sn'");
}

}  // namespace
}  // namespace capstan::apps
