// Queue: the workloads that wait, in the order in which they are tried.
//
//   queue.insert({.job = 17, .tenant = nlp, .priority = 0, .submitted_ms = now, .request = interned});
//   Queue::Pass pass(queue, tenants);
//   while (auto job = pass.next()) {
//     const Admission quota = tenants.admission(…);
//     if (!quota.admitted()) pass.refused_tenant(quota.by);
//     else if (!placer.place(…)) pass.refused_request();
//     else { tenants.charge(…); queue.erase(*job); pass.placed(); }
//   }
//
// Order: higher priority first; then, under fair share, the tenant whose turn it is (Tenants::less; it
// changes as the pass charges), inside a tenant the earlier submission; under the others the order's own key,
// then the earlier submission. Every tie ends in the job's id.
//
// A request is interned: placement gives all entries of one request the same answer, so one refusal settles
// them all, and a pass costs O(tenants + requests + offered) × log, however many wait; at worst, where
// priorities put what is refused before the rest in every tenant, tenants × requests. Nothing looks through
// the whole queue but position().
//
// Threads: one owner.  Cost: insert, erase O(log n); about 250 bytes an entry.  Failure: asserts on a job
// that is there twice. During a pass entries may be erased and inserted; what is inserted is first offered by
// the next pass.
#pragma once

#include <boost/unordered_map.hpp>
#include <boost/unordered_set.hpp>
#include <compare>
#include <cstdint>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "scheduler/tenants.h"

namespace capstan::scheduler {

enum class Order : std::uint8_t {
  kFairShare,
  kFifo,
  kSjf,   // shortest whole run first
  kSrtf,  // shortest remaining time first
  kSrsf,  // least remaining service (time × size) first
};
std::string_view order_name(Order order);  // "fair-share", "fifo", "sjf", "srtf", "srsf"
Result<Order> parse_order(std::string_view name);

class Queue {
 public:
  struct Entry {
    std::int64_t job = 0;
    TenantId tenant = kDefaultTenant;
    std::int64_t priority = 0;
    std::int64_t submitted_ms = 0;
    std::uint32_t request = 0;      // interned request
    std::int64_t estimate_ms = 0;   // whole run; 0: unknown, and last under kSjf
    std::int64_t remaining_ms = 0;  // of it; 0: unknown, and last under kSrtf
    std::int64_t service = 0;       // remaining × size, in any one unit; 0: unknown, and last under kSrsf
    friend bool operator==(const Entry&, const Entry&) = default;
  };
  class Pass;

  explicit Queue(Order order = Order::kFairShare) : order_(order) {}
  Order order() const { return order_; }
  void set_order(Order order);  // O(n log n); not during a pass

  void insert(const Entry& entry);
  bool erase(std::int64_t job);  // false: it did not wait
  bool contains(std::int64_t job) const { return entries_.count(job) > 0; }
  const Entry* find(std::int64_t job) const;  // until the next insert or erase
  std::size_t size() const { return entries_.size(); }
  std::size_t waiting(TenantId tenant) const;                     // of itself, without what is below
  std::size_t requests() const { return request_sizes_.size(); }  // that have entries
  std::size_t waiting_of_request(std::uint32_t request) const;

  // How many are before it as shares are now; nullopt: it does not wait. O(n).
  std::optional<std::size_t> position(std::int64_t job, const Tenants& tenants) const;
  // The first n as shares are now. O(tenants + n log).
  std::vector<std::int64_t> heads(std::size_t n, const Tenants& tenants) const;

