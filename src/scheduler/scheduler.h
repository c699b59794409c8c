// Scheduler: which hosts get the ranks of a gang, or how many tasks of an array fit, and why not.
//
//   Inventory inventory;                                  // what is free, kept current by deltas
//   inventory.set_host({"h1", {.milli_cpus = 8000}, Health::kHealthy});
//   auto decision = place(inventory, {.ranks = 4, .each = {.milli_cpus = 2000}});
//   if (decision) for (const Slice& slice : *decision) inventory.take(slice.host, slice.ranks * each);
//   else text = explain(decision.error(), inventory, request, holders);
//
// First fit: hosts in order of name, each takes as many ranks as it has room for. Pure and deterministic: no
// clock, no randomness, integers only; ties go to the smaller name. A gang is placed whole or not at all. A
// refusal is typed: *never* (the fleet, all of it idle, could not hold it) or *not now* (it could, once
// others end). A refusal stays valid until capacity grows, so a caller tries again only then: cost follows
// what changed. Cost: place is O(hosts up to the last one used); take and give are O(log hosts). Threads: one
// owner.
#pragma once

#include <cstdint>
#include <expected>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "fleet/host.h"

namespace capstan::scheduler {

using fleet::Capacity;

Capacity operator+(const Capacity& a, const Capacity& b);
Capacity operator-(const Capacity& a, const Capacity& b);
Capacity times(const Capacity& each, std::int64_t count);
// How many of `each` fit into `room`; kFitMax at most (an empty request fits without end).
inline constexpr std::int64_t kFitMax = std::int64_t{1} << 40;
std::int64_t fit(const Capacity& room, const Capacity& each);

// What is free on every host. A host that shrinks below its use has negative room until ranks end.
class Inventory {
 public:
  struct Entry {
    Capacity capacity;
    Capacity used;
    fleet::Health health = fleet::Health::kHealthy;
    Capacity room() const { return capacity - used; }
  };

  // Adds the host or changes its capacity and health; what is used stays. True if room may have grown.
  bool set_host(const fleet::Host& host);
  void take(const std::string& host, const Capacity& amount);
  void give(const std::string& host, const Capacity& amount);
  const std::map<std::string, Entry>& hosts() const { return hosts_; }

 private:
  std::map<std::string, Entry> hosts_;
};

struct Request {
  std::int64_t ranks = 1;
  Capacity each;
};

// `ranks` consecutive ranks on one host.
struct Slice {
  std::string host;
  std::int64_t ranks = 0;
  friend bool operator==(const Slice&, const Slice&) = default;
};

enum class Reason {
  kNoHosts,         // nobody has joined (not now)
  kRankTooLarge,    // one rank is larger than any host (never)
  kGangTooLarge,    // the gang is larger than the whole fleet (never)
  kBusy,            // others hold what it needs (not now)
  kHostsUnhealthy,  // it would fit if suspect or lost hosts came back (not now)
};
struct Refusal {
  Reason reason = Reason::kBusy;
  bool never() const { return reason == Reason::kRankTooLarge || reason == Reason::kGangTooLarge; }
};

// All ranks or a refusal.
std::expected<std::vector<Slice>, Refusal> place(const Inventory& inventory, const Request& request);
// As many as fit, up to request.ranks; the refusal if not even one does.
std::expected<std::vector<Slice>, Refusal> place_some(const Inventory& inventory, const Request& request);

// Who holds what, largest first, to be named in an explanation.
struct Holder {
  std::string kind;  // "job"
  std::string name;
  Capacity held;
};
// One line for a person: the binding constraint with its numbers.
//   "rank needs 4 cpus, the largest host has 2"  "needs 2 cpus, 1 is free; job train-1 holds 1"
std::string explain(const Refusal& refusal, const Inventory& inventory, const Request& request,
                    const std::vector<Holder>& holders);

}  // namespace capstan::scheduler
