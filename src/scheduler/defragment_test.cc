// Goal: proposals free what they say, move only what may move, and break nothing that is whole.
// Method: proposals are carried out on a copy of the fleet; on tiny fleets, where none is found, a twin tries
// every domain and every order of placing its work again.
#include "scheduler/defragment.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "scheduler/try_fleet.h"

namespace capstan::scheduler {
namespace {

constexpr std::int64_t kNow = 1'000'000;
const Shape kTray{.each = {.gpus = 4}};

bool whole(const Inventory& inventory, std::uint32_t domain) {
  const auto& row = inventory.topology().domain(DomainId(domain));
  for (std::uint32_t i = 0; i < row.hosts; ++i) {
    const HostId host{index(row.first) + i};
    if (!inventory.idle(host) || !inventory.usable(host)) return false;
  }
  return row.hosts > 1;
}
bool is_free(const Inventory& inventory, std::uint32_t domain, const DefragmentOptions& options) {
  if (options.segment == 0) return whole(inventory, domain);
  const ClassMask mask(inventory.topology(), options.shape);
  return inventory.topology().domain(DomainId(domain)).hosts > 1 &&
         domain_fit(inventory, DomainId(domain), options.shape, mask, {}) >= options.segment;
}

void take_off(TryFleet& fleet, const Move& move) {
  const Running& row = fleet.running.at(move.job);
  if (move.whole) {
    for (const Slice& slice : row.slices)
      fleet.inventory.release(slice.host, row.job, static_cast<std::uint32_t>(slice.ranks), row.each[0],
                              slice.gpus);
    return;
  }
  std::int64_t rest = move.ranks;
  for (auto& [job, slice] : fleet.scattered) {
    if (job != move.job || slice.host != move.host || rest == 0 || slice.ranks == 0) continue;
    fleet.inventory.release(slice.host, job, 1, row.each[0], slice.gpus);
    slice.ranks = 0;
    --rest;
  }
  ASSERT_EQ(rest, 0);
}

void put_back(TryFleet& fleet, const Move& move) {
  const Running& row = fleet.running.at(move.job);
  std::int64_t ranks = 0;
  for (const Slice& slice : move.to) {
    ASSERT_TRUE(fleet.inventory.usable(slice.host));
    ASSERT_GE(fleet.inventory.fit(slice.host, row.each[0]), slice.ranks);
    fleet.inventory.hold(slice.host, row.job, static_cast<std::uint32_t>(slice.ranks), row.each[0],
                         slice.gpus);
    ranks += slice.ranks;
  }
  ASSERT_EQ(ranks, move.ranks);
}

void expect_true(TryFleet fleet, const Defragmentation& proposal, const DefragmentOptions& options,
                 const std::string& note) {
  std::set<std::uint32_t> free_before;
  for (std::uint32_t domain = 0; domain < fleet.inventory.topology().domains(); ++domain) {
    if (is_free(fleet.inventory, domain, options)) free_before.insert(domain);
  }
  ASSERT_LE(proposal.moves.size(), options.moves_max) << note;
  std::set<std::int64_t> gangs;
  for (const Move& move : proposal.moves) {
    const Running& row = fleet.running.at(move.job);
    ASSERT_TRUE(row.preemptible && !row.stopping) << note;
    ASSERT_TRUE(!move.whole || gangs.insert(move.job).second) << note << ": a gang moves once";
    take_off(fleet, move);
  }
  for (const Move& move : proposal.moves) put_back(fleet, move);
  for (const DomainId domain : proposal.freed) {
    ASSERT_FALSE(free_before.contains(index(domain))) << note;
    ASSERT_TRUE(is_free(fleet.inventory, index(domain), options)) << note;
  }
  for (const std::uint32_t domain : free_before)
    ASSERT_TRUE(is_free(fleet.inventory, domain, options)) << note;
}

// Could any one domain be made whole by placing its work again, in whatever order?
bool possible(const TryFleet& start, const DefragmentOptions& options) {
  for (std::uint32_t domain = 0; domain < start.inventory.topology().domains(); ++domain) {
    if (start.inventory.topology().domain(DomainId(domain)).hosts < 2 || whole(start.inventory, domain))
      continue;
    std::set<std::int64_t> jobs;
    const auto& row = start.inventory.topology().domain(DomainId(domain));
    bool movable = true;
    for (std::uint32_t i = 0; i < row.hosts; ++i) {
      const HostId host{index(row.first) + i};
      movable = movable && start.inventory.usable(host);
      for (const auto& holder : start.inventory.host(host).holders) jobs.insert(holder.job);
    }
    for (const std::int64_t job : jobs)
      movable = movable && start.running.at(job).preemptible && start.running.at(job).gang;
    std::vector<std::int64_t> order(jobs.begin(), jobs.end());
    if (!movable || order.empty() || order.size() > options.moves_max) continue;
    do {
      TryFleet fleet(start);
      for (std::uint32_t other = 0; other < fleet.inventory.topology().domains(); ++other) {
        const auto& hosts = fleet.inventory.topology().domain(DomainId(other));
        const bool keep = other == domain || whole(fleet.inventory, other);
        for (std::uint32_t i = 0; i < hosts.hosts && keep; ++i)
          fleet.inventory.set_claimed(HostId(index(hosts.first) + i), true);
      }
      for (const std::int64_t job : order) {
        for (const Slice& slice : fleet.running.at(job).slices)
          fleet.inventory.release(slice.host, job, static_cast<std::uint32_t>(slice.ranks),
                                  fleet.running.at(job).each[0], slice.gpus);
      }
      bool all = true;
      for (const std::int64_t job : order) {
        const Running& gang = fleet.running.at(job);
        const auto placed =
            fleet.placer.place(fleet.inventory, request_like(fleet.inventory.topology(), gang));
        all = all && placed.has_value();
        if (!placed) break;
        for (const Slice& slice : placed->slices)
          fleet.inventory.hold(slice.host, job, static_cast<std::uint32_t>(slice.ranks), gang.each[0],
                               slice.gpus);
      }
      if (all) return true;
    } while (std::next_permutation(order.begin(), order.end()));
  }
  return false;
}

TEST(Defragment, ASmallGangMovesSoThatAnUltraServerIsWhole) {
  // Three UltraServers of 4: one full but for a tray, one with a gang of one tray, one whole.
  TryFleet fleet;
  fleet.add_ultraservers("c1", "b1", 3, 4);
  fleet.start_gang(1, 0, {{0, 15}, {1, 15}, {2, 15}}, 0);
  fleet.start_gang(2, 0, {{5, 15}}, kNow - 3'000);
  const DefragmentOptions options{.shape = kTray};
  const Defragmentation proposal = propose(fleet.inventory, fleet.placer, fleet.running, kNow, options);
  ASSERT_EQ(proposal.moves.size(), 1u);
  EXPECT_EQ(proposal.moves[0].job, 2);
  EXPECT_EQ(proposal.moves[0].from, std::vector{DomainId{1}});
  EXPECT_EQ(proposal.moves[0].to, (std::vector<Slice>{{HostId{3}, 1, 15}}));
  EXPECT_EQ(proposal.freed, std::vector{DomainId{1}});
  EXPECT_EQ(proposal.cost, 3'000 * 4);
  expect_true(fleet, proposal, options, "");
}

TEST(Defragment, NothingMovesIfItMustBreakAWholeUltraServerOrMayNotMove) {
  TryFleet fleet;
  fleet.add_ultraservers("c1", "b1", 2, 4);
  fleet.start_gang(1, 0, {{0, 15}}, 0);
  EXPECT_TRUE(propose(fleet.inventory, fleet.placer, fleet.running, kNow, {.shape = kTray}).moves.empty());
  fleet.start_gang(2, 0, {{4, 15}}, 0).preemptible = false;
  fleet.running.at(1).preemptible = false;
  EXPECT_TRUE(propose(fleet.inventory, fleet.placer, fleet.running, kNow, {.shape = kTray}).moves.empty());
  fleet.running.at(1).preemptible = true;
  EXPECT_EQ(propose(fleet.inventory, fleet.placer, fleet.running, kNow, {.shape = kTray}).freed,
            std::vector{DomainId{0}});
}

TEST(Defragment, ForASegmentNoMoreMovesThanIsNeeded) {
  // 6 trays, 2 spares; two one-tray gangs: one has to go for a segment of 3, the cheaper.
  TryFleet fleet;
  fleet.add_ultraservers("c1", "b1", 2, 6, 2);
  fleet.start_gang(1, 0, {{0, 15}}, kNow - 9'000);
  fleet.start_gang(2, 0, {{1, 15}}, kNow - 1'000);
  fleet.start_gang(3, 0, {{6, 15}, {7, 15}, {8, 15}}, kNow - 90'000);
  const DefragmentOptions options{.shape = kTray, .segment = 3};
  const Defragmentation proposal = propose(fleet.inventory, fleet.placer, fleet.running, kNow, options);
  ASSERT_EQ(proposal.moves.size(), 1u);
  EXPECT_EQ(proposal.moves[0].job, 2);
  expect_true(fleet, proposal, options, "");
}

TEST(Defragment, AGangStaysAsCloseTogetherAsItIs) {
  TryFleet fleet;
  fleet.add_ultraservers("c1", "b1", 3, 4);
  Running& gang = fleet.start_gang(1, 0, {{0, 15}, {1, 15}, {2, 15}, {3, 15}, {4, 15}, {5, 15}}, 0);
  const Request request = request_like(fleet.inventory.topology(), gang);
  EXPECT_EQ(request.groups[0].ranks, 6);
  EXPECT_EQ(request.groups[0].segment, 4);  // a whole one and a shorter last
  EXPECT_EQ(request.groups[0].shape.host_class, "tray");
  EXPECT_EQ(request.required, Level::kBlock);
  EXPECT_EQ(request.cluster, "c1");
}

TEST(Defragment, ProposalsAreTrueOnRandomFleets) {
  int proposals = 0, none = 0, missed = 0, freed = 0;
  for (std::uint64_t seed = 1; seed <= 600; ++seed) {
    Prng prng(seed);
    TryFleet fleet =
        busy_fleet(prng, {.clusters = 1, .blocks = 1, .domains = 4, .trays = 3, .spares = 0}, kNow);
    for (const auto& [job, row] : RunningJobs(fleet.running)) {  // half of it ends
      if (prng.below(2) == 0) continue;
      for (const Slice& slice : row.slices)
        fleet.inventory.release(slice.host, job, static_cast<std::uint32_t>(slice.ranks), row.each[0],
                                slice.gpus);
      fleet.running.erase(job);
    }
    DefragmentOptions options{.shape = kTray, .segment = prng.below(2) == 0 ? 0 : 2};
    options.moves_max = static_cast<std::size_t>(prng.between(1, 4));
    const std::string before = fleet.fingerprint(), note = "seed " + std::to_string(seed);
    const Defragmentation proposal = propose(fleet.inventory, fleet.placer, fleet.running, kNow, options);
    ASSERT_EQ(fleet.fingerprint(), before) << note;
    expect_true(fleet, proposal, options, note);
    freed += static_cast<int>(proposal.freed.size());
    ++(proposal.moves.empty() ? none : proposals);
    if (options.segment == 0 && proposal.moves.empty()) missed += possible(fleet, options);
  }
  std::printf("%d proposals free %d, %d find nothing, of which another order would have found %d\n",
              proposals, freed, none, missed);
  EXPECT_GT(proposals, 50);
  EXPECT_GT(none, 50);
  EXPECT_LE(missed * 50, none);
}

TEST(Defragment, MixedWorkMovesToo) {
  int scattered = 0;
  for (std::uint64_t seed = 1; seed <= 2'000; ++seed) {
    Prng prng(seed);
    TryFleet fleet = tiny_fleet(prng, kNow);
    const DefragmentOptions options{.shape = {.each = {.gpus = 2}}, .segment = prng.between(0, 2)};
    const std::string before = fleet.fingerprint();
    const Defragmentation proposal = propose(fleet.inventory, fleet.placer, fleet.running, kNow, options);
    ASSERT_EQ(fleet.fingerprint(), before) << seed;
    expect_true(fleet, proposal, options, "seed " + std::to_string(seed));
    for (const Move& move : proposal.moves) scattered += !move.whole;
  }
  EXPECT_GT(scattered, 20);
}

}  // namespace
}  // namespace capstan::scheduler
