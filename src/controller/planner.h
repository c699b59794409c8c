// Planner: who waits, in which order, and what is started when there is room. Caches over the state, not state: all of it
// can be made again from the state, and decides the same.
//
//   planner.want(state, workload, wants);      // it would start something now, or no longer
//   planner.run(decision);                     // starts what fits, displaces what must give way
//
// A full look at the queue is taken when room has grown since the last one; otherwise only what is new is tried, because
// what was refused is still refused. A refusal settles every workload of the same shape (queue.h), so a look costs
// O(tenants + shapes + starts), not O(waiting).  Threads: the controller's.
#pragma once

#include <cstdint>
#include <expected>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "controller/decision.h"
#include "scheduler/placer.h"
#include "scheduler/preemption.h"
#include "scheduler/queue.h"

namespace capstan::controller {

// How often waiting work is looked at although nothing has changed: for what time alone brings about.
inline constexpr std::int64_t kLookEveryMs = 10'000;
// A search for work to displace that found none is not repeated for the same shape and rank before.
inline constexpr std::int64_t kDisplaceAgainMs = 1'000;
// The same for room that will become free by itself.
inline constexpr std::int64_t kStarveAgainMs = 10'000;

// In one look at the queue so many workloads are tried although others of their shape were refused: they may start again
// where they were, or on claimed hosts.
inline constexpr int kTriesAlone = 64;
// So many gangs at most have hosts kept for them that others still use.
inline constexpr std::int64_t kPatientClaimsMax = 4;

// Kinds of requests that placement of shares of GPUs looks at.
inline constexpr std::size_t kMixMax = 32;

// What remaining time counts for under least remaining service: GPUs, or CPUs of what has none.
std::int64_t size_of(const fleet::Capacity& ask);
// What the workload asks of placement for its next start, and how much of everything that is.
scheduler::Request request_of(const Workload& workload);
fleet::Capacity ask_of(const scheduler::Request& request);

// Interned shapes that are kept although nobody waits.
inline constexpr std::size_t kInternedMax = 1'000;

class Planner {
 public:
  void want(const State& state, const Workload& workload, bool wants);
  void run(Decision& decision);
  // Why a workload that wants to start does not, in words; nullopt: nothing is in its way.
  struct Why {
    bool never = false;
    std::string text;
  };
  // `whole`: with who holds what it needs and when it is expected to start, which looks at much of the fleet.
  std::optional<Why> why_waits(const State& state, const Workload& workload, bool whole);
  // When there is something to do although nothing happens; kNever if nobody waits.
  std::int64_t next_look_ms() const { return queue_.size() == 0 ? kNever : next_look_ms_; }
  void forget_hints();

  const scheduler::Queue& queue() const { return queue_; }
  scheduler::Placer& placer() { return placer_; }

 private:
  enum class Outcome { kPlaced, kSkipped, kShape, kTenant, kTenantAll };
  struct Tried {
    Outcome outcome = Outcome::kSkipped;
    scheduler::TenantId by{};
  };
  // What a start would count as, and whether work that is borrowed must make room for it.
  struct Terms {
    scheduler::Hold hold = scheduler::Hold::kBorrowed;
    bool guaranteed = false;
    const workload::CellQuota* cells = nullptr;  // the tenant's promise of whole cells that it would count for
    std::int64_t cells_left = 0;
    bool in_cells_left = false;  // those that are left would do
    bool by_cells = false;       // or those that it has
    scheduler::Request in_cells;   // the request in pieces that each fill a cell
    int right() const { return by_cells ? 2 : guaranteed ? 1 : 0; }
    static Terms of(const scheduler::Admission& admission) {
      Terms out;
      out.hold = admission.hold();
      out.guaranteed = out.hold == scheduler::Hold::kGuaranteed;
      return out;
    }
  };
  // What gets one answer from the whole of a look: placement looks at the shape, displacement at the rank and the promise too,
  // backfill at the end.
  struct Asked {
    std::uint32_t shape = 0;
    std::int64_t priority = 0;
    bool ends = false;                             // has a time limit: may backfill
    std::optional<scheduler::TenantId> promised;  // the tenant, if it is guaranteed anything
    friend auto operator<=>(const Asked&, const Asked&) = default;
  };
  std::uint32_t shape_of(const scheduler::Request& request, const std::string& reservation);
  std::uint32_t request_id(const Asked& asked);
  std::uint32_t shape_of(const Workload& workload) const;  // that is in the queue
  void follow_demand(const State& state);
  void try_claimed(Decision& decision);
  Tried try_start(Decision& decision, Workload& workload);
  Tried start_job(Decision& decision, Workload& workload);
  Tried start_service(Decision& decision, Workload& workload);
  Tried start_tasks(Decision& decision, Workload& workload);
  template <class Each>
  static void for_pledges(const State& state, const Workload& workload, const Each& each);
  static scheduler::Admission admission_of(const State& state, const Workload& workload, const scheduler::Request& request);
  Terms terms_of(const State& state, const Workload& workload, const scheduler::Request& request,
                 const scheduler::Admission& admission) const;
  scheduler::Hold hold_of(const State& state, const Workload& workload, const Terms& terms,
                          const scheduler::Placement& placement) const;
  // Where a gang is looked for a place.
  struct Where {
    bool anywhere = true;  // not only where it has a right or a history: its shape has not just been refused
    bool in_claim = true;  // on the hosts that are kept for it
  };
  std::optional<scheduler::Placement> place_gang(Decision& decision, const Workload& workload,
                                                 const scheduler::Request& request, const Terms& terms,
                                                 Where where);
  std::expected<scheduler::Placement, Tried> place_ranks(Decision& decision, Workload& workload,
                                                         const scheduler::Request& request,
                                                         const scheduler::Admission& admission);
  bool starve(Decision& decision, Workload& workload, const scheduler::Request& request);
  bool is_blocked(const State& state, const scheduler::Claim& claim, const scheduler::Request& request);
  std::optional<scheduler::Placement> again(const State& state, const Workload& workload,
                                            const scheduler::Request& request) const;
  bool takes_over(const State& state, const Workload& workload, const scheduler::Request& request, const Terms& terms,
                  const scheduler::Eviction& eviction) const;
  static std::vector<HostId> hide_others_cells(State& state, scheduler::TenantId tenant);
  static std::set<HostId> own_cells(const State& state, const Workload& workload);
  std::int64_t rest_of(const State& state, const Workload& workload) const;
  std::optional<scheduler::Eviction> choose_eviction(Decision& decision, const Workload& workload,
                                                     const scheduler::Request& request, const Terms& terms);
  std::vector<std::int64_t> weaker_claims(const State& state, const Workload& workload, const Terms& terms) const;
  bool displace(Decision& decision, Workload& workload, const scheduler::Request& request, const Terms& terms);

  scheduler::Placer placer_;
  scheduler::Queue queue_;
  std::map<std::string, std::uint32_t> shapes_;  // interned
  std::map<Asked, std::uint32_t> requests_;      // interned
  std::vector<Asked> asked_;                     // of each request
  std::vector<std::int64_t> fresh_;              // came since the last look
  std::set<std::uint32_t> refused_;              // shapes for which there was no room, until room grows
  std::map<std::tuple<std::uint32_t, std::int64_t, int>, std::int64_t> displaced_none_;  // when a search found nobody
  std::map<std::int64_t, HostId> blockers_;      // of a claim: a host that was in use
  std::int64_t next_look_ms_ = 0;
  int tries_left_ = 0;  // see kTriesAlone
  bool first_refused_ = false;  // nobody has been refused yet in this look at the queue
};

}  // namespace capstan::controller
