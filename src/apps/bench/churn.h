// Churn: work that comes and goes on a fleet, as a recipe says, until the fleet is as ragged as after months
// of use.
//
//   World world;  world.apply(ApplyFleet{…});
//   Churn churn(world, recipe);
//   churn.run(1'000'000);               // starts and ends, of gangs and replicas
//   churn.occupancy();                  // 0.9: of the GPUs that placement may use
//
// A closed loop: while less is busy than the recipe says, the next piece of work is submitted, else simulated
// time moves to the next end, failure or repair. Deterministic. Threads: one owner.
#pragma once

#include <cstdint>
#include <queue>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "apps/bench/recipe.h"
#include "apps/bench/world.h"
#include "base/prng.h"

namespace capstan::apps::bench {

class Churn {
 public:
  Churn(World& world, const Recipe& recipe);

  // So many more starts and ends.
  void run(std::int64_t starts_and_ends);
  // Ends a random frontier gang, at once; false if none runs.
  bool end_random_gang();
  // Submits a frontier gang of so many trays now; cancelled if it has to wait.
  void submit_gang(std::int64_t trays);
  // From now on no more is held by frontier gangs than is held now.
  void keep_frontier();

  struct Counts {
    std::int64_t starts = 0, ends = 0, tray_failures = 0, gave_up = 0, preempted = 0;
  };
  const Counts& counts() const { return counts_; }
  std::int64_t usable_gpus() const { return usable_gpus_; }
  std::int64_t trays() const { return static_cast<std::int64_t>(gpu_hosts_.size()); }
  double occupancy() const;
  Json to_json() const;

  // A gang of whole trays in segments, of a tenant of the recipe.
  workload::Spec gang(std::string name, std::int64_t trays, std::int64_t segment,
                      std::int64_t priority = 0) const;

  World& world() { return world_; }
  Prng& prng() { return prng_; }

 private:
  struct Work {
    std::string name;
    std::int64_t gpus = 0;
    std::int64_t duration_ms = 0;
    std::int64_t submitted_ms = 0;
    bool frontier = false;
    bool service = false;
    bool runs = false;
  };
  enum class What { kEnd, kFail, kReturn };
  struct Due {
    std::int64_t at_ms = 0;
    std::int64_t id = 0;       // of the work, or index of the host
    std::int64_t attempt = 0;  // whose end it is
    What what = What::kEnd;
    auto key() const { return std::tuple(at_ms, static_cast<int>(what), id, attempt); }
    friend bool operator>(const Due& a, const Due& b) { return a.key() > b.key(); }
  };
  void on_event(const Json& event);
  void step();
  void next();
  void submit(workload::Spec spec, Work work);
  void submit_small();
  void submit_gang();
  void draw_gang();
  void cancel(std::int64_t id);
  void give_up();
  workload::Spec small(std::int64_t gpus) const;
  std::int64_t busy() const;

  World& world_;
  Recipe recipe_;
  Prng prng_;
  Counts counts_;
  std::vector<HostId> gpu_hosts_;
  std::int64_t gpus_per_tray_ = 0;
  std::int64_t usable_gpus_ = 0;
  std::int64_t failure_every_ms_ = 0;
  std::int64_t next_name_ = 0;
  std::int64_t frontier_held_ = 0;  // by gangs that run
  std::int64_t frontier_goal_ = 0;
  std::int64_t small_goal_ = 0;
  GangSize next_gang_;
  std::vector<GangSize> gangs_;  // of sizes that this fleet can take
  std::set<std::int64_t> waiting_gangs_, waiting_small_;
  std::set<std::int64_t> running_gangs_;
  std::unordered_map<std::int64_t, Work> work_;  // never iterated
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due_;
};

}  // namespace capstan::apps::bench
