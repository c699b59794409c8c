// How it works: the half-million fleet is aged as the recipe says (churn.h). Then gangs are placed and ended
// one at a time, with more churn between them; then room is made scarce, so that a gang of higher priority
// needs victims; at last gangs of lower priority wait, and each is explained again and again while work comes
// and goes.
#include <algorithm>

#include "apps/bench/churn.h"
#include "apps/bench/latencies.h"
#include "apps/bench/section.h"
#include "base/file.h"
#include "controller/view.h"

namespace capstan::apps::bench {
namespace {

constexpr std::int64_t kSamples = 1'000;
constexpr std::int64_t kChurnBetween = 20;  // starts and ends
constexpr std::int64_t kSegment = 16;
constexpr std::int64_t kHighPriority = 100;
constexpr std::int64_t kLowPriority = -10;
constexpr int kWaiting = 40;
constexpr int kAgingSteps = 20;

struct Measured {
  Latencies placed;
  std::int64_t made_room = 0;  // random gangs that were ended because it did not fit
  std::int64_t gave_up = 0;    // samples without room although nothing else ran
  double occupancy_sum = 0;
  Json to_json() const {
    Json out = placed.to_json();
    out["gangs_ended_for_room"] = made_room;
    out["occupancy_mean"] =
        rounded(placed.count() == 0 ? 0 : occupancy_sum / static_cast<double>(placed.count()));
    return out;
  }
};

bool runs(const World& world, std::int64_t id) {
  const auto* workload = world.state().find(id);
  return workload != nullptr && workload->job.in_attempt;
}

void cancel(World& world, const std::string& name) {
  world.apply(controller::Cancel{name});
  world.settle();
}

// Places gangs of so many trays, one after another, each ended again before the next.
Measured place_gangs(Churn& churn, std::int64_t trays, std::int64_t samples) {
  World& world = churn.world();
  Measured out;
  for (std::int64_t i = 0; static_cast<std::int64_t>(out.placed.count()) < samples; ++i) {
    const std::string name = fmt::format("gang-{}-{}", trays, i);
    const double occupancy = churn.occupancy();
    const double ms = world.apply(controller::Apply{{churn.gang(name, trays, kSegment)}, false});
    const std::int64_t id = world.id_of(name);
    if (!runs(world, id)) {
      cancel(world, name);
      if (!churn.end_random_gang()) {
        ++out.gave_up;
        return out;
      }
      ++out.made_room;
      continue;
    }
    out.placed.add(ms);
    out.occupancy_sum += occupancy;
    world.settle();
    world.end(id);
    world.settle();
    churn.run(kChurnBetween);
  }
  return out;
}

struct Preempted {
  Latencies with_victims;
  std::int64_t victims = 0;
  std::int64_t fillers = 0;
};

// Gangs of higher priority on a fleet where none fits: the time until the victims' stops are encoded.
Preempted preempt(Churn& churn, std::int64_t trays, std::int64_t samples) {
  World& world = churn.world();
  Preempted out;
  for (std::int64_t i = 0; static_cast<std::int64_t>(out.with_victims.count()) < samples && i < 20 * samples;
       ++i) {
    const std::string name = fmt::format("urgent-{}", i);
    const std::int64_t before = churn.counts().preempted;
    const double ms =
        world.apply(controller::Apply{{churn.gang(name, trays, kSegment, kHighPriority)}, false});
    const std::int64_t victims = churn.counts().preempted - before;
    const std::int64_t id = world.id_of(name);
    if (victims == 0 && runs(world, id)) {  // there was room: somebody else takes it
      cancel(world, name);
      churn.submit_gang(trays);
      ++out.fillers;
      continue;
    }
    if (victims > 0) {
      out.with_victims.add(ms);
      out.victims += victims;
    }
    world.settle();  // the victims end, the gang starts
    cancel(world, name);
    churn.run(kChurnBetween);
  }
  return out;
}

// Gangs that find no room, of many shapes.
std::vector<std::string> make_waiting(Churn& churn, int count, int number) {
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) {
    const std::int64_t trays = std::min<std::int64_t>(churn.trays(), 256 * (1 + i % 16));
    const std::int64_t segment = i % 5 == 0 ? 8 : kSegment;
    names.push_back(fmt::format("waits-{}", number + i));
    workload::Spec spec = churn.gang(names.back(), trays, segment, kLowPriority);
    if (i % 7 == 3) spec.placement.required = fleet::Level::kBlock;
    churn.world().apply(controller::Apply{{std::move(spec)}, false});
    churn.world().settle();
  }
  return names;
}

struct Explained {
  Latencies all;
  Fingerprint fingerprint;
  std::string example;
};

Explained explain_waiting(Churn& churn, std::int64_t samples) {
  World& world = churn.world();
  Explained out;
  int made = 0;
  std::vector<std::string> names;
  for (std::int64_t i = 0; static_cast<std::int64_t>(out.all.count()) < samples && i < 50 * samples; ++i) {
    if (names.empty()) {
      names = make_waiting(churn, kWaiting, made);
      made += kWaiting;
    }
    const std::size_t which = static_cast<std::size_t>(i) % names.size();
    const auto* workload = world.state().find(names[which]);
    if (workload == nullptr || workload->job.in_attempt || controller::has_ended(workload->state)) {
      if (workload != nullptr && !controller::has_ended(workload->state)) cancel(world, names[which]);
      names.erase(names.begin() + static_cast<std::ptrdiff_t>(which));
      continue;
    }
    const Stopwatch watch;
    const std::string text = controller::explain(world.state(), *workload).dump();
    out.all.add(watch.ms());
    out.fingerprint.add(text);
    out.example = text;
    churn.run(2);
  }
  for (const std::string& name : names) cancel(world, name);
  return out;
}

}  // namespace

