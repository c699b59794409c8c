// DomainFit: how many ranks of a shape one NVLink domain takes now, and on which of its hosts they go.
//
// The one place that knows hosts inside a domain: both implementations of the policy (placer, place_among)
// and preemption ask it.  Pure.  Cost: O(hosts of the domain), at most a few hundred nanoseconds for 18
// trays.
#pragma once

#include <set>
#include <vector>

#include "scheduler/placement.h"

namespace capstan::scheduler {

inline constexpr std::int64_t kDomainFitMax = 65'535;

// Which hosts count.
enum class Hosts {
  kUnclaimed,  // usable and not claimed: what ordinary placement sees
  kUsable,     // claimed ones too
  kInUse,      // as if every host were healthy and in service, with what is used of it
  kAll,        // as if every host were healthy, in service and idle: what could ever be
};
struct HostFilter {
  Hosts hosts = Hosts::kUnclaimed;
  bool use_spares = false;                 // a replacement for a failed tray may take a spare one
  const std::set<HostId>* only = nullptr;  // not owned; nullptr: all
};

// Which classes of hosts a shape may use, a byte a class; kept current with the topology's classes.
class ClassMask {
 public:
  ClassMask(const fleet::Topology& topology, const Shape& shape) : shape_(shape) { extend(topology); }
  void extend(const fleet::Topology& topology);
  bool allows(fleet::ClassId id) const { return mask_[index(id)] != 0; }

 private:
  Shape shape_;
  std::vector<std::uint8_t> mask_;
};

// Ranks that the domain takes, at most kDomainFitMax. With kAll from capacities, spares left out.
std::int64_t domain_fit(const Inventory& inventory, DomainId domain, const Shape& shape,
                        const ClassMask& mask, const HostFilter& filter);

// Ranks that one host takes; what a domain's spares forbid is left aside.
std::int64_t host_fit(const Inventory& inventory, HostId host, const Shape& shape, const ClassMask& mask,
                      const HostFilter& filter);

// Appends the slices for `ranks` ranks, which must fit. GPUs are chosen.
void fill_domain(const Inventory& inventory, DomainId domain, const Shape& shape, const ClassMask& mask,
                 const HostFilter& filter, std::int64_t ranks, std::vector<Slice>& out);

// The order of domains in best fit: smaller is better among those with room. 0: no room.
// 1 to 128: exactly so many ranks fit; up to kKeyCpu: more, eight steps an octave; beyond: a domain with
// GPUs, for a shape without, by its idle GPUs.
inline constexpr int kKeyExact = 128;
inline constexpr int kKeyCpu = 201;
inline constexpr int kKeys = 256;
int fit_key(std::int64_t fit);
int domain_key(const Inventory& inventory, DomainId domain, const Shape& shape, std::int64_t fit);

}  // namespace capstan::scheduler
