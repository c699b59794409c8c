// Goal: the incremental placer chooses the host and the GPU that a look at every host would choose, by the
// definitions of the policies, on random inventories that change in every way between the requests.
#include "scheduler/single_host.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>

#include "base/prng.h"

namespace capstan::scheduler {
namespace {

constexpr std::int64_t kGiB = std::int64_t{1} << 30;

enum class Kind { kBestFit, kFragmentation, kFirstFit };

std::unique_ptr<RoomPolicy> policy_of(Kind kind, const WorkloadMix& mix) {
  if (kind == Kind::kBestFit) return best_fit_policy();
  if (kind == Kind::kFirstFit) return first_fit_policy();
  return fragmentation_policy(mix);
}

// A host as a list of GPUs in their own order; failed ones have nothing free.
struct PlainHost {
  const fleet::HostClass* host_class = nullptr;
  std::int64_t milli_cpus = 0;
  std::int64_t memory_bytes = 0;
  std::vector<std::int64_t> gpus;
};

PlainHost plain(const Inventory& inventory, HostId id) {
  const auto& host = inventory.host(id);
  PlainHost out{&inventory.topology().host_class(id), host.milli_cpus_free, host.memory_free, {}};
  const auto free = inventory.gpu_free(id);
  for (std::size_t gpu = 0; gpu < free.size(); ++gpu) {
    out.gpus.push_back((host.gpus_failed >> gpu & 1) != 0 ? 0 : free[gpu]);
  }
  return out;
}

std::int64_t size_of(const HostRequest& request) {
  return request.each.gpus > 0 ? 1'000 : request.each.gpu_milli;
}
std::int64_t count_of(const HostRequest& request) {
  return request.each.gpus > 0 ? request.each.gpus : request.each.gpu_milli > 0 ? 1 : 0;
}

bool takes(const PlainHost& host, const HostRequest& request, bool look_at_memory) {
  std::int64_t enough = 0;
  for (const std::int64_t gpu : host.gpus) enough += gpu >= size_of(request) ? 1 : 0;
  return allows(request, *host.host_class) && host.milli_cpus >= request.each.milli_cpus &&
         (!look_at_memory || host.memory_bytes >= request.each.memory_bytes) && enough >= count_of(request);
}

// F of the source, in thousandths times the mix's weight.
std::int64_t fragments(const PlainHost& host, const WorkloadMix& mix) {
  std::int64_t sum = 0;
  for (const auto& [request, count] : mix.entries) {
    const bool all = count_of(request) == 0 || !takes(host, request, false);
    for (const std::int64_t gpu : host.gpus) sum += all || gpu < size_of(request) ? count * gpu : 0;
  }
  return sum;
}

struct Scored {
  int score = 0;
  GpuSet gpus = 0;
};

Scored score_by_definition(Kind kind, PlainHost host, const HostRequest& request, const WorkloadMix& mix) {
  const PlainHost before = host;
  const auto score = [&] {
    if (kind == Kind::kFirstFit) return 0;
    if (kind == Kind::kBestFit) {
      std::int64_t gpu_milli = 0;
      for (const std::int64_t gpu : host.gpus) gpu_milli += gpu;
      const long double used = 0.5L * host.milli_cpus / 128'000 + 0.5L * gpu_milli / 8'000;
      return static_cast<int>(std::floor(100 * (1 - used) + 1e-12L));
    }
    std::int64_t weight = 0;
    for (const auto& entry : mix.entries) weight += entry.count;
    if (weight == 0) return 50;
    const long double drop = static_cast<long double>(fragments(before, mix) - fragments(host, mix));
    return static_cast<int>(100.0L / (1.0L + std::exp(-drop / (1'000.0L * weight))));
  };
  host.milli_cpus -= request.each.milli_cpus;
  if (request.each.gpu_milli == 0) {
    GpuSet taken = 0;
    for (std::size_t gpu = 0; std::popcount(taken) < request.each.gpus; ++gpu) {
      if (host.gpus[gpu] != 1'000) continue;
      host.gpus[gpu] = 0;
      taken |= GpuSet{1} << gpu;
    }
    return {score(), taken};
  }
  Scored best{-1, 0};
  std::int64_t best_free = 0;
  for (std::size_t gpu = 0; gpu < host.gpus.size(); ++gpu) {
    const std::int64_t free = host.gpus[gpu];
    if (free < request.each.gpu_milli) continue;
    host.gpus[gpu] -= request.each.gpu_milli;
    const int here = score();
    if (best.gpus == 0 || here > best.score || (here == best.score && free < best_free)) {
      best = {here, GpuSet{1} << gpu};
      best_free = free;
    }
    host.gpus[gpu] = free;
  }
  return best;
}

// May not be used because of its domain's spares.
bool is_spare(const Inventory& inventory, HostId id) {
  const auto domain = inventory.topology().domain_of(id);
  const int spares = inventory.topology().domain(domain).spares;
  int unused = 0, awaited = 0;
  for (std::uint32_t i = 0; i < inventory.hosts(); ++i) {
    if (inventory.topology().domain_of(HostId(i)) != domain) continue;
    unused += inventory.idle(HostId(i)) && !inventory.host(HostId(i)).awaited ? 1 : 0;
    awaited += inventory.host(HostId(i)).awaited ? 1 : 0;
  }
  return inventory.idle(id) ? unused <= spares : awaited > 0 && unused < spares;
}

std::optional<HostChoice> place_by_definition(Kind kind, const Inventory& inventory,
                                              const HostRequest& request, const WorkloadMix& mix) {
  std::optional<HostChoice> best;
  int best_score = 0;
  for (std::uint32_t i = 0; i < inventory.hosts(); ++i) {
    const HostId id{i};
    if (!inventory.usable(id) || inventory.host(id).claimed || is_spare(inventory, id)) continue;
    const PlainHost host = plain(inventory, id);
    if (!takes(host, request, true)) continue;
    const Scored scored = score_by_definition(kind, host, request, mix);
    if (best && scored.score <= best_score) continue;
    best_score = scored.score;
    best = HostChoice{id, scored.gpus};
  }
  return best;
}

// A small random fleet and a random stream of everything that can happen to it.
class World {
 public:
  explicit World(std::uint64_t seed) : prng_(seed) {
    block_ = inventory.topology().block("r", "c", "b");
    for (std::uint64_t n = 5 + prng_.below(30); n > 0; --n) add_host();
  }

  void add_host() {
    static constexpr const char* kModels[] = {"a10", "t4", "v100"};
    static constexpr std::int64_t kGpus[] = {1, 2, 4, 8};
    fleet::HostClass host_class;
    host_class.gpu_model = kModels[prng_.below(3)];
    host_class.capacity = {.milli_cpus = prng_.between(1, 4) * 32'000,
                           .memory_bytes = prng_.between(1, 3) * 64 * kGiB,
                           .gpus = kGpus[prng_.below(4)],
                           .gpu_milli = 0};
    host_class.fractional = prng_.below(5) != 0;
    if (prng_.below(6) == 0) host_class.gpu_slices = {250, 500};
    if (prng_.below(6) == 0) host_class.gpu_model = "", host_class.capacity.gpus = 0;
    host_class.name = "class" + std::to_string(prng_.below(3));
    const auto id = inventory.topology().intern(host_class);
    const std::uint32_t first = static_cast<std::uint32_t>(inventory.hosts());
    const std::string name = "h" + std::to_string(first);
    if (prng_.below(5) == 0) {
      ASSERT_TRUE(inventory.topology().add_domain(block_, {.name = name, .spares = 1}, id,
                                                  {name + "-t0", name + "-t1", name + "-t2"}));
    } else {
      ASSERT_TRUE(inventory.topology().add_host(block_, id, name));
    }
    inventory.sync();
    for (std::uint32_t host = first; host < inventory.hosts(); ++host) {
      if (prng_.below(10) != 0) inventory.set_health(HostId(host), fleet::Health::kHealthy);
    }
  }

  HostRequest request() {
    HostRequest out;
    out.each.milli_cpus = prng_.between(0, 6) * 4'000;
    out.each.memory_bytes = prng_.between(0, 4) * 8 * kGiB;
    const std::uint64_t kind = prng_.below(10);
    if (kind < 5) out.each.gpu_milli = prng_.below(2) == 0 ? 250 : prng_.between(1, 9) * 100;
    if (kind >= 5 && kind < 8) out.each.gpus = std::int64_t{1} << prng_.below(3);
    if (prng_.below(4) == 0) out.gpu_models = {"t4"};
    if (prng_.below(8) == 0) out.gpu_models = {"a10", "v100"};
    if (prng_.below(12) == 0) out.host_class = "class1";
    return out;
  }

  WorkloadMix mix() {
    WorkloadHistogram histogram;
    const std::vector<HostRequest> kinds = {request(), request(), request(), request(), request(), request()};
    for (int i = 0; i < 40; ++i) histogram.add(kinds[prng_.below(1 + prng_.below(kinds.size()))]);
    return histogram.mix();
  }

  // Something happens to some host; the placer is told.
  void disturb(SingleHostPlacer& placer) {
    const HostId host{static_cast<std::uint32_t>(prng_.below(inventory.hosts()))};
    switch (prng_.below(8)) {
      case 0:
        inventory.set_cordoned(host, prng_.below(2) == 0);
        break;
      case 1:
        inventory.set_claimed(host, prng_.below(2) == 0, prng_.below(2) == 0);
        break;
      case 2:
        inventory.set_health(host, prng_.below(3) == 0 ? fleet::Health::kLost : fleet::Health::kHealthy);
        break;
      case 3:
        inventory.set_gpus_failed(host, static_cast<GpuSet>(prng_.below(2) * prng_.below(8)));
        break;
      case 4:
        if (prng_.below(4) == 0) add_host();
        break;
      case 5:
        if (inventory.idle(host)) inventory.resize(host, inventory.topology().class_of(HostId(0)));
        break;
      default:
        if (held.empty()) return;
        const auto at = std::next(held.begin(), static_cast<std::ptrdiff_t>(prng_.below(held.size())));
        const auto& [each, choice] = at->second;
        inventory.release(choice.host, at->first, 1, each, choice.gpus);
        placer.changed(choice.host);
        held.erase(at);
        return;
    }
    placer.changed(host);
  }

  void hold(SingleHostPlacer& placer, const HostRequest& request, const HostChoice& choice) {
    inventory.hold(choice.host, ++jobs_, 1, request.each, choice.gpus);
    placer.changed(choice.host);
    held[jobs_] = {request.each, choice};
  }

  Inventory inventory;
  std::map<std::int64_t, std::pair<Capacity, HostChoice>> held;

 private:
  Prng prng_;
  fleet::BlockId block_{};
  std::int64_t jobs_ = 0;
};

void check_against_definition(Kind kind, const SingleHostPlacer::Options& options) {
  int placed = 0, refused = 0;
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    World world(seed);
    WorkloadMix mix = world.mix();
    SingleHostPlacer placer(policy_of(kind, mix), options);
    std::vector<HostRequest> kinds;
    for (int i = 0; i < 12; ++i) kinds.push_back(world.request());
    Prng prng(seed);
    for (int step = 0; step < 250; ++step) {
      if (step == 120) placer.set_policy(policy_of(kind, mix = world.mix()));
      if (prng.below(3) == 0) world.disturb(placer);
      const HostRequest& request = kinds[prng.below(kinds.size())];
      const auto choice = placer.place(world.inventory, request);
      ASSERT_EQ(choice, place_by_definition(kind, world.inventory, request, mix))
          << "seed " << seed << " step " << step;
      choice ? ++placed : ++refused;
      if (choice && prng.below(8) != 0) world.hold(placer, request, *choice);
    }
  }
  EXPECT_GT(placed, 2'000);
  EXPECT_GT(refused, 500) << "full hosts and requests that no class allows must occur";
}

TEST(SingleHostPlacer, BestFitAgreesWithALookAtEveryHost) { check_against_definition(Kind::kBestFit, {}); }
TEST(SingleHostPlacer, FragmentationAgreesWithALookAtEveryHost) {
  check_against_definition(Kind::kFragmentation, {});
}
TEST(SingleHostPlacer, FirstFitAgreesWithALookAtEveryHost) { check_against_definition(Kind::kFirstFit, {}); }
TEST(SingleHostPlacer, AgreesWhenItMayKeepTheScoresOfFewKindsOfRequests) {
  check_against_definition(Kind::kFragmentation, {.kinds_max = 2});
  check_against_definition(Kind::kFragmentation, {.kinds_max = 1'000, .scores_max = 1});
}

Inventory three_hosts() {
  Inventory inventory;
  fleet::Topology& topology = inventory.topology();
  const auto block = topology.block("r", "c", "b");
  fleet::HostClass host_class{.name = "two",
                              .capacity = {64'000, 256 * kGiB, 2, 0},
                              .gpu_model = "t4",
                              .gpu_memory_bytes = 0,
                              .fractional = true,
                              .gpu_slices = {}};
  const auto id = topology.intern(host_class);
  for (const char* name : {"h0", "h1", "h2"}) {
    const auto host = topology.add_host(block, id, name);
    inventory.sync();
    inventory.set_health(*host, fleet::Health::kHealthy);
  }
  return inventory;
}

HostRequest share(std::int64_t gpu_milli) {
  return {.each = {.milli_cpus = 1'000, .memory_bytes = 0, .gpus = 0, .gpu_milli = gpu_milli},
          .gpu_models = {},
          .host_class = {}};
}

TEST(SingleHostPlacer, SharesFillTheFullestGpuThatTakesThemAndTiesGoToTheLowestHost) {
  Inventory inventory = three_hosts();
  SingleHostPlacer placer(best_fit_policy());
  const auto place = [&](std::int64_t gpu_milli) {
    const HostRequest request = share(gpu_milli);
    const auto choice = placer.place(inventory, request);
    EXPECT_TRUE(choice.has_value());
    inventory.hold(choice->host, gpu_milli, 1, request.each, choice->gpus);
    placer.changed(choice->host);
    return *choice;
  };
  EXPECT_EQ(place(300), (HostChoice{HostId(0), 0b01}));
  EXPECT_EQ(place(800), (HostChoice{HostId(0), 0b10})) << "the first GPU has only 700 left";
  EXPECT_EQ(place(200), (HostChoice{HostId(0), 0b10})) << "200 fill the second GPU exactly";
  EXPECT_EQ(place(701), (HostChoice{HostId(1), 0b01})) << "700 are left on host 0";
}

TEST(SingleHostPlacer, AFailedGpuTakesNothing) {
  Inventory inventory = three_hosts();
  inventory.set_gpus_failed(HostId(0), 0b01);
  inventory.set_gpus_failed(HostId(1), 0b11);
  SingleHostPlacer placer(first_fit_policy());
  EXPECT_EQ(placer.place(inventory, share(500)), (HostChoice{HostId(0), 0b10}));
  HostRequest two = share(0);
  two.each.gpus = 2;
  EXPECT_EQ(placer.place(inventory, two), (HostChoice{HostId(2), 0b11}));
}

TEST(SingleHostPlacer, HostsThatMayNotTakeWorkAreLeftOutUntilTheyMay) {
  Inventory inventory = three_hosts();
  SingleHostPlacer placer(first_fit_policy());
  for (const std::uint32_t host : {0u, 1u, 2u}) inventory.set_cordoned(HostId(host), true);
  EXPECT_FALSE(placer.place(inventory, share(500)));
  inventory.set_cordoned(HostId(1), false);
  placer.changed(HostId(1));
  EXPECT_EQ(placer.place(inventory, share(500))->host, HostId(1));
  inventory.set_claimed(HostId(1), true);
  placer.changed(HostId(1));
  EXPECT_FALSE(placer.place(inventory, share(500)));
}

TEST(SingleHostPlacer, TheSparesOfADomainStayIdle) {
  Inventory inventory;
  const auto block = inventory.topology().block("r", "c", "b");
  fleet::HostClass tray;
  tray.name = "tray";
  tray.capacity = {.milli_cpus = 10'000, .memory_bytes = 0, .gpus = 4, .gpu_milli = 0};
  const auto id = inventory.topology().intern(tray);
  ASSERT_TRUE(inventory.topology().add_domain(block, {.name = "u", .spares = 1}, id, {"t0", "t1", "t2"}));
  inventory.sync();
  for (const std::uint32_t host : {0u, 1u, 2u}) inventory.set_health(HostId(host), fleet::Health::kHealthy);
  SingleHostPlacer placer(first_fit_policy());
  const HostRequest all{.each = {.milli_cpus = 0, .memory_bytes = 0, .gpus = 4, .gpu_milli = 0},
                        .gpu_models = {},
                        .host_class = {}};
  for (const std::uint32_t host : {0u, 1u}) {
    ASSERT_EQ(placer.place(inventory, all), (HostChoice{HostId(host), 0b1111}));
    inventory.hold(HostId(host), 1, 1, all.each, 0b1111);
    placer.changed(HostId(host));
  }
  EXPECT_FALSE(placer.place(inventory, all)) << "the third is the spare";
  inventory.release(HostId(0), 1, 1, all.each, 0b1111);
  placer.changed(HostId(0));
  EXPECT_TRUE(placer.place(inventory, all));
}

TEST(SingleHostPlacer, RandomTiesReachEveryHostOfTheBestScoreAndNoOther) {
  Inventory inventory = three_hosts();
  inventory.hold(HostId(2), 1, 1, {.milli_cpus = 60'000, .memory_bytes = 0, .gpus = 0, .gpu_milli = 0}, 0);
  SingleHostPlacer placer(best_fit_policy(), {.ties = SingleHostPlacer::Ties::kRandom, .seed = 3});
  HostRequest large = share(500);
  large.each.milli_cpus = 8'000;
  std::array<int, 3> counts{};
  for (int i = 0; i < 1'000; ++i) ++counts[index(placer.place(inventory, large)->host)];
  EXPECT_GT(counts[0], 400);
  EXPECT_GT(counts[1], 400);
  EXPECT_EQ(counts[2], 0);
  EXPECT_EQ(placer.place(inventory, share(500))->host, HostId(2)) << "it is the fullest";
}

TEST(SingleHostPlacer, BestFitTellsHostsLargerThanItsMeasureApart) {
  Inventory inventory;
  fleet::Topology& topology = inventory.topology();
  const auto block = topology.block("r", "c", "b");
  for (const std::int64_t milli_cpus : {258'000, 255'000}) {
    fleet::HostClass host_class;
    host_class.name = "cpus" + std::to_string(milli_cpus);
    host_class.capacity.milli_cpus = milli_cpus;
    const auto host = topology.add_host(block, topology.intern(host_class), host_class.name);
    inventory.sync();
    inventory.set_health(*host, fleet::Health::kHealthy);
  }
  SingleHostPlacer placer(best_fit_policy());
  // Scores of -0.8 and 0.4: rounded down, not towards 0.
  EXPECT_EQ(placer.place(inventory, {})->host, HostId(1));
}

// Goal: the bound on states is passed several times, and the answers stay those of a fresh placer.
TEST(SingleHostPlacer, ForgetsStatesOfRoomThatNoHostIsInAnyMore) {
  Inventory inventory = three_hosts();
  SingleHostPlacer placer(best_fit_policy());
  const HostRequest request = share(500);
  for (std::int64_t job = 1; job <= 250'000; ++job) {
    const HostId host{static_cast<std::uint32_t>(job % 3)};
    // A state that was never seen before, and scores that differ.
    const Capacity some{.milli_cpus = job % 5 * 13'000, .memory_bytes = job, .gpus = 0, .gpu_milli = 0};
    inventory.hold(host, job, 1, some, 0);
    placer.changed(host);
    SingleHostPlacer fresh(best_fit_policy());
    ASSERT_EQ(placer.place(inventory, request), fresh.place(inventory, request)) << job;
    inventory.release(host, job, 1, some, 0);
    placer.changed(host);
  }
}

// Goal: a kind of request that was asked before the log of changes was cut looks at every state again.
TEST(SingleHostPlacer, AKindThatWasNotAskedForLongCatchesUp) {
  Inventory inventory = three_hosts();
  SingleHostPlacer placer(best_fit_policy());
  HostRequest rare = share(300);
  rare.each.milli_cpus = 33'000;
  const Capacity some{.milli_cpus = 32'000, .memory_bytes = 0, .gpus = 0, .gpu_milli = 0};
  EXPECT_EQ(placer.place(inventory, rare)->host, HostId(0));
  inventory.hold(HostId(0), 1, 1, some, 0);
  placer.changed(HostId(0));
  for (std::int64_t job = 2; job <= 100'000; ++job) {
    inventory.hold(HostId(2), job, 1, some, 0);
    placer.changed(HostId(2));
    ASSERT_TRUE(placer.place(inventory, share(500)));
    inventory.release(HostId(2), job, 1, some, 0);
    placer.changed(HostId(2));
  }
  EXPECT_EQ(placer.place(inventory, rare)->host, HostId(1)) << "host 0 has 32 CPUs left";
}

}  // namespace
}  // namespace capstan::scheduler
