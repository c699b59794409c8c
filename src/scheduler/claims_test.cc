// Goal: claimed hosts are hidden as long as any claim is on them, backfill uses only those that it leaves in
// time, and new claims take hosts that nobody else has then, those that are free soonest and cheapest to
// clear. Method: random claims against a list that is walked; random fleets against counting and against
// stepping through time.
#include "scheduler/claims.h"

#include <gtest/gtest.h>

#include "scheduler/claim_hosts.h"
#include "scheduler/place_among.h"
#include "scheduler/random_fleet.h"

namespace capstan::scheduler {
namespace {

constexpr std::int64_t kHour = 3'600'000;

TEST(Claims, AgreeWithAListThatIsWalked) {
  Prng prng(1);
  RandomFleet fleet(prng);
  Inventory& inventory = fleet.inventory();
  Claims claims;
  std::map<std::int64_t, Claim> list;
  for (std::int64_t step = 1; step <= 3'000; ++step) {
    if (prng.below(2) == 0 || list.empty()) {
      Claim claim{.id = step,
                  .kind = static_cast<ClaimKind>(prng.below(3)),
                  .name = "n" + std::to_string(step),
                  .tenant = "",
                  .job = step,
                  .hosts = {}};
      claim.from_ms = prng.between(0, 20) * kHour;
      claim.until_ms = claim.from_ms + prng.between(1, 9) * kHour;
      for (std::int64_t i = prng.between(1, 6); i > 0; --i)
        claim.hosts.insert(HostId(static_cast<std::uint32_t>(prng.below(inventory.hosts()))));
      list[step] = claim;
      claims.add(inventory, claim);
    } else {
      const auto at = std::next(list.begin(), static_cast<std::ptrdiff_t>(prng.below(list.size())));
      claims.remove(inventory, at->first);
      list.erase(at);
    }
    const std::int64_t when = prng.between(0, 30) * kHour;
    std::int64_t next = INT64_MAX;
    for (const auto& [id, claim] : list) {
      for (const std::int64_t time : {claim.from_ms - kClaimLeadMs, claim.from_ms, claim.until_ms}) {
        if (time > when) next = std::min(next, time);
      }
    }
    ASSERT_EQ(claims.next_boundary_ms(when), next);
    const auto open = claims.open_until(when);
    for (std::uint32_t i = 0; i < inventory.hosts(); ++i) {
      const HostId host{i};
      std::set<std::int64_t> on;
      bool begins_later = true;
      for (const auto& [id, claim] : list) {
        if (!claim.hosts.contains(host)) continue;
        on.insert(id);
        begins_later = begins_later && claim.from_ms >= when;
      }
      ASSERT_EQ(claims.on(host), on);
      ASSERT_EQ(inventory.host(host).claimed, !on.empty());
      ASSERT_EQ(open.contains(host), !on.empty() && begins_later);
    }
  }
}

// Two UltraServers of four trays with four GPUs each, all healthy.
struct Two {
  Inventory inventory;
  Placer placer;
  Claims claims;
  RunningJobs running;
  Two() {
    auto& topology = inventory.topology();
    const auto tray =
        topology.intern({.name = "tray", .capacity = {.milli_cpus = 8'000, .gpus = 4}, .gpu_model = "gb200"});
    const auto block = topology.block("r", "c", "b");
    for (const std::string name : {"u0", "u1"})
      (void)topology
          .add_domain(block, {.name = name}, tray, {name + "-0", name + "-1", name + "-2", name + "-3"})
          .value();
    inventory.sync();
    for (std::uint32_t i = 0; i < inventory.hosts(); ++i)
      inventory.set_health(HostId(i), fleet::Health::kHealthy);
  }
  void run(std::int64_t job, std::set<std::uint32_t> hosts, std::int64_t began_ms, std::int64_t ends_by_ms,
           std::int64_t checkpoint_ms = 0) {
    Running row{.job = job,
                .each = {{.gpus = 4}},
                .began_ms = began_ms,
                .checkpoint_ms = checkpoint_ms,
                .ends_by_ms = ends_by_ms};
    for (const std::uint32_t host : hosts) {
      row.slices.push_back({HostId(host), 1, 15});
      inventory.hold(HostId(host), job, 1, {.gpus = 4}, 15);
    }
    row.group_ends = {row.slices.size()};
    running[job] = row;
  }
  std::string choose(ClaimNeed need, std::int64_t now_ms = 0) {
    const auto chosen = choose_claim_hosts(inventory, claims, running, need, now_ms);
    std::string out;
    if (!chosen) {
      return "refused " + std::to_string(static_cast<int>(chosen.error().why)) + ": " +
             std::to_string(chosen.error().hosts_possible) + " now, all from " +
             (chosen.error().possible_from_ms == INT64_MAX
                  ? "never"
                  : std::to_string(chosen.error().possible_from_ms / kHour));
    }
    for (const HostId host : chosen->hosts) out += std::to_string(index(host)) + " ";
    out += "ready " + (chosen->ready_ms == INT64_MAX ? "unknown" : std::to_string(chosen->ready_ms / kHour));
    for (const std::int64_t job : chosen->in_the_way) out += " job " + std::to_string(job);
    return out;
  }
};

TEST(Claims, ReservationsTakeWhatIsFreeByThenAndWholeDomains) {
  Two two;
  two.run(1, {0}, 0, 5 * kHour);
  EXPECT_EQ(two.choose({.hosts = 4, .from_ms = 1 * kHour}), "4 5 6 7 ready 1");
  EXPECT_EQ(two.choose({.hosts = 4, .from_ms = 6 * kHour}), "0 1 2 3 ready 6");  // it has ended by then
  EXPECT_EQ(two.choose({.hosts = 3, .from_ms = 1 * kHour}), "4 5 6 ready 1");
  EXPECT_EQ(two.choose({.hosts = 8, .from_ms = 1 * kHour}), "0 1 2 3 4 5 6 7 ready 5 job 1");
  EXPECT_EQ(two.choose({.hosts = 4, .per_domain = 2, .from_ms = 1 * kHour}), "4 5 6 7 ready 1");
  EXPECT_EQ(two.choose({.hosts = 6, .per_domain = 3, .from_ms = 1 * kHour}), "1 2 3 4 5 6 ready 1");
}

TEST(Claims, WorkIsDisplacedWhereItLosesLeast) {
  Two two;
  two.run(1, {0, 1, 2, 3}, 0, INT64_MAX);
  two.run(2, {4, 5, 6, 7}, 0, INT64_MAX, kHour / 2);  // checkpoints twice an hour
  EXPECT_EQ(two.choose({.hosts = 4, .from_ms = 2 * kHour + kHour / 4}, 2 * kHour + kHour / 4),
            "4 5 6 7 ready unknown job 2");
}

TEST(Claims, RefusalsSayWhatWouldBePossible) {
  Two two;
  two.claims.add(two.inventory, {.id = 1,
                                 .name = "r1",
                                 .tenant = "t",
                                 .from_ms = 2 * kHour,
                                 .until_ms = 4 * kHour,
                                 .hosts = {HostId(0), HostId(1), HostId(2)}});
  const ClaimNeed need{.hosts = 6, .from_ms = 3 * kHour, .until_ms = 5 * kHour};
  EXPECT_EQ(two.choose(need), "refused 3: 5 now, all from 4");
  EXPECT_EQ(two.choose({.hosts = 6, .from_ms = 4 * kHour, .until_ms = 5 * kHour}), "0 1 2 3 4 5 ready 4");
  EXPECT_EQ(two.choose({.hosts = 6, .from_ms = 0, .until_ms = 2 * kHour}), "0 1 2 3 4 5 ready 0");
  EXPECT_EQ(two.choose({.hosts = 9}), "refused 2: 5 now, all from never");
  EXPECT_EQ(two.choose({.hosts = 4, .per_domain = 5}), "refused 2: 0 now, all from never");
  EXPECT_EQ(two.choose({.hosts = 1, .gpu_model = "h100"}), "refused 1: 0 now, all from never");
}

// Backfill: until a claim begins, work that is known to end by then may use its hosts, and no other work.
TEST(Claims, BackfillUsesClaimedHostsOnlyUntilTheyAreNeeded) {
  Two two;
  std::set<HostId> all;
  for (std::uint32_t i = 0; i < 8; ++i) all.insert(HostId(i));
  two.claims.add(two.inventory, {.id = 1,
                                 .kind = ClaimKind::kGang,
                                 .name = "",
                                 .tenant = "",
                                 .job = 9,
                                 .from_ms = 3 * kHour,
                                 .until_ms = INT64_MAX,
                                 .hosts = all});
  const Request request{.groups = {{.ranks = 2, .shape = {.each = {.gpus = 4}}}}};
  EXPECT_FALSE(two.placer.place(two.inventory, request));
  const auto until = [&](std::int64_t ends_by_ms) {
    const auto open = two.claims.open_until(ends_by_ms);
    return place_among(two.inventory, request, {.hosts = Hosts::kUsable, .only = &open}).has_value();
  };
  EXPECT_TRUE(until(3 * kHour));
  EXPECT_FALSE(until(3 * kHour + 1));
}

TEST(Claims, AWaitingGangGetsTheHostsThatAreFreeFirst) {
  Two two;
  two.run(1, {0, 1}, 0, 7 * kHour);
  two.run(2, {2, 3}, 0, 3 * kHour);
  two.run(3, {4, 5, 6, 7}, 0, 5 * kHour);
  Request request{.groups = {{.ranks = 4, .shape = {.each = {.gpus = 4}}, .segment = 4}}};
  auto room = room_for_gang(two.inventory, two.placer, two.running, request, kHour);
  ASSERT_TRUE(room);
  EXPECT_EQ(room->start_ms, 5 * kHour);
  EXPECT_EQ(room->hosts, (std::set<HostId>{HostId(4), HostId(5), HostId(6), HostId(7)}));
  request.groups[0].ranks = 8;
  EXPECT_EQ(room_for_gang(two.inventory, two.placer, two.running, request, kHour)->start_ms, 7 * kHour);
  two.running.at(1).ends_by_ms = INT64_MAX;
  EXPECT_EQ(room_for_gang(two.inventory, two.placer, two.running, request, kHour)->start_ms, INT64_MAX);
  request.groups[0].ranks = 9;
  EXPECT_FALSE(room_for_gang(two.inventory, two.placer, two.running, request, kHour));
}

// A random fleet with running gangs of known and unknown ends.
struct Lived {
  RandomFleet fleet;
  RunningJobs running;
  explicit Lived(Prng& prng) : fleet(prng) {
    Placer placer;
    Inventory& inventory = fleet.inventory();
    for (std::int64_t job = 1; job <= 12; ++job) {
      if (prng.below(3) == 0) fleet.mishap();
      Group group = fleet.group();
      group.ranks_min = 0;
      group.ranks = std::min<std::int64_t>(group.ranks, 8);
      const auto placed = placer.place(inventory, {.groups = {group}});
      if (!placed) continue;
      Running row{.job = job,
                  .slices = placed->slices,
                  .group_ends = {placed->slices.size()},
                  .each = {group.shape.each},
                  .ends_by_ms = prng.below(4) == 0 ? INT64_MAX : prng.between(1, 20) * kHour};
      for (const Slice& slice : row.slices)
        inventory.hold(slice.host, job, static_cast<std::uint32_t>(slice.ranks), group.shape.each,
                       slice.gpus);
      running[job] = row;
    }
  }
};

TEST(Claims, TheExpectedStartOfAGangIsWhereSteppingThroughTheEndsFindsIt) {
  Prng prng(2);
  int later = 0;
  for (int round = 0; round < 400; ++round) {
    Lived lived(prng);
    Inventory& inventory = lived.fleet.inventory();
    Group group = lived.fleet.group();
    const Request request{.groups = {group}};
    Placer placer;
    const auto room = room_for_gang(inventory, placer, lived.running, request, 0);
    // The twin: lets them end one after the other.
    std::multimap<std::int64_t, const Running*> ends;
    for (const auto& [job, row] : lived.running) ends.emplace(row.ends_by_ms, &row);
    Inventory future = inventory;
    std::optional<std::int64_t> start;
    if (place_among(future, request, {})) start = 0;
    for (auto at = ends.begin(); at != ends.end() && !start; ++at) {
      const Running& row = *at->second;
      for (const Slice& slice : row.slices)
        future.release(slice.host, row.job, static_cast<std::uint32_t>(slice.ranks), row.each[0], slice.gpus);
      if (place_among(future, request, {})) start = at->first;
    }
    ASSERT_EQ(room.has_value(), start.has_value()) << round;
    if (!room) continue;
    ASSERT_EQ(room->start_ms, *start) << round;
    later += *start > 0 && *start < INT64_MAX;
  }
  EXPECT_GT(later, 30);
}

TEST(Claims, RandomReservationsNeverOverlapAndAreRefusedOnlyIfNoClusterHasThem) {
  Prng prng(3);
  int chosen_count = 0, refused = 0;
  for (int round = 0; round < 300; ++round) {
    Lived lived(prng);
    Inventory& inventory = lived.fleet.inventory();
    const auto& topology = inventory.topology();
    Claims claims;
    for (std::int64_t id = 1; id <= 8; ++id) {
      ClaimNeed need{.hosts = prng.between(1, 12), .per_domain = prng.between(0, 3)};
      need.from_ms = prng.between(0, 10) * kHour;
      need.until_ms = need.from_ms + prng.between(1, 6) * kHour;
      if (prng.below(3) == 0) need.gpu_model = "gb200";
      const auto chosen = choose_claim_hosts(inventory, claims, lived.running, need, 0);
      // The twin counts hosts that may be had, in each cluster.
      const std::int64_t group = std::max<std::int64_t>(need.per_domain, 1);
      std::map<std::uint32_t, std::int64_t> have;
      const auto free = [&](HostId host) {
        if (!inventory.usable(host)) return false;
        if (!need.gpu_model.empty() && topology.host_class(host).gpu_model != need.gpu_model) return false;
        for (const auto& [other, claim] : claims.all()) {
          if (claim.hosts.contains(host) && claim.from_ms < need.until_ms && need.from_ms < claim.until_ms)
            return false;
        }
        return true;
      };
      for (std::uint32_t d = 0; d < topology.domains(); ++d) {
        const auto& domain = topology.domain(DomainId(d));
        std::int64_t count = 0;
        for (std::uint32_t i = 0; i < domain.hosts; ++i) count += free(HostId(index(domain.first) + i));
        have[index(topology.block(domain.block).cluster)] += count / group * group;
      }
      std::int64_t most = 0;
      for (const auto& [cluster, count] : have) most = std::max(most, count);
      const std::int64_t wanted = (need.hosts + group - 1) / group * group;
      ASSERT_EQ(chosen.has_value(), most >= wanted) << round;
      if (!chosen) {
        ++refused;
        if (chosen.error().why != ClaimRefusal::Why::kNoSuchPlace) {
          ASSERT_EQ(chosen.error().hosts_possible, most);
        }
        if (chosen.error().possible_from_ms < INT64_MAX) {
          ClaimNeed later = need;
          later.until_ms += chosen.error().possible_from_ms - need.from_ms;
          later.from_ms = chosen.error().possible_from_ms;
          ASSERT_TRUE(choose_claim_hosts(inventory, claims, lived.running, later, 0));
        }
        continue;
      }
      ++chosen_count;
      ASSERT_EQ(static_cast<std::int64_t>(chosen->hosts.size()), wanted);
      std::map<std::uint32_t, std::int64_t> of_domain;
      for (const HostId host : chosen->hosts) {
        ASSERT_TRUE(free(host));
        ASSERT_EQ(topology.cluster_of(host), topology.cluster_of(*chosen->hosts.begin()));
        ++of_domain[index(topology.domain_of(host))];
      }
      for (const auto& [domain, count] : of_domain) ASSERT_EQ(count % group, 0);
      Claim claim{.id = id,
                  .name = "r" + std::to_string(id),
                  .tenant = "t",
                  .from_ms = need.from_ms,
                  .until_ms = need.until_ms,
                  .hosts = chosen->hosts};
      claims.add(inventory, claim);
    }
  }
  EXPECT_GT(chosen_count, 300);
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace capstan::scheduler
