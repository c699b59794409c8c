// Goal: every format is read exactly, what is wrong is said with its line, and replaying keeps order and amounts. Method: small
// made-up texts with the columns of the public traces; a generated large one against a slow obvious reading.
#include "sim/traces.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zstd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/prng.h"
#include "base/text.h"
#include "sim/csv.h"

namespace capstan::sim {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Trace parsed(std::string_view text, std::string_view source = "trace.csv", const TraceReading& reading = {}) {
  auto trace = parse_trace(text, source, reading);
  if (!trace) {
    ADD_FAILURE() << trace.error().message;
    return {};
  }
  return *std::move(trace);
}

std::string error_of(std::string_view text, std::string_view source = "trace.csv") {
  const auto trace = parse_trace(text, source, {});
  return trace ? "no error" : trace.error().message;
}

std::vector<Arrival> all_of(const Trace& trace, const TraceReplay& options) {
  std::vector<Arrival> out;
  const auto source = replay(std::make_shared<const Trace>(trace), options);
  while (auto arrival = source->next()) out.push_back(*std::move(arrival));
  return out;
}

TraceReplay plain(std::string kind) {
  TraceReplay out;
  out.pattern.kind = std::move(kind);
  return out;
}

TEST(Decimal, IsReadWithoutRounding) {
  EXPECT_EQ(parse_decimal("17", 1000), 17'000);
  EXPECT_EQ(parse_decimal("4.3146", 1'000'000), 4'314'600);
  EXPECT_EQ(parse_decimal("4.3149", 1000), 4'314);  // cut
  EXPECT_EQ(parse_decimal("-1", 1000), -1'000);
  EXPECT_EQ(parse_decimal("-0.5", 1000), -500);
  EXPECT_EQ(parse_decimal(".5", 1000), 500);
  EXPECT_EQ(parse_decimal("8.0", 1), 8);
  for (const char* wrong : {"", "-", ".", "1e3", "1.2.3", "0x10", "1,5", " 1", "99999999999999999999"})
    EXPECT_EQ(parse_decimal(wrong, 1000), std::nullopt) << wrong;
}

TEST(Traces, PhillyJobsHaveTimesSizesAndVirtualClusters) {
  const Trace trace = parsed(
      "job_id,submit_time_s,duration_s,gpus,vc\n"
      "0,100,2240,8,7f04ca\n"
      "1,160,30,1,6214e9\n",
      "a/philly.csv.zst");
  EXPECT_EQ(trace.name, "philly");
  ASSERT_EQ(trace.jobs.size(), 2u);
  EXPECT_EQ(trace.jobs[0].submit_ms, 0) << "time starts with the first job";
  EXPECT_EQ(trace.jobs[1].submit_ms, 60'000);
  EXPECT_EQ(trace.jobs[0].size.work_ms, 2'240'000);
  EXPECT_EQ(trace.jobs[0].size.gpus, 8);
  EXPECT_EQ(trace.jobs[1].owner, "6214e9");
}

TEST(Traces, MuriJobsNameTheirModel) {
  const Trace trace = parsed("job_id,submit_time_s,duration_s,gpus,model\n0,0.0,5095.5,8,gpt2\n");
  ASSERT_EQ(trace.jobs.size(), 1u);
  EXPECT_EQ(trace.jobs[0].size.work_ms, 5'095'500);
  EXPECT_EQ(trace.jobs[0].model, "gpt2");
  EXPECT_EQ(trace.jobs[0].owner, "");
}

TEST(Traces, SurfTasksHaveCpusAndMemory) {
  const char* text = "task_id,arrival_s,duration_s,cpus,mem_mib_as_published\n0,0.0,1.0,16,100000\n";
  const Trace trace = parsed(text);
  ASSERT_EQ(trace.jobs.size(), 1u);
  EXPECT_EQ(trace.jobs[0].size.milli_cpus, 16'000);
  EXPECT_EQ(trace.jobs[0].size.memory_bytes, 100'000LL << 20);
  EXPECT_EQ(trace.jobs[0].size.ranks, 1) << "one task on one host";
  const Trace gpus = parsed(text, "surf.csv", {.processors_are_gpus = true});
  EXPECT_EQ(gpus.jobs[0].size.gpus, 16);
  EXPECT_EQ(gpus.jobs[0].size.milli_cpus, -1);
}

TEST(Traces, SwfColumnsAsCsvGiveRanksAndTheUsersLimit) {
  const Trace trace =
      parsed("job_id,submit_time_s,run_s,procs,req_time_s,user\n1,5,120,16,-1,-1\n2,6,10,1,60,7\n3,7,-1,4,-1,-1\n");
  ASSERT_EQ(trace.jobs.size(), 2u);
  EXPECT_EQ(trace.rows_left_out, 1) << "a job that never ran";
  EXPECT_EQ(trace.jobs[0].size.ranks, 16);
  EXPECT_EQ(trace.jobs[0].size.estimate_ms, 0);
  EXPECT_EQ(trace.jobs[1].size.estimate_ms, 60'000);
  EXPECT_EQ(trace.jobs[0].owner, "");
  EXPECT_EQ(trace.jobs[1].owner, "7");
}

TEST(Traces, TheStandardWorkloadFormatIsReadByPosition) {
  const Trace trace = parsed(
      "; Version: 2.2\n"
      ";\n"
      "  1  10  3 100 8 -1 -1 -1 600 2048 1 3 1 -1 1 -1 -1 -1\n"
      "  2  20  0  -1 4 -1 -1  4 600   -1 0 3 1 -1 1 -1 -1 -1\n"
      "  3  30  0  50 4 -1 -1 16  -1   -1 1 -1 1 -1 1 -1 -1 -1\n",
      "log.swf");
  ASSERT_EQ(trace.jobs.size(), 2u);
  EXPECT_EQ(trace.rows_left_out, 1);
  EXPECT_EQ(trace.jobs[0].size.ranks, 8);
  EXPECT_EQ(trace.jobs[0].size.memory_bytes, 8 * 2048 * 1024);
  EXPECT_EQ(trace.jobs[0].size.estimate_ms, 600'000);
  EXPECT_EQ(trace.jobs[0].owner, "user3");
  EXPECT_EQ(trace.jobs[1].submit_ms, 20'000);
  EXPECT_EQ(trace.jobs[1].size.ranks, 16) << "what was asked for, where it is known";
}

TEST(Traces, OpenBPodsMayShareAGpuAndMustHaveEnded) {
  const Trace trace = parsed(
      "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n"
      "p0,12000,16384,1,1000,,LS,Running,0,100,0\n"
      "p1,6000,12288,1,460,T4,LS,Running,10,110,10\n"
      "p2,6000,12288,8,1000,A10|T4,LS,Running,20,120,20\n"
      "p3,6000,12288,8,1000,,LS,Pending,20,,20\n"
      "p4,3150,1024,0,0,,LS,Running,30,31,30\n");
  ASSERT_EQ(trace.jobs.size(), 4u);
  EXPECT_EQ(trace.rows_left_out, 1);
  EXPECT_EQ(trace.jobs[0].size.gpus, 1);
  EXPECT_EQ(trace.jobs[0].size.gpu_milli, 0);
  EXPECT_EQ(trace.jobs[1].size.gpus, 0);
  EXPECT_EQ(trace.jobs[1].size.gpu_milli, 460);
  EXPECT_EQ(trace.jobs[1].gpu_model, "t4");
  EXPECT_EQ(trace.jobs[2].gpu_model, "") << "one of several kinds is any";
  EXPECT_EQ(trace.jobs[2].size.work_ms, 100'000);
  EXPECT_EQ(trace.jobs[3].size.milli_cpus, 3'150);
}

TEST(Traces, WhatIsWrongIsSaidWithItsLine) {
  EXPECT_THAT(error_of(""), HasSubstr("trace.csv:1: the file is empty"));
  EXPECT_THAT(error_of("job_id,duration_s,gpus\n"), HasSubstr("trace.csv:1: no column says when a job is submitted"));
  EXPECT_THAT(error_of("submit_time_s,gpus\n"), HasSubstr("no column says how long a job takes"));
  EXPECT_THAT(error_of("submit_time_s,duration_s\n"), HasSubstr("no column says how large a job is"));
  EXPECT_THAT(error_of("submit_time_s,duration_s,gpus,gpus\n"), HasSubstr("two columns are called 'gpus'"));
  const std::string head = "submit_time_s,duration_s,gpus\n1,2,3\n";
  EXPECT_THAT(error_of(head + "1,2\n"), HasSubstr("trace.csv:3: the row has 2 cells, but the first line names 3 columns"));
  EXPECT_THAT(error_of(head + "1,soon,3\n"),
              HasSubstr("trace.csv:3: 'duration_s' must be seconds, such as 17 or 4.25, not 'soon'"));
  EXPECT_THAT(error_of(head + "\n# remark\n1,2,-3\n"), HasSubstr("trace.csv:5: 'gpus' must be a whole number"));
  EXPECT_THAT(error_of(head + "1,2,2000000\n"), HasSubstr("more than 1000000 GPUs"));
  EXPECT_THAT(error_of(head + "1,2,\"3\n"), HasSubstr("does not end with one"));
  EXPECT_THAT(error_of("submit_time_s,duration_s,gpus\n1,-1,3\n"), HasSubstr("no job is left: 1 rows"));
  EXPECT_THAT(error_of("1 2 3\n", "a.swf"), HasSubstr("a.swf:1: the row has 3 columns; the Standard Workload Format has 18"));
  EXPECT_THAT(error_of("1 2 x\n", "a.swf"), HasSubstr("a.swf:1: column 3 must be a number, not 'x'"));
}

TEST(Traces, RowsAreSortedCutAndWindowed) {
  const char* text = "submit_time_s,duration_s,gpus\r\n30,1,1\r\n10,1,2\r\n20,1,3\r\n40,1,4\r\n";
  const auto sizes = [&](const TraceReading& reading) {
    std::vector<std::int64_t> out;
    for (const TraceJob& job : parsed(text, "t.csv", reading).jobs) out.push_back(job.size.gpus);
    return out;
  };
  EXPECT_THAT(sizes({}), ElementsAre(2, 3, 1, 4));
  EXPECT_THAT(sizes({.rows_max = 2}), ElementsAre(2, 1));
  EXPECT_THAT(sizes({.from_ms = 10'000, .until_ms = 30'000}), ElementsAre(3, 1));
  EXPECT_EQ(parsed(text, "t.csv", {.from_ms = 10'000}).jobs[0].submit_ms, 0) << "time starts with the window";
}

TEST(Replay, JobsKeepTheirGpusInEqualRanks) {
  const Trace trace = parsed("submit_time_s,duration_s,gpus\n0,60,12\n1,60,1\n2,60,13\n3,60,64\n");
  TraceReplay options = plain("philly");
  options.pattern.gpus_per_rank = 8;
  options.pattern.milli_cpus_per_gpu = 2'000;
  const auto arrivals = all_of(trace, options);
  ASSERT_EQ(arrivals.size(), 4u);
  std::vector<std::string> shapes;
  for (const Arrival& one : arrivals) {
    shapes.push_back(fmt::format("{} {}x{}", one.spec.name, one.spec.ranks, one.spec.resources.gpus));
    EXPECT_EQ(one.spec.resources.milli_cpus, 2'000 * one.spec.resources.gpus);
    EXPECT_EQ(one.behaviour.work_ms, 60'000);
    EXPECT_EQ(one.kind, "philly");
  }
  EXPECT_THAT(shapes, ElementsAre("philly-0 2x6", "philly-1 1x1", "philly-2 13x1", "philly-3 8x8"));
}

TEST(Replay, TimesAreScaledInPercent) {
  const Trace trace = parsed("submit_time_s,duration_s,gpus\n0,60,1\n100,60,1\n");
  TraceReplay options = plain("t");
  options.arrivals_percent = 50;
  options.durations_percent = 200;
  options.starts_at_ms = 7;
  const auto arrivals = all_of(trace, options);
  EXPECT_EQ(arrivals[1].time_ms, 50'007);
  EXPECT_EQ(arrivals[1].behaviour.work_ms, 120'000);
}

TEST(Replay, OwnersBecomeTenants) {
  const Trace trace = parsed("submit_time_s,duration_s,gpus,vc\n0,1,1,6214e9\n1,1,1,VC_b\n2,1,1,\n");
  TraceReplay options = plain("t");
  EXPECT_EQ(all_of(trace, options)[0].spec.tenant, "default");
  options.owners_are_tenants = true;
  options.tenants = {{"6214e9", "research"}};
  options.tenant_prefix = "vc-";
  const auto arrivals = all_of(trace, options);
  EXPECT_EQ(arrivals[0].spec.tenant, "research");
  EXPECT_EQ(arrivals[1].spec.tenant, "vc-vc-b");
  EXPECT_EQ(arrivals[2].spec.tenant, "default");
}

TEST(Replay, TheSchedulerIsToldTheDurationOnlyIfAsked) {
  const Trace trace = parsed("submit_time_s,run_s,procs,req_time_s\n0,100,1,-1\n0,100,1,900\n");
  TraceReplay options = plain("t");
  EXPECT_EQ(all_of(trace, options)[0].spec.time_limit_ms, 0);
  EXPECT_EQ(all_of(trace, options)[1].spec.time_limit_ms, 900'000) << "the user's own";
  options.own_estimates = false;
  options.pattern.estimate_percent = 150;
  options.pattern.estimate_slack_ms = 5'000;
  options.pattern.spec.checkpoint.interval_ms = 50'000;
  options.pattern.behaviour.checkpoint_stall_ms = 1'000;
  options.pattern.behaviour.start_ms = 2'000;
  EXPECT_EQ(all_of(trace, options)[1].spec.time_limit_ms, (100'000 + 2 * 1'000 + 2'000) * 3 / 2 + 5'000);
}

TEST(Replay, AGangSmallerThanTheSegmentIsOneSegment) {
  const Trace trace = parsed("submit_time_s,duration_s,gpus\n0,1,64\n0,1,48\n");
  TraceReplay options = plain("t");
  options.pattern.gpus_per_rank = 4;
  options.pattern.spec.placement.segment = 16;
  const auto arrivals = all_of(trace, options);
  EXPECT_EQ(arrivals[0].spec.placement.segment, 16);
  EXPECT_EQ(arrivals[1].spec.placement.segment, 12);
}

TEST(Requests, MooncakeAndAzureAreRead) {
  const auto mooncake =
      parse_requests("arrival_s,input_tokens,output_tokens,hash_ids_512tok\n1.5,6758,500,0 1 2\n1.25,10,4,\n", "m.csv");
  ASSERT_TRUE(mooncake) << mooncake.error().message;
  ASSERT_EQ(mooncake->size(), 2u);
  EXPECT_EQ((*mooncake)[0].input_tokens, 10) << "in order of time";
  EXPECT_EQ((*mooncake)[1].time_us, 250'000);
  EXPECT_THAT((*mooncake)[1].blocks, ElementsAre(0, 1, 2));
  const auto azure = parse_requests("arrival_s,input_tokens,output_tokens\n0.0,374,44\n4.3146,396,109\n", "a.csv", 1);
  ASSERT_TRUE(azure);
  EXPECT_EQ(azure->size(), 1u);
  EXPECT_THAT(parse_requests("arrival_s\n1\n", "a.csv").error().message, HasSubstr("a.csv:1: requests need the columns"));
  EXPECT_THAT(parse_requests("input_tokens,output_tokens,hash_ids\n1,2,x\n", "a.csv").error().message,
              HasSubstr("a.csv:2: 'hash_ids' must be numbers"));
}

// A slow obvious reading of generated rows, and the same file plain, compressed and in two frames.
TEST(Traces, ACompressedFileReadsLikeAPlainOne) {
  Prng prng(7);
  std::string text = "job_id,submit_time_s,duration_s,gpus,vc\n";
  std::int64_t gpu_seconds = 0;
  constexpr int kRows = 20'000;
  for (int i = 0; i < kRows; ++i) {
    const std::int64_t duration_s = prng.between(1, 100'000);
    const std::int64_t gpus = prng.between(1, 64);
    gpu_seconds += duration_s * gpus;
    text += fmt::format("{},{},{},{},vc{}\n", i, prng.between(0, 1'000'000), duration_s, gpus, i % 7);
  }
  std::string pattern = (std::filesystem::temp_directory_path() / "traces-XXXXXX").string();
  ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
  const std::filesystem::path directory = pattern;
  const auto pack = [](std::string_view bytes) {
    std::string out(ZSTD_compressBound(bytes.size()), '\0');
    out.resize(ZSTD_compress(out.data(), out.size(), bytes.data(), bytes.size(), 3));
    return out;
  };
  const std::string packed = pack(text);
  const std::size_t half = text.size() / 2;
  std::ofstream(directory / "a.csv") << text;
  std::ofstream(directory / "b.csv.zst") << packed;
  std::ofstream(directory / "c.csv.zst") << pack(text.substr(0, half)) + pack(text.substr(half));
  std::ofstream(directory / "torn.csv.zst") << packed.substr(0, packed.size() / 2);
  std::ofstream(directory / "plain.csv.zst") << text;
  for (const char* name : {"a.csv", "b.csv.zst", "c.csv.zst"}) {
    const auto trace = read_trace(directory / name, {});
    ASSERT_TRUE(trace) << trace.error().message;
    ASSERT_EQ(trace->jobs.size(), static_cast<std::size_t>(kRows));
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < trace->jobs.size(); ++i) {
      sum += trace->jobs[i].size.work_ms / 1000 * trace->jobs[i].size.gpus;
      ASSERT_LE(trace->jobs[i == 0 ? 0 : i - 1].submit_ms, trace->jobs[i].submit_ms);
    }
    EXPECT_EQ(sum, gpu_seconds);
  }
  EXPECT_THAT(read_trace(directory / "torn.csv.zst", {}).error().message, HasSubstr("ends too early"));
  EXPECT_THAT(read_trace(directory / "plain.csv.zst", {}).error().message, HasSubstr("no intact zstd file"));
  EXPECT_EQ(read_trace(directory / "none.csv", {}).error().code, Code::kNotFound);
  std::filesystem::remove_all(directory);
}

TEST(Labels, AreMadeOfAnyText) {
  EXPECT_EQ(label_of("VC_Main 7"), "vc-main-7");
  EXPECT_EQ(label_of("--"), "unnamed");
  EXPECT_EQ(label_of(std::string(100, 'a')).size(), 63u);
}

}  // namespace
}  // namespace capstan::sim
