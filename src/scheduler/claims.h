// Claims: hosts that are kept for somebody or something during a window of time. One mechanism for three things:
//   reservation   a tenant's capacity block: its work, and nobody else's, from `from_ms` until `until_ms`
//   maintenance   nothing runs there from `from_ms` until `until_ms`
//   gang          room that becomes free is kept for a gang that waits (it displaced others, or waited too long)
//
//   claims.add(inventory, {.id = 7, .kind = ClaimKind::kGang, .job = 12, .hosts = …});
//   placer.place(…)                             // ordinary placement no longer sees those hosts
//   place_among(inventory, request, {.hosts = Hosts::kUsable, .only = &claims.find(7)->hosts})
//   claims.remove(inventory, 7);
//
// Hosts with any claim, present or future, are hidden from ordinary placement (Inventory::set_claimed). Until a claim
// begins, work whose end is known to come before may use its hosts (`open_until`): backfill that delays nothing.
// State: exactly what add and remove were told. Cost: O(hosts of the claim) each. Memory: about 100 bytes a host claimed.
// Threads: one owner, the inventory's.  Failure: asserts on an id that is there twice.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "scheduler/inventory.h"

namespace capstan::scheduler {

inline constexpr std::size_t kClaimsMax = 10'000;
// Who is on hosts of a claim without a right to be is asked to leave so long before the claim begins.
inline constexpr std::int64_t kClaimLeadMs = 120'000;

enum class ClaimKind : std::uint8_t { kReservation, kMaintenance, kGang };
std::string_view claim_kind_name(ClaimKind kind);  // "reservation", "maintenance", "gang"

struct Claim {
  std::int64_t id = 0;
  ClaimKind kind = ClaimKind::kReservation;
  std::string name;    // of a reservation or window
  std::string tenant;  // whose reservation
  std::int64_t job = 0;  // of a gang
  std::int64_t from_ms = 0;
  std::int64_t until_ms = INT64_MAX;
  std::set<HostId> hosts;
  bool patient = false;  // of a gang: it waits for work that ends by itself
  bool active(std::int64_t now_ms) const { return from_ms <= now_ms && now_ms < until_ms; }
};

class Claims {
 public:
  void add(Inventory& inventory, Claim claim);
  void remove(Inventory& inventory, std::int64_t id);

  const std::map<std::int64_t, Claim>& all() const { return claims_; }  // by id
  const Claim* find(std::int64_t id) const;
  const Claim* find_named(std::string_view name) const;  // a reservation
  const Claim* of_job(std::int64_t job) const;           // its gang claim
  // The claims on a host, by id.
  const std::set<std::int64_t>& on(HostId host) const;
  // Claimed hosts whose every claim begins at `ends_by_ms` or later.
  std::set<HostId> open_until(std::int64_t ends_by_ms) const;
  // The first time after `after_ms` at which a claim is to be cleared, begins or ends; INT64_MAX: none comes.
  // (kClaimLeadMs before it begins, at its beginning, at its end.)
  std::int64_t next_boundary_ms(std::int64_t after_ms) const;

 private:
  std::map<std::int64_t, Claim> claims_;
  std::map<std::int64_t, std::int64_t> by_job_;
  std::map<HostId, std::set<std::int64_t>> on_host_;
  std::multiset<std::int64_t> boundaries_;
};

}  // namespace capstan::scheduler
