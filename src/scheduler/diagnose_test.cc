// Goal: an explanation names what binds, with its numbers, and says nothing that was not tried.
// Method: the sentences of named cases; on random fleets every suggestion and expected start is tried again.
#include "scheduler/diagnose.h"

#include <gtest/gtest.h>

#include "scheduler/try_fleet.h"

namespace capstan::scheduler {
namespace {

constexpr std::int64_t kNow = 14 * 3'600'000;  // 14:00:00 UTC

std::string job_name(std::int64_t job) { return "job train-" + std::to_string(job); }

Request cpu_ranks(std::int64_t ranks, Capacity each) {
  Request out{.groups = {{.ranks = ranks}}};
  out.groups[0].shape.each = each;
  return out;
}
Request segments(std::int64_t ranks, std::int64_t segment, std::int64_t gpus = 4) {
  Request out{.groups = {{.ranks = ranks, .segment = segment}}};
  out.groups[0].shape.each = {.gpus = gpus};
  return out;
}

std::string why(TryFleet& fleet, const Request& request) {
  const Diagnosis diagnosis = diagnose(fleet.inventory, fleet.placer, fleet.running, request, kNow);
  if (diagnosis.fits) return "placed";
  return (diagnosis.refusal.never() ? "never: " : "not now: ") +
         reason_text(diagnosis, fleet.inventory, request, job_name);
}
std::string all(TryFleet& fleet, const Request& request) {
  const Diagnosis diagnosis = diagnose(fleet.inventory, fleet.placer, fleet.running, request, kNow);
  return text(diagnosis, fleet.inventory, request, job_name);
}

TryFleet boxes(std::initializer_list<std::int64_t> cpus) {
  TryFleet fleet;
  auto& topology = fleet.inventory.topology();
  const auto block = topology.block("r1", "c1", "b1");
  for (const std::int64_t count : cpus) {
    const auto host_class = topology.intern(
        {.name = "box" + std::to_string(count), .capacity = {.milli_cpus = count * 1'000}, .gpu_model = ""});
    (void)topology.add_host(block, host_class, "h" + std::to_string(topology.hosts() + 1)).value();
  }
  fleet.appear();
  return fleet;
}

TEST(Diagnose, AWorkstationHearsWhatBinds) {
  TryFleet nobody;
  EXPECT_EQ(why(nobody, cpu_ranks(1, {.milli_cpus = 1'000})), "not now: no host has joined yet");
  TryFleet small = boxes({2, 1});
  EXPECT_EQ(why(small, cpu_ranks(1, {.milli_cpus = 4'000})),
            "never: rank needs 4 cpus, the largest host has 2");
  EXPECT_EQ(why(small, cpu_ranks(1, {.milli_cpus = 1'000, .gpus = 1})),
            "never: rank needs 1 gpus, the largest host has 0");
  TryFleet two = boxes({2, 2});
  EXPECT_EQ(why(two, cpu_ranks(5, {.milli_cpus = 1'000})),
            "never: 5 ranks need 5 cpus, all hosts together have 4: room for 4 at most");
  TryFleet busy = boxes({2});
  busy.start({.job = 1, .slices = {{HostId{0}, 1, 0}}, .each = {{.milli_cpus = 1'000}}});
  EXPECT_EQ(why(busy, cpu_ranks(1, {.milli_cpus = 2'000})),
            "not now: needs 2 cpus, 1 is free; job train-1 holds 1");
  EXPECT_EQ(all(busy, cpu_ranks(1, {.milli_cpus = 2'000})),
            "needs 2 cpus, 1 is free; job train-1 holds 1; it would start now if job train-1 stopped");
  TryFleet away = boxes({2, 2});
  away.inventory.set_health(HostId{1}, fleet::Health::kSuspect);
  EXPECT_EQ(why(away, cpu_ranks(2, {.milli_cpus = 2'000})),
            "not now: waits for a host to come back: h2 is suspect");
}

TEST(Diagnose, NeverNamesTheLargestUltraServer) {
  TryFleet fleet;
  fleet.add_ultraservers("c1", "b1", 3, 18, 2);
  EXPECT_EQ(why(fleet, segments(40, 20)),
            "never: a segment of 20 ranks x 4 GPUs needs 20 trays in one UltraServer, the largest has 16 (18 "
            "less 2 spares)");
  Request together = segments(18, 18);
  together.required = Level::kDomain;
  EXPECT_EQ(
      why(fleet, together),
      "never: 18 ranks x 4 GPUs need 18 trays in one UltraServer, the largest has 16 (18 less 2 spares)");
  EXPECT_EQ(why(fleet, segments(64, 16)),
            "never: needs 4 segments of 16 trays in one cluster, the largest has room for 3");
  Request gb300 = segments(1, 1);
  gb300.groups[0].shape.gpu_model = "gb300";
  EXPECT_EQ(why(fleet, gb300), "never: no host has GPUs of model gb300");
  EXPECT_EQ(all(fleet, gb300), "no host has GPUs of model gb300; it would start now on any GPU model");
  Request elsewhere = segments(1, 1);
  elsewhere.cluster = "c9";
  EXPECT_EQ(why(fleet, elsewhere), "never: there is no cluster c9");
}

TEST(Diagnose, AWaitingGangHearsWhoHoldsTheRoomAndWhen) {
  // c1: one free UltraServer of three; c2: two of three, the third half in use by job 7, and a tray is
  // draining.
  TryFleet fleet;
  fleet.add_ultraservers("c1", "b1", 3, 4);
  fleet.add_ultraservers("c2", "b1", 3, 4);
  fleet.start_gang(1, 0, {{0, 15}, {1, 15}, {4, 15}, {5, 15}}, 0);
  fleet.start_gang(7, 0, {{20, 15}, {21, 15}}, 0).ends_by_ms = kNow + 20 * 60'000;
  fleet.inventory.set_condition(HostId{16}, fleet::Condition::kDraining);
  fleet.inventory.set_condition(HostId{0}, fleet::Condition::kFailed);
  const Request request = segments(9, 3);
  EXPECT_EQ(
      all(fleet, request),
      "needs 3 segments of 3 trays in one cluster; the best, r1/c2, has 2: job train-7 holds 2 trays there, "
      "c2-b1-u4-t0 is draining; expected to start at 14:20:00 UTC when job train-7 ends at its time limit; "
      "it would start now with 6 ranks, with segments of 2, spread over clusters or if job train-7 stopped");
}

TEST(Diagnose, OneUltraServerIsNamedWithItsSpares) {
  TryFleet fleet;
  fleet.add_ultraservers("c1", "b1", 1, 6, 1);
  fleet.start_gang(3, 0, {{0, 15}, {1, 15}}, 0);
  fleet.running.at(3).stopping = true;
  fleet.running.at(3).grace_ms = 30'000;
  EXPECT_EQ(all(fleet, segments(4, 4)),
            "needs 4 trays in one UltraServer; the best, c1-b1-u0, has 3: job train-3 holds 2 trays there, 1 "
            "spare stays "
            "free; expected to start at 14:00:30 UTC when job train-3 ends; it would start now with 3 ranks");
}

TEST(Diagnose, TraysThatNeedNotBeTogetherAreCounted) {
  TryFleet fleet;
  fleet.add_ultraservers("c1", "b1", 2, 4, 1);
  fleet.start_gang(1, 0, {{0, 15}, {1, 15}}, 0);
  EXPECT_EQ(why(fleet, segments(6, 0)),
            "not now: needs 6 trays in one cluster; the best, r1/c1, has 4: job train-1 holds 2 trays there");
}

TEST(Diagnose, ReasonsTellHostsThatAreAwayFromOnesThatAreClaimed) {
  TryFleet fleet;
  fleet.add_ultraservers("c1", "b1", 2, 2);
  fleet.inventory.set_claimed(HostId{0}, true);
  fleet.inventory.set_cordoned(HostId{2}, true);
  const auto reason = [&](std::int64_t ranks) {
    return diagnose(fleet.inventory, fleet.placer, fleet.running, segments(ranks, 2), kNow).refusal.reason;
  };
  EXPECT_EQ(reason(2), Reason::kClaimed);
  EXPECT_EQ(reason(4), Reason::kHostsUnavailable);
  EXPECT_EQ(reason(6), Reason::kGangTooLarge);
  fleet.start_gang(1, 0, {{1, 15}}, 0);
  EXPECT_EQ(reason(4), Reason::kBusy);
  const Diagnosis diagnosis = diagnose(fleet.inventory, fleet.placer, fleet.running, segments(2, 2), kNow);
  ASSERT_FALSE(diagnosis.suggestions.empty());
  EXPECT_EQ(diagnosis.suggestions.back(), (Suggestion{Suggestion::Kind::kUncordon, 0, {HostId{2}}}));
}

TEST(Diagnose, TimesAreWrittenAsPeopleReadThem) {
  EXPECT_EQ(time_text(kNow + 1'200'000, kNow), "14:20:00 UTC");
  EXPECT_EQ(time_text(1'795'435'205'000, 1'795'435'200'000), "12:00:05 UTC");
  EXPECT_EQ(time_text(951'782'400'000, 0), "2000-02-29 00:00:00 UTC");
  EXPECT_EQ(time_text(1'795'478'400'000, 1'795'435'200'000), "2026-11-24 00:00:00 UTC");
}

// The changed request, or the changed fleet.
bool holds(TryFleet fleet, Request request, const Suggestion& suggestion) {
  using Kind = Suggestion::Kind;
  switch (suggestion.kind) {
    case Kind::kRanks:
      request.groups[0].ranks = suggestion.value;
      request.groups[0].ranks_min = 0;
      break;
    case Kind::kSegment:
      request.groups[0].segment = suggestion.value;
      break;
    case Kind::kAnyGpuModel:
      request.groups[0].shape.gpu_model.clear();
      break;
    case Kind::kAnyHostClass:
      request.groups[0].shape.host_class.clear();
      break;
    case Kind::kAnyPlace:
      request.cluster.clear();
      request.region.clear();
      break;
    case Kind::kLevel:
      request.required = static_cast<Level>(suggestion.value);
      break;
    case Kind::kStopJob: {
      const Running& row = fleet.running.at(suggestion.value);
      for (const Slice& slice : row.slices)
        fleet.inventory.release(slice.host, row.job, static_cast<std::uint32_t>(slice.ranks), row.each[0],
                                slice.gpus);
      for (const auto& [job, slice] : fleet.scattered) {
        if (job == row.job) fleet.inventory.release(slice.host, job, 1, row.each[0], slice.gpus);
      }
      break;
    }
    case Kind::kUncordon:
      for (const HostId host : suggestion.hosts) fleet.inventory.set_cordoned(host, false);
  }
  return fleet.placer.place(fleet.inventory, request).has_value();
}

bool fits_at(TryFleet fleet, const Request& request, std::int64_t time_ms) {
  for (const auto& [job, row] : fleet.running) {
    if (!row.gang || row.ends_by_ms > time_ms) continue;
    for (const Slice& slice : row.slices)
      fleet.inventory.release(slice.host, job, static_cast<std::uint32_t>(slice.ranks), row.each[0],
                              slice.gpus);
  }
  return fleet.placer.place(fleet.inventory, request).has_value();
}

TEST(Diagnose, EverySuggestionAndExpectedStartIsTrue) {
  int suggested[8] = {}, expected = 0, unknown = 0;
  for (std::uint64_t seed = 1; seed <= 4'000; ++seed) {
    Prng prng(seed);
    TryFleet fleet =
        prng.below(2) == 0
            ? tiny_fleet(prng, kNow)
            : busy_fleet(prng, {.clusters = 2, .blocks = 2, .domains = 3, .trays = 5, .spares = 1}, kNow);
    for (auto& [job, row] : fleet.running) {
      if (row.gang && prng.below(2) == 0) row.ends_by_ms = kNow + prng.between(1, 1'000) * 1'000;
    }
    const std::int64_t segment = prng.between(1, 4);
    Request request =
        segments(segment * prng.between(1, 4), prng.below(3) == 0 ? 0 : segment, prng.between(1, 4));
    if (prng.below(4) == 0) request.required = Level::kBlock;
    if (prng.below(4) == 0) request.cluster = "c1";
    if (prng.below(8) == 0) request.groups[0].shape.host_class = "cpu";
    const std::string before = fleet.fingerprint(), note = "seed " + std::to_string(seed);
    const Diagnosis diagnosis = diagnose(fleet.inventory, fleet.placer, fleet.running, request, kNow);
    ASSERT_EQ(fleet.fingerprint(), before) << note;
    for (const Suggestion& suggestion : diagnosis.suggestions) {
      ++suggested[static_cast<int>(suggestion.kind)];
      ASSERT_TRUE(holds(fleet, request, suggestion)) << note << " kind " << static_cast<int>(suggestion.kind);
    }
    ASSERT_FALSE(text(diagnosis, fleet.inventory, request, job_name).empty());
    if (diagnosis.fits || diagnosis.refusal.never()) continue;
    unknown += !diagnosis.starts_ms;
    if (!diagnosis.starts_ms) {
      ASSERT_FALSE(fits_at(fleet, request, INT64_MAX - 1)) << note;
      continue;
    }
    ++expected;
    ASSERT_TRUE(fits_at(fleet, request, *diagnosis.starts_ms)) << note;
    ASSERT_FALSE(fits_at(fleet, request, *diagnosis.starts_ms - 1)) << note;
  }
  for (const auto kind : {Suggestion::Kind::kRanks, Suggestion::Kind::kSegment, Suggestion::Kind::kLevel,
                          Suggestion::Kind::kStopJob, Suggestion::Kind::kUncordon})
    EXPECT_GT(suggested[static_cast<int>(kind)], 5) << static_cast<int>(kind);
  EXPECT_GT(expected, 30);
  EXPECT_GT(unknown, 10);
}

}  // namespace
}  // namespace capstan::scheduler
