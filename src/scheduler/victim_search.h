// VictimSearch: takes removable units off the inventory until a goal is met, as cheaply as it finds.
//
//   VictimSearch search(table, room);
//   if (search.run()) { … the units in search.evicted() are evicted, none of them needlessly … }
//   else { … not even all of them would do; nothing is evicted by the search … }
//
// See preemption.h for what it promises.  Cost: a sort of the domains that hold something removable, then for
// each area tried the domains weighed (kDomainsWeighed more than are missing), a few microseconds each.
// Threads: one owner.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "scheduler/eviction_table.h"
#include "scheduler/goal_room.h"

namespace capstan::scheduler {

class VictimSearch {
 public:
  using UnitId = EvictionTable::UnitId;
  VictimSearch(EvictionTable& table, GoalRoom& room) : table_(table), room_(room) {}

  bool run();
  const std::vector<UnitId>& evicted() const { return evicted_; }  // in order of eviction
  // Puts everything back that run() evicted.
  void undo();

 private:
  // What a unit counts for when domains are compared.
  enum class Measure {
    kShare,  // the part of its cost that stands for its ranks in the domain: good when all of it will be used
    kWhole,  // all of its cost
  };
  struct Item {  // a domain that may gain a segment
    std::int64_t cost = 0;
    std::uint32_t domain = 0;
    std::int64_t gain_most = 0;  // segments, at most
    friend auto operator<=>(const Item& a, const Item& b) {
      return std::pair(a.cost, a.domain) <=> std::pair(b.cost, b.domain);
    }
    friend bool operator==(const Item& a, const Item& b) { return a.cost == b.cost && a.domain == b.domain; }
  };
  struct Part {  // of a unit in the domain that is looked at
    UnitId unit = 0;
    std::int64_t cost = 0;
    std::int64_t most = 0;  // ranks of ours in its place, at most
    bool out = false;
  };
  struct Choice {
    std::int64_t cost = 0;
    std::vector<UnitId> units;
  };
  struct Area {
    std::int64_t cost = 0;  // estimated
    std::uint32_t area = 0;
    std::vector<Item> items;
  };

  void evict(UnitId unit);
  void restore(UnitId unit);
  void touch(UnitId unit);
  std::vector<Area> areas(Measure measure) const;
  std::optional<Item> estimate(std::uint32_t domain, Measure measure) const;
  bool fill(const Area& area, Measure measure);
  std::vector<Part> parts_of(std::uint32_t domain, Measure measure) const;
  std::optional<Choice> weigh(std::uint32_t domain, Measure measure, bool exhaustive);
  void try_all(std::uint32_t domain, std::vector<Part>& parts, std::size_t from, std::int64_t cost,
               std::int64_t target, Choice& best);
  void move(std::uint32_t domain, UnitId unit, bool hold);
  void drop_needless();
  void shrink(UnitId unit);
  std::int64_t cost() const;

  EvictionTable& table_;
  GoalRoom& room_;
  std::vector<UnitId> evicted_;
  std::int64_t tries_left_ = 0;  // of try_all
};

}  // namespace capstan::scheduler
