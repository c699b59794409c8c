// place_among: the policy of placement.h by looking at every domain and sorting, on whatever hosts a filter
// lets in.
//
//   const std::set<HostId> hosts = …;                       // of a reservation
//   Placed placed = place_among(inventory, request, {.hosts = Hosts::kUsable, .only = &hosts});
//
// Production places with it on the hosts of a reservation and on claimed hosts that may be backfilled
// (claims.h); for the whole fleet it is the slow, obvious twin of the Placer, whose answers must be the same.
// With Hosts::kAll it says what could ever fit: GPUs of the slices are then empty sets where others hold
// them, and for requests of several groups the inventory should be an idle one (`idle_copy`), because groups
// share hosts. Cost: O(d log d) for each choice among d domains; d counts only domains with hosts of `only`
// if that is given. Threads: one owner, the inventory's, which is changed while several groups are tried, and
// then as before.
#pragma once

#include "scheduler/domain_fit.h"
#include "scheduler/placement.h"

namespace capstan::scheduler {

// All of it, or a refusal: kBusy, kNoHosts.
Placed place_among(Inventory& inventory, const Request& request, const HostFilter& filter);
// Up to groups[0].ranks ranks of the one group (of shares of a GPU: one), anywhere allowed, best fit.
Placed place_some_among(Inventory& inventory, const Request& request, const HostFilter& filter);

// The same fleet, every host healthy, in service, unclaimed and idle. O(hosts) memory and time.
Inventory idle_copy(const Inventory& inventory);

}  // namespace capstan::scheduler
