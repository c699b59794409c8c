// Goal: the amounts and scores of fragmentation are those of the definition, worked out the obvious way with
// real numbers, and the histogram of requests is bounded, forgetful and deterministic.
#include "scheduler/fragmentation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/prng.h"

namespace capstan::scheduler {
namespace {

HostRequest request(std::int64_t milli_cpus, std::int64_t gpus, std::int64_t gpu_milli,
                    std::vector<std::string> models = {}) {
  return {.each = {.milli_cpus = milli_cpus, .memory_bytes = 0, .gpus = gpus, .gpu_milli = gpu_milli},
          .gpu_models = std::move(models),
          .host_class = {}};
}

fleet::HostClass gpu_class(std::string model, std::int64_t gpus, bool fractional = true) {
  fleet::HostClass out;
  out.name = model + "-host";
  out.capacity = {.milli_cpus = 96'000, .memory_bytes = 1'000, .gpus = gpus, .gpu_milli = 0};
  out.gpu_model = std::move(model);
  out.fractional = fractional;
  return out;
}

HostRoom room(fleet::ClassId host_class, std::int64_t milli_cpus, std::vector<std::uint16_t> gpus) {
  HostRoom out{
      .host_class = host_class, .gpus = static_cast<std::uint32_t>(gpus.size()), .milli_cpus = milli_cpus};
  std::sort(gpus.begin(), gpus.end());
  std::copy(gpus.begin(), gpus.end(), out.gpu_milli.begin());
  return out;
}

TEST(FragmentationScore, ThresholdsAreTheLogarithmsRoundedUp) {
  for (int k = 1; k <= 99; ++k) {
    const long double exact = std::log(static_cast<long double>(k) / (100 - k)) * kScoreUnit;
    const auto threshold = static_cast<long double>(score_threshold(k));
    // A long double has 64 bits, and the logarithm itself is good to one of them: 0.001 of the unit at most.
    EXPECT_GE(threshold, exact - 0.002L) << k;
    EXPECT_LT(threshold, exact + 1.002L) << k;
  }
  EXPECT_EQ(score_threshold(50), 0);
}

TEST(FragmentationScore, IsTheFloorOfAHundredSigmoids) {
  Prng prng(5);
  for (int round = 0; round < 200'000; ++round) {
    const std::int64_t weight = prng.between(1, 100'000);
    const std::int64_t drop =
        prng.between(-32'000, 32'000) * weight / prng.between(1, 50) + prng.between(-9, 9);
    const long double x = static_cast<long double>(drop) / (1'000.0L * weight);
    const long double real = 100.0L / (1.0L + std::exp(-x));
    if (std::abs(real - std::round(real)) < 1e-12L) continue;  // too near a step to say by real numbers
    ASSERT_EQ(fragmentation_score(drop, weight), static_cast<int>(real)) << drop << " of weight " << weight;
  }
  EXPECT_EQ(fragmentation_score(0, 7), 50);
  EXPECT_EQ(fragmentation_score(-1, 1'000'000), 49);
  EXPECT_EQ(fragmentation_score(12'345, 0), 50);
  EXPECT_EQ(fragmentation_score(32'000 * std::int64_t{1'000'000}, 1'000'000), 99);
  EXPECT_EQ(fragmentation_score(-32'000 * std::int64_t{1'000'000}, 1'000'000), 0);
}

TEST(Fragmentation, AShareOfAGpuLeavesWhatSmallerRanksCannotUse) {
  fleet::Topology topology;
  const fleet::ClassId host_class = topology.intern(gpu_class("t4", 2));
  Fragmentation fragmentation({{{request(4'000, 0, 500), 3}, {request(4'000, 1, 0), 1}}});
  fragmentation.extend(topology);
  EXPECT_EQ(fragmentation.weight(), 4);
  // Everything is idle: nothing is a fragment.
  EXPECT_EQ(fragmentation.amount(room(host_class, 8'000, {1000, 1000})), 0);
  // 400 on the first GPU serve nobody; to the rank of a whole GPU the second serves.
  EXPECT_EQ(fragmentation.amount(room(host_class, 8'000, {400, 1000})), 4 * 400);
  // No GPU is whole: to that rank, everything is lost.
  EXPECT_EQ(fragmentation.amount(room(host_class, 8'000, {400, 600})), 3 * 400 + 1'000);
  // Without CPUs no idle GPU is of use.
  EXPECT_EQ(fragmentation.amount(room(host_class, 3'999, {400, 600})), 4 * 1'000);
}

TEST(Fragmentation, RanksWithoutGpusAndOfOtherModelsCountEverythingIdle) {
  fleet::Topology topology;
  const fleet::ClassId t4 = topology.intern(gpu_class("t4", 1));
  const fleet::ClassId whole = topology.intern(gpu_class("a10", 1, /*fractional=*/false));
  Fragmentation fragmentation({{{request(1'000, 0, 0), 5},
                                {request(1'000, 1, 0, {"v100"}), 7},
                                {request(1'000, 0, 250, {"a10", "t4"}), 11}}});
  fragmentation.extend(topology);
  EXPECT_EQ(fragmentation.amount(room(t4, 8'000, {1000})), (5 + 7) * 1'000);
  EXPECT_EQ(fragmentation.amount(room(whole, 8'000, {1000})), (5 + 7 + 11) * 1'000)
      << "its GPUs cannot be shared";
}

// The definition, kind by kind and GPU by GPU.
std::int64_t amount_by_definition(const WorkloadMix& mix, const fleet::HostClass& host_class,
                                  const HostRoom& room) {
  std::int64_t sum = 0;
  for (const auto& [request, count] : mix.entries) {
    const std::int64_t size = request.each.gpus > 0 ? 1'000 : request.each.gpu_milli;
    const std::int64_t wanted = request.each.gpus > 0 ? request.each.gpus : size > 0 ? 1 : 0;
    std::int64_t idle = 0, too_small = 0, enough = 0;
    for (std::uint32_t gpu = 0; gpu < room.gpus; ++gpu) {
      idle += room.gpu_milli[gpu];
      if (room.gpu_milli[gpu] < size) too_small += room.gpu_milli[gpu];
      if (room.gpu_milli[gpu] >= size) ++enough;
    }
    const bool takes = wanted > 0 && allows(request, host_class) && enough >= wanted &&
                       room.milli_cpus >= request.each.milli_cpus;
    sum += count * (takes ? too_small : idle);
  }
  return sum;
}

TEST(Fragmentation, AgreesWithTheDefinitionOnRandomRoomsAndMixes) {
  Prng prng(11);
  const std::vector<std::string> models = {"a10", "t4", "v100"};
  fleet::Topology topology;
  for (const std::string& model : models) {
    for (const std::int64_t gpus : {1, 4, 8}) {
      fleet::HostClass host_class = gpu_class(model, gpus, prng.below(4) != 0);
      host_class.name += std::to_string(gpus);
      if (prng.below(4) == 0) host_class.gpu_slices = {250, 500};
      topology.intern(host_class);
    }
  }
  for (int round = 0; round < 2'000; ++round) {
    WorkloadMix mix;
    for (std::uint64_t kinds = prng.below(12); kinds > 0; --kinds) {
      const bool share = prng.below(2) == 0;
      HostRequest kind = request(prng.between(0, 40) * 1'000, share ? 0 : prng.between(0, 4),
                                 share ? prng.between(1, 19) * 50 : 0);
      for (const std::string& model : models) {
        if (prng.below(3) == 0) kind.gpu_models.push_back(model);
      }
      mix.entries.push_back({kind, prng.between(1, 1'000)});
    }
    Fragmentation fragmentation(mix);
    fragmentation.extend(topology);
    const fleet::ClassId id{static_cast<std::uint32_t>(prng.below(topology.classes()))};
    std::vector<std::uint16_t> free;
    for (std::int64_t gpu = topology.host_class(id).capacity.gpus; gpu > 0; --gpu) {
      free.push_back(static_cast<std::uint16_t>(prng.between(0, 20) * 50));
    }
    const HostRoom has = room(id, prng.between(-5, 50) * 1'000, free);
    ASSERT_EQ(fragmentation.amount(has), amount_by_definition(mix, topology.host_class(id), has)) << round;
  }
}

TEST(WorkloadHistogram, KeepsTheMostFrequentKindsThatMakeThePercentage) {
  WorkloadHistogram histogram;
  for (int i = 0; i < 90; ++i) histogram.add(request(1'000, 1, 0));
  for (int i = 0; i < 5; ++i) histogram.add(request(2'000, 1, 0));
  for (int i = 0; i < 5; ++i) histogram.add(request(500, 0, 500));
  const WorkloadMix mix = histogram.mix(95);
  ASSERT_EQ(mix.entries.size(), 2u);
  EXPECT_EQ(mix.entries[0], (WorkloadMix::Entry{request(1'000, 1, 0), 90}));
  EXPECT_EQ(mix.entries[1], (WorkloadMix::Entry{request(500, 0, 500), 5})) << "of equals the lesser request";
  EXPECT_EQ(histogram.mix(96).entries.size(), 3u);
  EXPECT_TRUE(WorkloadHistogram().mix().entries.empty());
}

TEST(WorkloadHistogram, DoesNotTellRequestsApartByMemory) {
  WorkloadHistogram histogram;
  HostRequest one = request(1'000, 1, 0), other = one;
  one.each.memory_bytes = 1;
  other.each.memory_bytes = 2;
  histogram.add(one);
  histogram.add(other);
  EXPECT_EQ(histogram.kinds(), 1u);
}

TEST(WorkloadHistogram, ForgetsTheRarestWhenItIsFull) {
  WorkloadHistogram histogram({.kinds_max = 3, .window = 1'000});
  for (const int cpus : {1, 1, 2, 3, 2, 4}) histogram.add(request(cpus * 1'000, 1, 0));
  EXPECT_EQ(histogram.kinds(), 3u);
  EXPECT_EQ(histogram.total(), 5);
  const WorkloadMix mix = histogram.mix(100);
  ASSERT_EQ(mix.entries.size(), 3u);
  EXPECT_EQ(mix.entries[2].request, request(4'000, 1, 0))
      << "the kind that was asked once and longest ago went";
}

TEST(WorkloadHistogram, HalvesItsCountsSoThatOldHabitsFade) {
  WorkloadHistogram histogram({.kinds_max = 16, .window = 100});
  histogram.add(request(9'000, 1, 0));
  for (int i = 0; i < 199; ++i) histogram.add(request(1'000, 1, 0));
  EXPECT_EQ(histogram.kinds(), 1u) << "what was asked once in 200 requests is forgotten";
  EXPECT_EQ(histogram.total(), 99);
  for (int i = 0; i < 10'000; ++i) {
    histogram.add(request(1'000 * (i % 7), 1, 0));
    ASSERT_LT(histogram.total(), 200);
  }
}

}  // namespace
}  // namespace capstan::scheduler
