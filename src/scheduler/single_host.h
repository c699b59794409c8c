// SingleHostPlacer: which host, and which of its GPUs, one rank gets: whole GPUs, a share of one GPU, or CPUs
// alone.
//
//   SingleHostPlacer placer(fragmentation_policy(recent.mix()));    // or best_fit_policy(),
//   first_fit_policy() auto choice = placer.place(inventory, {.each = {.milli_cpus = 4'000, .gpu_milli =
//   250}}); if (choice) {
//     inventory.hold(choice->host, job, 1, each, choice->gpus);
//     placer.changed(choice->host);       // after every change of a host that placement sees
//   }
//
// Which hosts count: those that are usable and not claimed, whose class allows the request, with room for it;
// an idle host of an NVLink domain only if the domain's spares stay idle. A policy scores a host by its room
// alone. The highest score wins; of equal scores the lowest HostId (Ties::kRandom exists to show what that
// rule is worth). Of the chosen host's GPUs the policy names how full the one for a share is (of equal scores
// the fullest), and of those the lowest number is taken; whole GPUs are those of lowest number.
//
// Cost: a host that changed is looked at once, whatever is asked; each kind of request then catches up with
// the states of room (single_host_states.h) that changed since it was last asked, and a score is worked out
// once for each kind and state. So a placement costs O(changes + log states), not O(hosts); a kind's first
// one O(states). Memory: 12 bytes for each kind and state, at most 200 MB; the kinds asked longest ago are
// forgotten. Threads: one owner.  Failure: nullopt if no host takes it now; asserts on a request for GPUs and
// a share at once.
#pragma once

#include <map>
#include <memory>
#include <optional>

#include "base/prng.h"
#include "scheduler/fragmentation.h"
#include "scheduler/single_host_states.h"

namespace capstan::scheduler {

// How good it is to place a request in such room, and where.
struct RoomScore {
  std::int32_t score = 0;
  std::uint32_t gpu = 0;  // of a share: index into room.gpu_milli
};

class RoomPolicy {
 public:
  virtual ~RoomPolicy() = default;
  // The topology may have gained classes; called before they are asked about.
  virtual void extend(const fleet::Topology&) {}
  // Of a room that fits. Must depend on nothing else.
  virtual RoomScore score(const HostRequest& request, const HostRoom& room) const = 0;
};

// floor(100 (1 - (c / 128000 + g / 8000) / 2)) with the thousandths of CPUs c and of GPUs g that would stay
// free; a share goes to the fullest GPU that takes it. (Below 0 for hosts of more than 128 CPUs and 8 GPUs.)
// The source spreads the scores over 0..100 afterwards, which changes no maximum.
std::unique_ptr<RoomPolicy> best_fit_policy();
// fragmentation_score of what placing the request does to the host's fragmentation.
std::unique_ptr<RoomPolicy> fragmentation_policy(WorkloadMix mix);
// Every host is equal.
std::unique_ptr<RoomPolicy> first_fit_policy();

struct HostChoice {
  HostId host{};
  GpuSet gpus = 0;
  friend bool operator==(const HostChoice&, const HostChoice&) = default;
};

class SingleHostPlacer {
 public:
  enum class Ties {
    kLowestHost,
    kRandom,  // any host of the highest score, from `seed`; O(hosts): for comparisons
  };
  struct Options {
    std::size_t kinds_max = 1'024;            // of requests that are kept
    std::size_t scores_max = 16 * 1'048'576;  // kinds × states
    bool shares_only = false;                 // hosts whose GPUs cannot be shared are left aside
    Ties ties = Ties::kLowestHost;
    std::uint64_t seed = 0;
  };
  explicit SingleHostPlacer(std::unique_ptr<RoomPolicy> policy)
      : SingleHostPlacer(std::move(policy), Options{}) {}
  SingleHostPlacer(std::unique_ptr<RoomPolicy> policy, Options options);
  ~SingleHostPlacer();

  // The host's room, state or class is another. New hosts need no call; other spares of a domain, one for
  // each of its hosts.
  void changed(HostId host);
  // Another policy, or the same with another mix: every score is forgotten.
  void set_policy(std::unique_ptr<RoomPolicy> policy);

  std::optional<HostChoice> place(const Inventory& inventory, const HostRequest& request);

 private:
  struct Ranking;
  void absorb(const Inventory& inventory);
  Ranking& ranking(const Inventory& inventory, const HostRequest& request);
  void forget_rankings();
  void catch_up(Ranking& ranking);
  void rebuild(Ranking& ranking);
  void file(Ranking& ranking, std::uint32_t state);
  std::uint32_t pick(Ranking& ranking);

  std::unique_ptr<RoomPolicy> policy_;
  Options options_;
  RoomStates states_;
  std::vector<HostId> changes_;
  std::vector<std::uint8_t> is_changed_;
  std::map<HostRequest, std::unique_ptr<Ranking>> rankings_;
  std::int64_t asked_ = 0;
  Prng prng_;
};

}  // namespace capstan::scheduler
