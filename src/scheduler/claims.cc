// How it works: claims by id, and for each host the ids of its claims; the inventory's flag follows whether there are any.
#include "scheduler/claims.h"

#include <algorithm>

#include "base/assert.h"

namespace capstan::scheduler {

std::string_view claim_kind_name(ClaimKind kind) {
  static constexpr std::string_view kNames[] = {"reservation", "maintenance", "gang"};
  return kNames[static_cast<int>(kind)];
}

void Claims::add(Inventory& inventory, Claim claim) {
  const std::int64_t id = claim.id;
  for (const HostId host : claim.hosts) {
    on_host_[host].insert(id);
    const bool awaited = inventory.host(host).awaited || claim.kind != ClaimKind::kMaintenance;
    inventory.set_claimed(host, true, awaited);
  }
  boundaries_.insert(claim.from_ms - kClaimLeadMs);
  boundaries_.insert(claim.from_ms);
  boundaries_.insert(claim.until_ms);
  if (claim.kind == ClaimKind::kGang) by_job_[claim.job] = id;
  const bool is_new = claims_.emplace(id, std::move(claim)).second;
  CAPSTAN_ASSERT(is_new);
}

void Claims::remove(Inventory& inventory, std::int64_t id) {
  const auto at = claims_.find(id);
  if (at == claims_.end()) return;
  const Claim& claim = at->second;
  for (const HostId host : claim.hosts) {
    const auto ids = on_host_.find(host);
    ids->second.erase(id);
    const bool awaited = std::any_of(ids->second.begin(), ids->second.end(), [&](std::int64_t other) {
      return claims_.at(other).kind != ClaimKind::kMaintenance;
    });
    inventory.set_claimed(host, !ids->second.empty(), awaited);
    if (ids->second.empty()) on_host_.erase(ids);
  }
  boundaries_.erase(boundaries_.find(claim.from_ms - kClaimLeadMs));
  boundaries_.erase(boundaries_.find(claim.from_ms));
  boundaries_.erase(boundaries_.find(claim.until_ms));
  if (claim.kind == ClaimKind::kGang) by_job_.erase(claim.job);
  claims_.erase(at);
}

const Claim* Claims::find(std::int64_t id) const {
  const auto at = claims_.find(id);
  return at == claims_.end() ? nullptr : &at->second;
}

const Claim* Claims::find_named(std::string_view name) const {
  for (const auto& [id, claim] : claims_) {
    if (claim.kind == ClaimKind::kReservation && claim.name == name) return &claim;
  }
  return nullptr;
}

const Claim* Claims::of_job(std::int64_t job) const {
  const auto at = by_job_.find(job);
  return at == by_job_.end() ? nullptr : find(at->second);
}

const std::set<std::int64_t>& Claims::on(HostId host) const {
  static const std::set<std::int64_t> kNone;
  const auto at = on_host_.find(host);
  return at == on_host_.end() ? kNone : at->second;
}

std::set<HostId> Claims::open_until(std::int64_t ends_by_ms) const {
  std::set<HostId> out;
  for (const auto& [host, ids] : on_host_) {
    bool open = true;
    for (const std::int64_t id : ids) open = open && claims_.at(id).from_ms >= ends_by_ms;
    if (open) out.insert(host);
  }
  return out;
}

std::int64_t Claims::next_boundary_ms(std::int64_t after_ms) const {
  const auto at = boundaries_.upper_bound(after_ms);
  return at == boundaries_.end() ? INT64_MAX : *at;
}

}  // namespace capstan::scheduler