Result<Json> gangs(const Options& options) {
  return in_own_process([&]() -> Result<Json> {
    const auto file = options.fleets / "aging.yaml";
    CAPSTAN_TRY(const std::string text, read_file(file));
    CAPSTAN_TRY(Recipe recipe, parse_recipe(text, file.string()));
    CAPSTAN_TRY(fleet::FleetSpec spec, load_fleet(options, "half-million.yaml"));
    World world;
    world.apply(controller::ApplyFleet{std::move(spec), true});
    Churn churn(world, recipe);
    const std::int64_t target =
        options.starts_and_ends > 0 ? options.starts_and_ends : options.scaled(recipe.starts_and_ends, 1'000);
    const Stopwatch watch;
    for (int i = 0; i < kAgingSteps; ++i) {
      churn.run(target / kAgingSteps);
      progress("gangs: aging {:.0f} s, {}", watch.s(), churn.to_json().dump());
    }
    const double aged_s = watch.s();
    Json aged = churn.to_json();
    aged["s"] = rounded(aged_s);
    aged["simulated_days"] = rounded(static_cast<double>(world.now_ms() - World::kBeginMs) / 86'400'000);
    aged["fingerprint"] = world.fingerprint();
    const std::int64_t samples = options.scaled(kSamples, 5);
    const std::int64_t gang = std::min<std::int64_t>(1'024, churn.trays() / 32 / kSegment * kSegment);
    const Measured small = place_gangs(churn, gang, samples);
    progress("gangs: {} trays: {}", gang, small.to_json().dump());
    const Preempted preempted = preempt(churn, gang, samples);
    progress("gangs: preemption: {}, {} victims", preempted.with_victims.to_json().dump(), preempted.victims);
    const Explained explained = explain_waiting(churn, samples);
    progress("gangs: explain: {}\n{}", explained.all.to_json().dump(), explained.example);
    churn.keep_frontier();
    const Measured large = place_gangs(churn, 4 * gang, samples);
    progress("gangs: {} trays: {}", 4 * gang, large.to_json().dump());
    Json preemption = preempted.with_victims.to_json();
    preemption["victims"] = preempted.victims;
    preemption["gangs_that_filled_the_room"] = preempted.fillers;
    return Json::object(
        {{"gang_1024x16_p99_ms", rounded(small.placed.quantile(0.99))},
         {"gang_4096x16_p99_ms", rounded(large.placed.quantile(0.99))},
         {"gang_preempt_p99_ms", rounded(preempted.with_victims.quantile(0.99))},
         {"explain_p99_ms", rounded(explained.all.quantile(0.99))},
         {"fingerprint", world.fingerprint()},
         {"conditions", Json::object({{"aging", std::move(aged)},
                                      {"trays_of_the_smaller_gang", gang},
                                      {"gang_1024x16", small.to_json()},
                                      {"gang_4096x16", large.to_json()},
                                      {"gang_preempt", std::move(preemption)},
                                      {"explain", explained.all.to_json()},
                                      {"explain_fingerprint", explained.fingerprint.text()}})}});
  });
}

}  // namespace capstan::apps::bench
