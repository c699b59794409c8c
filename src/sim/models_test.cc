// Goal: the performance models say what is published and known in closed form: the MFU of Llama 3, roofs of
// the roofline, M/M/k; and serving keeps its books: no token lost, caches hit what they hold, routers spread.
#include <gtest/gtest.h>

#include <cmath>

#include "base/prng.h"
#include "sim/failure_rates.h"
#include "sim/report.h"
#include "sim/serving/queueing.h"
#include "sim/serving/goodput.h"
#include "sim/serving/serve_replay.h"
#include "sim/training_model.h"

namespace capstan::sim {
namespace {

TEST(TrainingModel, LlamaComesToItsPublishedUtilisation) {
  const TrainingModel* model = training_model("llama3-405b");
  ASSERT_NE(model, nullptr);
  const StepTime step = step_time(*model, gpu_model("h100"),
                                  {.gpus = 16'384, .gpus_per_domain = 8, .domains = 2'048, .blocks = 8});
  EXPECT_GT(step.mfu, 0.38);
  EXPECT_LT(step.mfu, 0.43);
  EXPECT_EQ(training_model("gpt-9"), nullptr);
}

TEST(TrainingModel, WhatIsSpreadIsSlower) {
  const TrainingModel& model = *training_model("llama3-70b");
  const GpuModel& gpu = gpu_model("gb200");
  const Spread best{.gpus = 64, .gpus_per_domain = 64, .domains = 1, .blocks = 1};
  const Spread two{.gpus = 64, .gpus_per_domain = 32, .domains = 2, .blocks = 1};
  const Spread torn{.gpus = 64, .gpus_per_domain = 4, .domains = 16, .blocks = 4};
  EXPECT_EQ(pace_milli(model, gpu, best, best), 1'000);
  EXPECT_GE(pace_milli(model, gpu, two, best), 1'000);
  // Its tensor groups of 8 no longer fit a domain: their all-reduces go over the network.
  EXPECT_GT(pace_milli(model, gpu, torn, best), 1'500);
  EXPECT_GT(pace_milli(model, gpu, torn, best), pace_milli(model, gpu, two, best));
}

TEST(ServingModel, AStepIsTheHigherRoof) {
  const ServedModel& model = *served_model("llama3-70b");
  const Engine engine{
      .gpu = gpu_model("h100"), .gpus = 8, .compute_share = 1, .memory_share = 1, .overhead_s = 0};
  // One token: the weights are read once.
  const double links = 2 * 80 * 12e-6;
  EXPECT_NEAR(step_s(model, engine, {.decode_tokens = 1, .context_tokens = 0}), 141e9 / (8 * 3.35e12) + links,
              1e-6);
  // A long prompt: arithmetic, 2 N a token and a little attention.
  const double prompt = step_s(model, engine, {.prefill_tokens = 8'192, .prefill_pairs = 8'192.0 * 4'096});
  EXPECT_GT(prompt, 2 * 70.6e9 * 8'192 / (8 * 989e12));
  EXPECT_LT(prompt, 1.8 * 2 * 70.6e9 * 8'192 / (8 * 989e12));
  EXPECT_EQ(step_s(model, engine, {}), 0);
  EXPECT_LT(kv_tokens(model, {.gpu = gpu_model("h100"), .gpus = 1}), 0);
  // More of a mixture's experts are met by more tokens.
  const ServedModel& mixture = *served_model("gpt-oss-120b");
  EXPECT_GT(step_s(mixture, {.overhead_s = 0}, {.decode_tokens = 32}),
            6 * step_s(mixture, {.overhead_s = 0}, {.decode_tokens = 1}));
}

TEST(Queueing, AgreesWithClosedForms) {
  EXPECT_NEAR(erlang_c(1, 0.7), 0.7, 1e-12);      // M/M/1: it waits if the server is busy
  EXPECT_NEAR(erlang_c(2, 1.0), 1.0 / 3, 1e-12);  // M/M/2 at half load
  EXPECT_NEAR(mgk_wait_s(0.8, 1, {1, 1, 1}), 0.8 / (1 - 0.8), 1e-12);  // M/M/1
  EXPECT_NEAR(mgk_wait_s(0.8, 1, {1, 0, 1}), 0.4 / (1 - 0.8), 1e-12);  // M/D/1: half of it
  EXPECT_TRUE(std::isinf(mgk_wait_s(3, 2, {1, 1, 1})));
  EXPECT_EQ(mgk_wait_quantile_s(0.5, 1, {1, 1, 1}, 0.4), 0);  // six of ten do not wait
  EXPECT_NEAR(mgk_wait_quantile_s(0.5, 1, {1, 1, 1}, 0.9), std::log(5.0) * 2, 1e-12);
}

// Conversations of several turns: each turn's prompt is the one before and more.
std::vector<Request> conversations(int count, int turns) {
  std::vector<Request> out;
  Prng prng(3);
  for (int turn = 0; turn < turns; ++turn) {
    for (int i = 0; i < count; ++i) {
      Request request;
      request.time_us = (std::int64_t{turn} * count + i) * 40'000;
      for (int block = 0; block < 4 + turn * 2; ++block)
        request.blocks.push_back(static_cast<std::uint32_t>(i * 1'000 + block));
      request.input_tokens = static_cast<std::int64_t>(request.blocks.size()) * 512;
      request.output_tokens = prng.between(1, 200);
      out.push_back(std::move(request));
    }
  }
  return out;
}

TEST(ServeReplay, WhoHasThePrefixServesIt) {
  const auto requests = conversations(201, 6);
  ServeSetup setup{.replicas = 4};
  setup.engine.gpus = 4;
  const auto aware = serve_replay(requests, setup);
  ASSERT_TRUE(aware) << aware.error().message;
  setup.route = Route::kRoundRobin;
  const auto turns = serve_replay(requests, setup);
  ASSERT_TRUE(turns);
  EXPECT_EQ(aware->refused, 0);
  for (const Served& one : aware->served) {
    ASSERT_GT(one.ended_s, 0);
    ASSERT_GE(one.first_s, one.admitted_s);
    ASSERT_GE(one.ended_s, one.first_s);
    ASSERT_LT(one.hit_tokens, one.request->input_tokens);
  }
  // All but the first turns could be hits but for their new blocks, and with room for all they are.
  EXPECT_EQ(aware->optimal_hit_tokens, turns->optimal_hit_tokens);
  EXPECT_GT(aware->hit_tokens * 100, aware->optimal_hit_tokens * 95);
  EXPECT_LT(turns->hit_tokens * 2, aware->hit_tokens);
  EXPECT_LT(aware->load_max_over_mean, 1.3);
  EXPECT_EQ(aware->results.totals.at("requests"), 1'206);
  EXPECT_NE(report_html({aware->results, turns->results}).find("Objectives met"), std::string::npos);
}

// Goal: the rate that the search finds is enough, the next faster one is not, and who knows prefixes stands more.
TEST(ServeReplay, GoodputIsTheHighestRateThatMeetsTheObjectives) {
  const auto requests = conversations(101, 5);
  ServeSetup setup{.replicas = 2, .ttft_slo_s = 0.5};
  setup.engine.gpus = 4;
  const auto aware = goodput(requests, setup, 95);
  ASSERT_TRUE(aware) << aware.error().message;
  EXPECT_GE(aware->result.attained * 100, 95 * 505);
  setup.arrivals_percent = aware->arrivals_percent - 1;
  if (setup.arrivals_percent > 0) EXPECT_LT(serve_replay(requests, setup)->attained * 100, 95 * 505);
  setup.route = Route::kRoundRobin;
  const auto turns = goodput(requests, setup, 95);
  ASSERT_TRUE(turns) << turns.error().message;
  EXPECT_GT(aware->requests_per_s, turns->requests_per_s);
  setup.ttft_slo_s = 0.000'001;
  EXPECT_EQ(goodput(requests, setup, 95).error().code, Code::kNotFound);
}

TEST(ServeReplay, SaysWhatDoesNotFit) {
  auto requests = conversations(2, 1);
  ServeSetup setup{.model = "llama3-70b"};
  const auto refused = serve_replay(requests, setup);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("141 GB"), std::string::npos) << refused.error().message;
  setup.model = "gpt-oss-120b";
  requests[1].input_tokens = 10'000'000;
  requests[1].blocks.clear();
  const auto result = serve_replay(requests, setup);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->refused, 1);
  EXPECT_LT(result->served[1].ended_s, 0);
}

// Poisson by its mean; the same seed, the same faults.
TEST(FailureRates, ComeAsOftenAsPublished) {
  fleet::Topology topology;
  const auto box =
      topology.intern({.name = "box", .capacity = {8'000, std::int64_t{1} << 40, 8, 0}, .gpu_model = "h100"});
  const auto block = topology.block("r", "c", "b");
  for (int i = 0; i < 2'048; ++i) ASSERT_TRUE(topology.add_host(block, box, "h" + std::to_string(i)));
  const auto count = [&](std::uint64_t seed, std::int64_t percent) {
    auto faults = draw_faults(*rate_set("llama3"), topology, {.rates_percent = percent}, seed);
    std::int64_t found = 0;
    std::map<std::string_view, std::int64_t> by_cause;
    for (auto fault = faults->next(); fault && fault->time_ms < 54LL * 86'400'000; fault = faults->next()) {
      ++found;
      ++by_cause[fault->cause];
    }
    EXPECT_GT(by_cause["GPU"], by_cause["NIC"]);
    return found;
  };
  std::int64_t sum = 0;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) sum += count(seed, 100);
  EXPECT_NEAR(static_cast<double>(sum) / 20, 466, 20);  // four standard errors
  EXPECT_EQ(count(5, 100), count(5, 100));
  EXPECT_NEAR(static_cast<double>(count(1, 1'000)), 4'660, 280);
  EXPECT_EQ(draw_faults(*rate_set("llama3"), topology, {.rates_percent = 0}, 1), nullptr);
  EXPECT_FALSE(rate_set("none-such"));
  RateSet rates = *rate_set("nvl72");
  EXPECT_TRUE(override_rate(rates, "tray", 120));
  EXPECT_FALSE(override_rate(rates, "gremlins", 1));
}

TEST(Report, NamesAreEscaped) {
  Results results;
  results.scenario = "</script><b>";
  results.notes = {"<img src=x>"};
  const std::string html = report_html({results});
  EXPECT_EQ(html.find("</script><b>"), std::string::npos);
  EXPECT_EQ(html.find("<img src=x>"), std::string::npos);
}

}  // namespace
}  // namespace capstan::sim
