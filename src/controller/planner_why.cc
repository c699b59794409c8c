// How it works: a reservation, the quota, then room: the diagnosis sees the inventory as if what is kept for the workload were
// not in its way.
#include "controller/planner.h"
#include "scheduler/diagnose.h"
#include "scheduler/place_among.h"

namespace capstan::controller {

using scheduler::Placed;
using scheduler::Request;
using scheduler::Verdict;

namespace {

// It has hosts kept for it: who is still there.
Planner::Why claimed_why(const State& state, const scheduler::Claim& claim) {
  constexpr std::size_t kNamed = 8;
  std::set<std::string> names;
  std::int64_t busy = 0;
  for (const HostId host : claim.hosts) {
    const auto& holders = state.inventory.host(host).holders;
    busy += !holders.empty();
    for (const auto& holder : holders) {
      const Workload& other = *state.find(holder.job);
      names.insert(fmt::format("{} {}", workload::kind_name(other.spec.kind), other.spec.name));
    }
  }
  const auto all = static_cast<std::int64_t>(claim.hosts.size());
  std::string text = all == 1 ? "1 host is kept for it" : fmt::format("{} hosts are kept for it", all);
  if (busy > 0) text += busy < all ? fmt::format(", {} not free yet", busy) : all == 1 ? ", not free yet" : ", none free yet";
  std::string list;
  std::size_t named = 0;
  for (const std::string& name : names) {
    if (named++ == kNamed) break;
    list += (list.empty() ? ": " : ", ") + name;
  }
  if (names.size() > kNamed) list += fmt::format(" and {} more", names.size() - kNamed);
  if (names.empty()) {
    text += ", all free";
  } else {
    text += list + (claim.patient ? (names.size() == 1 ? " ends by itself" : " end by themselves")
                                  : (names.size() == 1 ? " gives way" : " give way"));
  }
  if (claim.patient && claim.from_ms > state.time_ms)
    text += fmt::format("; it starts at {} at the latest", scheduler::time_text(claim.from_ms, state.time_ms));
  return {false, text};
}

}  // namespace

std::optional<Planner::Why> Planner::why_waits(const State& state, const Workload& workload, bool whole) {
  const Request request = request_of(workload);
  const std::string& reservation = workload.spec.placement.reservation;
  // Placement tries things out in the inventory and leaves it as it was.
  auto& inventory = const_cast<scheduler::Inventory&>(state.inventory);
  if (!reservation.empty()) {
    const auto* claim = state.claims.find_named(reservation);
    if (claim == nullptr) return Why{false, fmt::format("there is no reservation {} (any more)", reservation)};
    if (claim->tenant != workload.spec.tenant)
      return Why{true, fmt::format("reservation {} is tenant {}'s", reservation, claim->tenant)};
    if (!claim->active(state.time_ms)) {
      return Why{false, fmt::format("reservation {} begins at {}", reservation,
                                    scheduler::time_text(claim->from_ms, state.time_ms))};
    }
    const std::set<HostId> hosts = claim->hosts;
    if (scheduler::place_among(inventory, request, {.hosts = scheduler::Hosts::kUsable, .only = &hosts})) return {};
    return Why{false, fmt::format("it does not fit into what is free of the {} hosts of reservation {}", hosts.size(),
                                  reservation)};
  }
  const auto admission = state.tenants.admission(workload.tenant, ask_of(request));
  const bool guaranteed = terms_of(state, workload, request, admission).guaranteed;
  if (!admission.admitted() && !(admission.by_guarantee && guaranteed))
    return Why{admission.verdict == Verdict::kNever, state.tenants.words(admission)};
  const auto* claim = state.claims.of_job(workload.id);
  if (claim != nullptr && !whole) return claimed_why(state, *claim);
  if (!whole) {
    const Placed placed = placer_.place(inventory, request);
    if (placed) return std::nullopt;
    return Why{placed.error().never(), std::string(scheduler::reason_name(placed.error().reason))};
  }
  // What is kept for it is not in its way.
  std::vector<HostId> own;
  for (const HostId host : claim == nullptr ? std::set<HostId>{} : claim->hosts) {
    if (state.claims.on(host).size() == 1) own.push_back(host);
  }
  for (const HostId host : own) inventory.set_claimed(host, false);
  const auto diagnosis = scheduler::diagnose(inventory, placer_, state.running, request, state.time_ms);
  for (const HostId host : own) inventory.set_claimed(host, true, true);
  if (diagnosis.fits && claim == nullptr) return std::nullopt;
  const auto name = [&](std::int64_t job) {
    const Workload* other = state.find(job);
    return other == nullptr ? std::to_string(job)
                            : fmt::format("{} {}", workload::kind_name(other->spec.kind), other->spec.name);
  };
  std::string text = diagnosis.fits ? std::string() : scheduler::text(diagnosis, inventory, request, name);
  if (claim != nullptr) text = claimed_why(state, *claim).text + (text.empty() ? "" : "; ") + text;
  return Why{!diagnosis.fits && diagnosis.refusal.never(), std::move(text)};
}

}  // namespace capstan::controller
