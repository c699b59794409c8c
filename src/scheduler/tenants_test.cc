// Goal: the tree of tenants adds up, and answers what its definitions say. Method: examples in words, and
// random trees with moves, charges and credits against a twin that keeps only each tenant's own work and
// computes everything anew.
#include "scheduler/tenants.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>

#include "base/prng.h"

namespace capstan::scheduler {
namespace {

TenantId make(Tenants& tenants, const Tenant& tenant) {
  const auto changed = tenants.set(tenant);
  EXPECT_TRUE(changed) << changed.error().message;
  return changed ? changed->id : kDefaultTenant;
}

Error refusal(Tenants& tenants, const Tenant& tenant) {
  const auto changed = tenants.set(tenant);
  EXPECT_FALSE(changed);
  return changed ? Error{} : changed.error();
}

TEST(TenantsTest, DefaultIsAlwaysThereAndStaysAtTheTop) {
  Tenants tenants;
  EXPECT_EQ(tenants.find("default"), kDefaultTenant);
  EXPECT_EQ(tenants.find("nobody"), std::nullopt);
  EXPECT_EQ(tenants.admission(kDefaultTenant, {.gpus = 1'000'000}).verdict, Verdict::kBorrowed);
  EXPECT_EQ(tenants.remove("default").error().code, Code::kConflict);
  make(tenants, {.name = "org"});
  EXPECT_EQ(refusal(tenants, {.name = "default", .parent = "org"}).field, "parent");
  EXPECT_EQ(make(tenants, {.name = "default", .gpus_max = 4}), kDefaultTenant);
  EXPECT_EQ(tenants.admission(kDefaultTenant, {.gpus = 5}).verdict, Verdict::kNever);
}

TEST(TenantsTest, WhatIsWrongWithATreeIsRefusedAndNothingChanges) {
  Tenants tenants;
  make(tenants, {.name = "a", .guaranteed = {.gpus = 8}, .cells = {{"gb200", 18, 2}}});
  make(tenants, {.name = "b", .parent = "a", .guaranteed = {.gpus = 6}, .cells = {{"gb200", 18, 2}}});
  const auto before = tenants.tenants();
  EXPECT_EQ(refusal(tenants, {.name = "c", .parent = "zz"}).message,
            "tenant 'c' names the parent 'zz', which does not exist");
  EXPECT_EQ(refusal(tenants, {.name = "a", .parent = "b"}).code, Code::kInvalid);
  EXPECT_EQ(refusal(tenants, {.name = "a", .parent = "a"}).field, "parent");
  EXPECT_EQ(refusal(tenants, {.name = "Über"}).field, "name");
  EXPECT_EQ(refusal(tenants, {.name = "c", .weight = 0}).field, "weight");
  const Error over = refusal(tenants, {.name = "c", .parent = "a", .guaranteed = {.gpus = 3}});
  EXPECT_EQ(over.code, Code::kConflict);
  EXPECT_EQ(over.field, "guaranteed.gpus");
  EXPECT_EQ(over.message,
            "tenants below 'a' would be guaranteed more gpus than 'a' itself, which is guaranteed 8; raise "
            "that first");
  EXPECT_EQ(refusal(tenants, {.name = "a", .guaranteed = {.gpus = 5}}).field, "guaranteed.gpus");
  EXPECT_EQ(refusal(tenants, {.name = "c", .parent = "a", .cells = {{"gb200", 18, 1}}}).field, "cells");
  EXPECT_EQ(refusal(tenants, {.name = "c", .parent = "b", .guaranteed = {.memory_bytes = 1}}).field,
            "guaranteed.memory");
  EXPECT_EQ(tenants.tenants(), before);
  EXPECT_EQ(tenants.remove("a").error().code, Code::kConflict);
  EXPECT_EQ(tenants.remove("zz").error().code, Code::kNotFound);
}

TEST(TenantsTest, ATreeOfEightLevelsStandsAndANinthIsRefusedEvenWhenItIsMovedBelow) {
  Tenants tenants;
  make(tenants, {.name = "l1"});
  for (int level = 2; level <= 8; ++level) {
    make(tenants, {.name = fmt::format("l{}", level), .parent = fmt::format("l{}", level - 1)});
  }
  EXPECT_EQ(refusal(tenants, {.name = "l9", .parent = "l8"}).message,
            "tenant 'l9' would be deeper than 8 levels");
  make(tenants, {.name = "top"});
  EXPECT_EQ(refusal(tenants, {.name = "l1", .parent = "top"}).message,
            "tenant 'l8' would be deeper than 8 levels");
  make(tenants, {.name = "l2", .parent = "top"});
  EXPECT_TRUE(tenants.under(*tenants.find("l8"), *tenants.find("top")));
  EXPECT_FALSE(tenants.under(*tenants.find("l8"), *tenants.find("l1")));
}

TEST(TenantsTest, ABatchIsJudgedByTheTreeThatComesOut) {
  Tenants tenants;
  make(tenants, {.name = "org", .guaranteed = {.gpus = 8}});
  make(tenants, {.name = "team", .parent = "org", .guaranteed = {.gpus = 8}});
  // Raising the child first would be refused; children may come before their parents.
  const std::vector<Tenant> raise{{.name = "team", .parent = "org", .guaranteed = {.gpus = 16}},
                                  {.name = "leaf", .parent = "new"},
                                  {.name = "new"},
                                  {.name = "org", .guaranteed = {.gpus = 16}}};
  ASSERT_TRUE(tenants.set_all(raise));
  EXPECT_EQ(tenants.tenant(*tenants.find("team")).guaranteed.gpus, 16);
  const auto before = tenants.tenants();
  const std::vector<Tenant> circle{{.name = "x", .parent = "y"}, {.name = "y", .parent = "x"}};
  EXPECT_EQ(tenants.set_all(circle).error().field, "parent");
  const std::vector<Tenant> twice{{.name = "x"}, {.name = "x"}};
  EXPECT_EQ(tenants.set_all(twice).error().field, "name");
  EXPECT_EQ(tenants.tenants(), before);
  std::vector<std::string> names;
  for (const Tenant& tenant : before) names.push_back(tenant.name);
  EXPECT_EQ(names, (std::vector<std::string>{"default", "new", "leaf", "org", "team"}));
}

TEST(TenantsTest, GuaranteesAboveTheFleetAreAWarningAndNoRefusal) {
  Tenants tenants;
  make(tenants, {.name = "a", .guaranteed = {.gpus = 6}});
  tenants.set_fleet({.milli_cpus = 1000, .memory_bytes = 1, .gpus = 8});
  const auto changed = tenants.set({.name = "b", .guaranteed = {.gpus = 4}});
  ASSERT_TRUE(changed);
  EXPECT_EQ(changed->warnings, std::vector<std::string>{"guarantees of 10 gpus exceed the fleet's 8"});
}

TEST(TenantsTest, AnAskBeyondTheGuaranteeBorrowsUpToTheLimitOfAnyAncestor) {
  Tenants tenants;
  const TenantId org = make(tenants, {.name = "org", .gpus_max = 20});
  const TenantId x = make(tenants, {.name = "x", .parent = "org", .gpus_max = 16});
  const TenantId y = make(tenants, {.name = "y", .parent = "org"});
  make(tenants, {.name = "org", .guaranteed = {.gpus = 8}, .gpus_max = 20});
  make(tenants, {.name = "x", .parent = "org", .guaranteed = {.gpus = 8}, .gpus_max = 16});
  EXPECT_EQ(tenants.admission(x, {.milli_cpus = 9000, .gpus = 8}).verdict, Verdict::kGuaranteed);
  tenants.charge(x, {.gpus = 8}, Hold::kGuaranteed);
  const auto beyond = tenants.admission(x, {.gpus = 4});
  EXPECT_EQ(beyond.verdict, Verdict::kBorrowed);
  EXPECT_EQ(beyond.hold(), Hold::kBorrowed);
  tenants.charge(y, {.gpus = 10}, Hold::kBorrowed);
  const auto full = tenants.admission(x, {.gpus = 4});
  EXPECT_EQ(full.verdict, Verdict::kNotNow);
  EXPECT_EQ(full.by, org);
  EXPECT_EQ(tenants.words(full),
            "tenant 'org' may hold at most 20 gpus and holds 18 gpus; 4 gpus more are asked for");
  const auto never = tenants.admission(x, {.gpus = 17});
  EXPECT_EQ(never.verdict, Verdict::kNever);
  EXPECT_EQ(tenants.words(never), "tenant 'x' may hold at most 16 gpus; 17 gpus are asked for");
  tenants.credit(y, {.gpus = 10}, Hold::kBorrowed);
  EXPECT_EQ(tenants.admission(x, {.gpus = 4}).verdict, Verdict::kBorrowed);
}

TEST(TenantsTest, WithoutBorrowingATenantStaysWithinItsGuaranteeWithAllBelowIt) {
  Tenants tenants;
  make(tenants, {.name = "org", .guaranteed = {.gpus = 8}, .borrow = false});
  const TenantId x = make(tenants, {.name = "x", .parent = "org"});
  EXPECT_EQ(tenants.admission(x, {.milli_cpus = 64'000, .gpus = 8}).verdict, Verdict::kGuaranteed);
  EXPECT_EQ(tenants.words(tenants.admission(x, {.gpus = 9})),
            "tenant 'org' may not borrow beyond its guarantee of 8 gpus; 9 gpus are asked for");
  // CPUs alone are nothing that it is guaranteed.
  EXPECT_EQ(tenants.admission(x, {.milli_cpus = 1}).verdict, Verdict::kNever);
  // What runs on bound cells is no loan.
  tenants.charge(x, {.gpus = 72}, Hold::kCell);
  EXPECT_EQ(tenants.admission(x, {.gpus = 8}).verdict, Verdict::kGuaranteed);
  tenants.charge(x, {.gpus = 8}, Hold::kGuaranteed);
  EXPECT_EQ(tenants.admission(x, {.gpus = 1}).verdict, Verdict::kNotNow);
}

TEST(TenantsTest, AParentLendsWhatItHasNotPassedOnToThoseWhoAskFirst) {
  Tenants tenants;
  make(tenants, {.name = "org", .guaranteed = {.gpus = 10}});
  const TenantId x = make(tenants, {.name = "x", .parent = "org", .guaranteed = {.gpus = 4}});
  const TenantId y = make(tenants, {.name = "y", .parent = "org", .guaranteed = {.gpus = 4}});
  EXPECT_EQ(tenants.admission(x, {.gpus = 7}).verdict, Verdict::kBorrowed);  // 4 and the 2 that are left over
  ASSERT_EQ(tenants.admission(x, {.gpus = 6}).verdict, Verdict::kGuaranteed);
  tenants.charge(x, {.gpus = 6}, Hold::kGuaranteed);
  EXPECT_EQ(tenants.admission(y, {.gpus = 5}).verdict, Verdict::kBorrowed);
  EXPECT_EQ(tenants.admission(y, {.gpus = 4}).verdict, Verdict::kGuaranteed);
}

TEST(TenantsTest, SharesOfAGpuCountInThousandths) {
  Tenants tenants;
  const TenantId x = make(tenants, {.name = "x", .guaranteed = {.gpus = 1}, .gpus_max = 1});
  EXPECT_EQ(tenants.admission(x, {.gpu_milli = 600}).verdict, Verdict::kGuaranteed);
  tenants.charge(x, {.gpu_milli = 600}, Hold::kGuaranteed);
  EXPECT_EQ(tenants.words(tenants.admission(x, {.gpu_milli = 500})),
            "tenant 'x' may hold at most 1 gpus and holds 0.6 gpus; 0.5 gpus more are asked for");
  EXPECT_EQ(tenants.admission(x, {.gpu_milli = 400}).verdict, Verdict::kGuaranteed);
  tenants.charge(x, {.gpu_milli = 400}, Hold::kGuaranteed);
  EXPECT_EQ(tenants.usage(x).used, (Capacity{.gpus = 1}));
}

TEST(TenantsTest, CellsAreBoundUpToTheGuaranteeAndTheRestOfTheParents) {
  Tenants tenants;
  const CellQuota rack{"gb200", 18, 0};
  const CellQuota segment{"gb200", 16, 0};
  const TenantId org = make(tenants, {.name = "org", .cells = {{"gb200", 18, 3}}});
  const TenantId x = make(tenants, {.name = "x", .parent = "org", .cells = {{"gb200", 18, 1}}});
  const TenantId y = make(tenants, {.name = "y", .parent = "org", .cells = {{"gb200", 18, 1}}});
  EXPECT_FALSE(tenants.may_bind(x, segment));
  EXPECT_TRUE(tenants.may_bind(x, rack));
  tenants.bind_cell(x, rack);
  EXPECT_TRUE(tenants.may_bind(x, rack));  // the one that org has kept
  tenants.bind_cell(x, rack);
  EXPECT_FALSE(tenants.may_bind(x, rack));
  EXPECT_FALSE(tenants.may_bind(org, rack));
  EXPECT_TRUE(tenants.may_bind(y, rack));
  EXPECT_EQ(tenants.bound(x, rack), 2);
  EXPECT_EQ(tenants.remove("x").error().code, Code::kConflict);
  tenants.unbind_cell(x, rack);
  EXPECT_TRUE(tenants.may_bind(org, rack));
  tenants.unbind_cell(x, rack);
  EXPECT_EQ(tenants.bound(x, rack), 0);
  EXPECT_TRUE(tenants.remove("x"));
}

TEST(TenantsTest, TurnsAreByTheDominantShareWhereThePathsPart) {
  Tenants tenants;
  tenants.set_fleet({.milli_cpus = 100'000, .memory_bytes = 1 << 20, .gpus = 100});
  const TenantId big = make(tenants, {.name = "big"});
  const TenantId a = make(tenants, {.name = "a", .parent = "big"});
  const TenantId b = make(tenants, {.name = "b", .parent = "big", .weight = 3});
  const TenantId other = make(tenants, {.name = "other"});
  EXPECT_TRUE(tenants.less(big, a));    // all equal: a parent's own work first
  EXPECT_TRUE(tenants.less(a, other));  // "big" before "other"
  tenants.charge(a, {.milli_cpus = 30'000, .gpus = 10}, Hold::kBorrowed);  // 30 % of the CPUs
  tenants.charge(b, {.gpus = 60}, Hold::kBorrowed);                        // 60 %, a third of it by weight
  EXPECT_TRUE(tenants.less(b, a));
  tenants.charge(other, {.memory_bytes = 900 << 10}, Hold::kBorrowed);  // 88 % against big's 70 %
  EXPECT_TRUE(tenants.less(a, other));
  tenants.charge(big, {.gpus = 25}, Hold::kBorrowed);  // 95 %
  EXPECT_TRUE(tenants.less(other, b));
  EXPECT_TRUE(tenants.less(big, a));
  EXPECT_TRUE(tenants.less(b, big));
}

TEST(TenantsTest, EqualFractionsOfDifferentWeightsTieExactlyAndGoByName) {
  Tenants tenants;
  tenants.set_fleet({.gpus = 3});
  const TenantId b = make(tenants, {.name = "b"});
  const TenantId a = make(tenants, {.name = "a", .weight = 2});
  tenants.charge(b, {.gpus = 1}, Hold::kBorrowed);
  tenants.charge(a, {.gpus = 2}, Hold::kBorrowed);
  EXPECT_TRUE(tenants.share(a) == tenants.share(b));
  EXPECT_TRUE(tenants.less(a, b));
  EXPECT_FALSE(tenants.less(b, a));
}

// The twin: own work by name, and nothing else.
struct Twin {
  struct One {
    Tenant value;
    std::array<Amounts, 3> own{};
  };
  std::map<std::string, One> all;
  Amounts fleet{};

  std::vector<std::string> children(const std::string& name) const {
    std::vector<std::string> out;
    for (const auto& [child, one] : all) {
      if (one.value.parent == name) out.push_back(child);
    }
    return out;
  }
  std::int64_t used(const std::string& name, std::size_t r, std::vector<std::size_t> holds) const {
    std::int64_t out = 0;
    for (const std::size_t hold : holds) out += all.at(name).own[hold][r];
    for (const auto& child : children(name)) out += used(child, r, holds);
    return out;
  }
  std::int64_t need(const std::string& name, std::size_t r) const {
    std::int64_t out = all.at(name).own[0][r];
    for (const auto& child : children(name)) out += need(child, r);
    return std::max(out, amounts(all.at(name).value.guaranteed)[r]);
  }
  std::int64_t need(std::size_t r) const {
    std::int64_t out = 0;
    for (const auto& top : children("")) out += need(top, r);
    return out;
  }
  std::vector<std::string> path(std::string name) const {  // from the top
    std::vector<std::string> out;
    for (; !name.empty(); name = all.at(name).value.parent) out.insert(out.begin(), name);
    return out;
  }
  // Guaranteed: what the whole tree takes of the fleet by guarantee does not grow by it.
  bool covered(const std::string& name, const Amounts& ask) {
    bool leading = true;
    for (std::size_t r = 0; r < 3; ++r) {
      if (ask[r] == 0) continue;
      bool counts = leading;
      leading = false;
      for (const auto& each : path(name)) counts |= amounts(all.at(each).value.guaranteed)[r] > 0;
      if (!counts) continue;
      const std::int64_t before = need(r);
      all.at(name).own[0][r] += ask[r];
      const std::int64_t after = need(r);
      all.at(name).own[0][r] -= ask[r];
      if (after != before) return false;
    }
    return true;
  }
  // The largest used fraction, as a fraction.
  std::pair<__int128, __int128> share(const std::string& name, bool own) const {
    std::pair<__int128, __int128> best{0, 1};
    for (std::size_t r = 0; r < 3; ++r) {
      std::int64_t amount = own ? 0 : used(name, r, {0, 1, 2});
      for (std::size_t hold = 0; own && hold < 3; ++hold) amount += all.at(name).own[hold][r];
      const __int128 weight = own ? 1 : all.at(name).value.weight;
      const __int128 unit = r == 2 ? 1024 : 1;
      const std::pair<__int128, __int128> one{(amount + unit - 1) / unit, fleet[r] / unit * weight};
      if (one.first * best.second > best.first * one.second) best = one;
    }
    return best;
  }
  bool less(const std::string& a, const std::string& b) const {
    auto x = path(a);
    auto y = path(b);
    while (!x.empty() && !y.empty() && x.front() == y.front()) {
      x.erase(x.begin());
      y.erase(y.begin());
    }
    const auto first = x.empty() ? share(a, true) : share(x.front(), false);
    const auto second = y.empty() ? share(b, true) : share(y.front(), false);
    const __int128 left = first.first * second.second;
    const __int128 right = second.first * first.second;
    if (left != right) return left < right;
    return (x.empty() ? "" : x.front()) < (y.empty() ? "" : y.front());
  }
};

Capacity random_capacity(Prng& prng, std::int64_t most) {
  Capacity out;
  if (prng.below(2) == 0) out.milli_cpus = prng.between(0, most) * 1000;
  if (prng.below(3) == 0) out.memory_bytes = prng.between(0, most) * 700;
  if (prng.below(2) == 0) out.gpus = prng.between(0, most);
  if (prng.below(6) == 0) out.gpu_milli = prng.between(0, 999);
  return out;
}

void compare(const Tenants& tenants, Twin& twin, Prng& prng) {
  ASSERT_EQ(tenants.tenants().size(), twin.all.size());
  for (const auto& [name, one] : twin.all) {
    const TenantId id = *tenants.find(name);
    const Usage usage = tenants.usage(id);
    for (std::size_t r = 0; r < 3; ++r) {
      ASSERT_EQ(amounts(usage.used)[r], twin.used(name, r, {0, 1, 2})) << name;
      ASSERT_EQ(amounts(usage.guaranteed)[r], twin.used(name, r, {0})) << name;
      ASSERT_EQ(amounts(usage.cell)[r], twin.used(name, r, {1})) << name;
      ASSERT_EQ(amounts(usage.borrowed)[r], twin.used(name, r, {2})) << name;
    }
    for (const auto& [other, two] : twin.all) {
      if (other != name) {
        ASSERT_EQ(tenants.less(id, *tenants.find(other)), twin.less(name, other)) << name << other;
      }
    }
    const Capacity ask = random_capacity(prng, 6);
    const Admission answer = tenants.admission(id, ask);
    bool refused = false;
    bool never = false;
    for (const auto& each : twin.path(name)) {
      if (const auto& limit = twin.all.at(each).value.gpus_max; limit && amounts(ask)[0] > 0) {
        refused |= twin.used(each, 0, {0, 1, 2}) + amounts(ask)[0] > *limit * 1000;
        never |= amounts(ask)[0] > *limit * 1000;
      }
    }
    const Verdict verdict = never                              ? Verdict::kNever
                            : refused                          ? Verdict::kNotNow
                            : twin.covered(name, amounts(ask)) ? Verdict::kGuaranteed
                                                               : Verdict::kBorrowed;
    ASSERT_EQ(answer.verdict, verdict) << name;
  }
}

void live(std::uint64_t seed) {
  SCOPED_TRACE(fmt::format("seed {}", seed));
  Prng prng(seed);
  Tenants tenants;
  Twin twin;
  twin.all["default"].value.name = "default";
  const Capacity fleet{.milli_cpus = 90'000, .memory_bytes = 64 << 10, .gpus = 80};
  tenants.set_fleet(fleet);
  twin.fleet = amounts(fleet);
  for (int step = 0; step < 60; ++step) {
    std::vector<std::string> names;
    for (const auto& [name, one] : twin.all) names.push_back(name);
    const std::string name = names[prng.below(names.size())];
    auto& own = twin.all.at(name).own;
    const TenantId id = *tenants.find(name);
    if (const auto dice = prng.below(10); dice < 3) {
      Tenant tenant{.name = fmt::format("t{}", prng.below(7)), .parent = prng.below(3) == 0 ? "" : name};
      tenant.weight = prng.between(1, 4);
      tenant.guaranteed = random_capacity(prng, tenant.parent.empty() ? 20 : 6);
      tenant.guaranteed.gpu_milli = 0;
      if (prng.below(3) == 0) tenant.gpus_max = tenant.guaranteed.gpus + prng.between(0, 6);
      if (tenants.set(tenant)) twin.all[tenant.name].value = tenant;
    } else if (dice == 3) {
      if (tenants.remove(name)) twin.all.erase(name);
    } else {
      const Capacity amount = random_capacity(prng, 4);
      const auto hold = dice < 6 ? tenants.admission(id, amount).hold() : static_cast<Hold>(prng.below(3));
      auto& held = own[static_cast<std::size_t>(hold)];
      const Amounts change = amounts(amount);
      const bool credit = dice > 7;
      if (credit && (change[0] > held[0] || change[1] > held[1] || change[2] > held[2])) continue;
      for (std::size_t r = 0; r < 3; ++r) held[r] += credit ? -change[r] : change[r];
      credit ? tenants.credit(id, amount, hold) : tenants.charge(id, amount, hold);
    }
    if (step % 6 == 5) {
      ASSERT_NO_FATAL_FAILURE(compare(tenants, twin, prng));
    }
  }
  // A copy that is built from values and charges is the same.
  Tenants again;
  again.set_fleet(fleet);
  ASSERT_TRUE(again.set_all(tenants.tenants()));
  for (const auto& [name, one] : twin.all) {
    for (std::size_t hold = 0; hold < 3; ++hold) {
      again.charge(*again.find(name), to_capacity(one.own[hold]), static_cast<Hold>(hold));
    }
  }
  ASSERT_EQ(again.tenants(), tenants.tenants());
  compare(again, twin, prng);
}

TEST(TenantsTest, RandomTreesAddUpAsATwinThatComputesAllAnew) {
  for (std::uint64_t seed = 0; seed < 500 && !testing::Test::HasFatalFailure(); ++seed) live(seed);
}

// Safety: whatever others were admitted to before, a tenant gets its own guarantee, and all guarantees that
// are drawn together stay within those of the top tenants.
TEST(TenantsTest, NobodyCanTakeWhatAnotherIsGuaranteed) {
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    Prng prng(seed);
    Tenants tenants;
    for (int i = 0; i < 10; ++i) {
      Tenant tenant{.name = fmt::format("t{}", i)};
      if (i > 2) tenant.parent = fmt::format("t{}", prng.below(static_cast<std::uint64_t>(i)));
      tenant.guaranteed.gpus = prng.between(0, tenant.parent.empty() ? 30 : 5);
      std::ignore = tenants.set(tenant);
    }
    const auto ids = tenants.ids();
    std::int64_t total = 0;
    for (const TenantId id : ids)
      total += tenants.parent(id) == kRootTenant ? tenants.tenant(id).guaranteed.gpus : 0;
    std::int64_t drawn = 0;
    for (int i = 0; i < 60; ++i) {
      const TenantId id = ids[prng.below(ids.size())];
      const Capacity ask{.gpus = prng.between(1, 4)};
      const Admission answer = tenants.admission(id, ask);
      tenants.charge(id, ask, answer.hold());
      if (answer.verdict == Verdict::kGuaranteed) drawn += ask.gpus;
    }
    EXPECT_LE(drawn, total);
    for (const TenantId id : ids) {
      const std::int64_t left = tenants.tenant(id).guaranteed.gpus - tenants.usage(id).guaranteed.gpus;
      if (left <= 0 || tenants.has_children(id)) continue;
      EXPECT_EQ(tenants.admission(id, {.gpus = left}).verdict, Verdict::kGuaranteed);
    }
  }
}

// Question: what do charges and changes cost with 10,000 tenants? Run with --gtest_also_run_disabled_tests.
TEST(TenantsTest, DISABLED_CostOfTenThousandTenants) {
  const auto now = [] { return std::chrono::steady_clock::now(); };
  const auto us = [](auto from, auto to) {
    return std::chrono::duration_cast<std::chrono::microseconds>(to - from).count();
  };
  Tenants tenants;
  tenants.set_fleet({.milli_cpus = 50'000'000'000, .memory_bytes = std::int64_t{1} << 57, .gpus = 540'000});
  std::vector<Tenant> all;
  for (int i = 0; i < 9'990; ++i) {
    all.push_back({.name = fmt::format("t{}", i), .parent = i < 100 ? "" : fmt::format("t{}", i / 10)});
  }
  auto start = now();
  ASSERT_TRUE(tenants.set_all(all));
  fmt::print("9,990 tenants at once: {} us\n", us(start, now()));
  start = now();
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(tenants.set(all[static_cast<std::size_t>(i) * 99]));
  fmt::print("a change of one: {} us\n", us(start, now()) / 100);
  const auto ids = tenants.ids();
  Prng prng(1);
  start = now();
  std::int64_t guaranteed = 0;
  for (int i = 0; i < 1'000'000; ++i) {
    const TenantId id = ids[prng.below(ids.size())];
    const auto answer = tenants.admission(id, {.milli_cpus = 1000, .gpus = 1});
    guaranteed += answer.verdict == Verdict::kGuaranteed ? 1 : 0;
    tenants.charge(id, {.milli_cpus = 1000, .gpus = 1}, answer.hold());
  }
  fmt::print("a million admissions with charges: {} us; guaranteed {}\n", us(start, now()), guaranteed);
}

}  // namespace
}  // namespace capstan::scheduler