 private:
  // Ascending is the order inside a tenant (fair share) or of all (the others).
  struct Key {
    std::int64_t minus_priority = 0;
    std::int64_t value = 0;  // the order's own; 0 if it has none
    std::int64_t submitted_ms = 0;
    std::int64_t job = 0;
    friend auto operator<=>(const Key&, const Key&) = default;
  };
  struct Head {
    Key key;
    std::uint32_t request = 0;
    friend auto operator<=>(const Head&, const Head&) = default;
  };
  struct Stored {
    Entry entry;
    std::uint64_t number = 0;  // of the insertion
  };
  struct Lane {            // of a tenant
    std::set<Head> heads;  // the first entry of each request
    std::size_t size = 0;
  };
  static std::uint64_t bucket_key(TenantId tenant, std::uint32_t request) {
    return (std::uint64_t{index(tenant)} << 32) | request;
  }
  Key key(const Entry& entry) const;
  void add(const Entry& entry);
  // The first entry of the bucket after `after`.
  std::optional<Key> after(TenantId tenant, std::uint32_t request, const Key& after) const;

  Order order_;
  std::uint64_t inserted_ = 0;
  boost::unordered_map<std::int64_t, Stored> entries_;              // by job; looked up, never iterated
  boost::unordered_map<std::uint64_t, std::set<Key>> buckets_;      // by tenant and request; never iterated
  boost::unordered_map<std::uint32_t, std::size_t> request_sizes_;  // never iterated
  std::vector<Lane> lanes_;                                         // by tenant
};

// One walk through the queue. Between two calls of next() exactly one outcome is told.
class Queue::Pass {
 public:
  Pass(const Queue& queue, const Tenants& tenants);

  // The next one to try; nullopt: nothing is left that could be placed.
  std::optional<std::int64_t> next();

  // Outcomes of what next() gave.
  void placed();                     // its tenant has been charged
  void skipped();                    // this one only
  void refused_request();            // no entry of its request is offered again, whosever
  void refused_tenant(TenantId by);  // no entry of its request, of `by` (itself or an ancestor) and all below
  void refused_tenant_all(TenantId by);  // no entry at all of `by` and all below

  // Beside the outcome: this tenant was charged or credited too (a victim gave way).
  void charged(TenantId tenant) { charged_.push_back(tenant); }

 private:
  static constexpr std::uint32_t kNone = UINT32_MAX;
  static constexpr std::uint32_t kAllRequests = UINT32_MAX;
  struct PassLane {
    TenantId tenant{};
    std::uint32_t group = 0;  // whose item it is
    bool open = false;        // heads are copied
    std::vector<Head> heads;  // a heap of what is left
  };
  // What a group chooses among: a lane or another group.
  struct Item {
    Key key;  // of the first entry in it
    Share share;
    TenantId tenant{};
    bool own = false;
    std::uint32_t lane = kNone;
    std::uint32_t group = kNone;
  };
  struct Group {
    TenantId tenant{};
    std::uint32_t parent = kNone;
    std::vector<Item> items;  // a heap
  };

  bool later(const Item& a, const Item& b) const;
  std::uint32_t group_of(TenantId tenant);
  void make_heaps();
  void heapify(Group& group);
  void refresh_path(std::uint32_t lane);
  void recharge(TenantId tenant);
  bool refused_by_tenant(TenantId tenant, std::uint32_t request) const;
  bool offerable(const Head& head) const;
  bool settle(PassLane& lane);
  void advance(PassLane& lane);
  void pop_head(PassLane& lane);
  void end(bool advanced);

  const Queue& queue_;
  const Tenants& tenants_;
  const bool fair_;
  const std::uint64_t inserted_;  // entries numbered from here on came during the pass
  std::size_t requests_left_;
  std::vector<PassLane> lanes_;
  std::vector<Group> groups_;                             // the first is the root
  boost::unordered_set<std::uint32_t> refused_requests_;  // looked up, never iterated
  boost::unordered_set<std::uint64_t> refused_tenants_;   // tenant and request; never iterated
  std::vector<std::uint32_t> group_of_tenant_;
  std::vector<TenantId> charged_;
  std::uint32_t current_ = kNone;  // lane of what next() gave
};

}  // namespace capstan::scheduler
