// How it works: the fits of a domain's hosts are listed once, hosts in use first; idle hosts count only as
// far as the domain's spares allow.
#include "scheduler/domain_fit.h"

#include <algorithm>
#include <bit>

#include "base/assert.h"

namespace capstan::scheduler {
namespace {

struct HostRoom {
  HostId id{};
  std::int64_t fit = 0;
  bool idle = false;
};

struct DomainRoom {
  std::vector<HostRoom> hosts;  // that take at least one rank; in order of id
  std::int64_t openable = 0;    // how many idle ones may be used
};

std::int64_t fit_of(const Inventory& inventory, HostId id, const Shape& shape, Hosts hosts) {
  if (hosts != Hosts::kAll) return std::min(inventory.fit(id, shape.each), kDomainFitMax);
  const Capacity& offered = inventory.capacity(id);
  std::int64_t fit = kDomainFitMax;
  const auto limit = [&](std::int64_t room, std::int64_t each) {
    if (each > 0) fit = std::min(fit, room / each);
  };
  limit(offered.milli_cpus, shape.each.milli_cpus);
  limit(offered.memory_bytes, shape.each.memory_bytes);
  limit(std::min(offered.gpus, fleet::kGpusPerHostMax), shape.each.gpus);
  if (shape.each.gpu_milli > 0)
    fit = std::min(fit, std::min(offered.gpus, fleet::kGpusPerHostMax) * (kGpuMilli / shape.each.gpu_milli));
  return fit;
}

bool counts(const Inventory& inventory, HostId id, const HostFilter& filter) {
  if (filter.only != nullptr && !filter.only->contains(id)) return false;
  if (filter.hosts == Hosts::kAll || filter.hosts == Hosts::kInUse) return true;
  return inventory.usable(id) && (filter.hosts == Hosts::kUsable || !inventory.host(id).claimed);
}

// Kept for work that others will do there.
bool is_awaited(const Inventory& inventory, HostId id, const HostFilter& filter) {
  if (!inventory.host(id).awaited) return false;
  return filter.only != nullptr ? !filter.only->contains(id) : filter.hosts == Hosts::kUnclaimed;
}

}  // namespace

std::int64_t host_fit(const Inventory& inventory, HostId id, const Shape& shape, const ClassMask& mask,
                      const HostFilter& filter) {
  if (!mask.allows(inventory.topology().class_of(id)) || !counts(inventory, id, filter)) return 0;
  return fit_of(inventory, id, shape, filter.hosts);
}

namespace {

// Too many hosts are in use for those that are awaited: nothing may be added, so that there is room one day.
constexpr std::int64_t kClosed = -1;

// Calls visit(HostRoom) for each host with room, in order of id; returns how many idle ones may be used, or kClosed.
template <class Visit>
std::int64_t visit_rooms(const Inventory& inventory, DomainId domain, const Shape& shape,
                         const ClassMask& mask, const HostFilter& filter, Visit visit) {
  const fleet::Domain& row = inventory.topology().domain(domain);
  std::int64_t in_use = 0, awaited = 0;
  for (std::uint32_t i = 0; i < row.hosts; ++i) {
    const HostId id{index(row.first) + i};
    const bool idle = filter.hosts == Hosts::kAll || inventory.idle(id);
    const bool is_kept = is_awaited(inventory, id, filter);
    in_use += !idle || is_kept;
    awaited += is_kept;
    const std::int64_t fit = host_fit(inventory, id, shape, mask, filter);
    if (fit > 0) visit(HostRoom{id, fit, idle});
  }
  if (filter.use_spares) return row.hosts;
  const std::int64_t openable = row.hosts - row.spares - in_use;
  return openable < 0 && awaited > 0 ? kClosed : std::max<std::int64_t>(0, openable);
}

DomainRoom rooms(const Inventory& inventory, DomainId domain, const Shape& shape, const ClassMask& mask,
                 const HostFilter& filter) {
  DomainRoom out;
  out.openable = visit_rooms(inventory, domain, shape, mask, filter,
                             [&](const HostRoom& room) { out.hosts.push_back(room); });
  if (out.openable == kClosed) return {};
  return out;
}

}  // namespace

bool allows(const Shape& shape, const fleet::HostClass& host_class) {
  if (!shape.host_class.empty() && shape.host_class != host_class.name) return false;
  if (!shape.gpu_model.empty() && shape.gpu_model != host_class.gpu_model) return false;
  if (shape.without_gpus && host_class.capacity.gpus > 0) return false;
  if (shape.each.gpus > host_class.capacity.gpus) return false;
  if (shape.each.gpu_milli == 0) return true;
  if (!host_class.fractional) return false;
  const auto& slices = host_class.gpu_slices;
  return slices.empty() || std::find(slices.begin(), slices.end(), shape.each.gpu_milli) != slices.end();
}

void ClassMask::extend(const fleet::Topology& topology) {
  for (std::size_t i = mask_.size(); i < topology.classes(); ++i) {
    const auto& host_class = topology.host_class(fleet::ClassId(static_cast<std::uint32_t>(i)));
    mask_.push_back(scheduler::allows(shape_, host_class) ? 1 : 0);
  }
}

std::int64_t domain_fit(const Inventory& inventory, DomainId domain, const Shape& shape,
                        const ClassMask& mask, const HostFilter& filter) {
  std::int64_t in_use_fit = 0, idle_fit = 0, idle_hosts = 0, idle_least = INT64_MAX, idle_most = 0;
  const std::int64_t openable =
      visit_rooms(inventory, domain, shape, mask, filter, [&](const HostRoom& room) {
        if (!room.idle) {
          in_use_fit += room.fit;
          return;
        }
        ++idle_hosts;
        idle_fit += room.fit;
        idle_least = std::min(idle_least, room.fit);
        idle_most = std::max(idle_most, room.fit);
      });
  if (openable == kClosed) return 0;
  if (idle_hosts > openable && idle_least == idle_most) {
    idle_fit = idle_most * openable;
  } else if (idle_hosts > openable) {  // hosts of different kinds in one domain: the roomiest may be opened
    std::vector<std::int64_t> fits;
    visit_rooms(inventory, domain, shape, mask, filter, [&](const HostRoom& room) {
      if (room.idle) fits.push_back(room.fit);
    });
    std::sort(fits.begin(), fits.end(), std::greater<>());
    idle_fit = 0;
    for (std::int64_t i = 0; i < openable; ++i) idle_fit += fits[static_cast<std::size_t>(i)];
  }
  return std::min(in_use_fit + idle_fit, kDomainFitMax);
}

void fill_domain(const Inventory& inventory, DomainId domain, const Shape& shape, const ClassMask& mask,
                 const HostFilter& filter, std::int64_t ranks, std::vector<Slice>& out) {
  DomainRoom room = rooms(inventory, domain, shape, mask, filter);
  // Of idle hosts only the roomiest may be opened, so that what domain_fit promised is there.
  std::vector<HostRoom*> idle;
  for (HostRoom& host : room.hosts) {
    if (host.idle) idle.push_back(&host);
  }
  if (static_cast<std::int64_t>(idle.size()) > room.openable) {
    std::stable_sort(idle.begin(), idle.end(), [](const auto* a, const auto* b) { return a->fit > b->fit; });
    for (std::size_t i = static_cast<std::size_t>(room.openable); i < idle.size(); ++i) idle[i]->fit = 0;
  }
  const std::size_t first = out.size();
  while (ranks > 0) {
    // The least room that takes the rest, a host in use before an idle one; else the most room.
    HostRoom* best = nullptr;
    for (HostRoom& host : room.hosts) {
      if (host.fit == 0) continue;
      if (best == nullptr) {
        best = &host;
        continue;
      }
      const bool takes = host.fit >= ranks, best_takes = best->fit >= ranks;
      if (takes != best_takes) {
        if (takes) best = &host;
      } else if (host.fit != best->fit ? takes == (host.fit < best->fit) : best->idle && !host.idle) {
        best = &host;
      }
    }
    CAPSTAN_ASSERT(best != nullptr);
    std::int64_t count = std::min(best->fit, ranks);
    if (shape.each.gpu_milli > 0) count = 1;
    out.push_back({best->id, count, inventory.choose_gpus(best->id, shape.each, count)});
    ranks -= count;
    best->fit = 0;
    CAPSTAN_ASSERT(shape.each.gpu_milli == 0 || ranks == 0);
  }
  // Neighbouring ranks on neighbouring hosts.
  std::sort(out.begin() + static_cast<std::ptrdiff_t>(first), out.end(),
            [](const Slice& a, const Slice& b) { return a.host < b.host; });
}

int fit_key(std::int64_t fit) {
  if (fit <= kKeyExact) return static_cast<int>(fit);
  const int octave = std::bit_width(static_cast<std::uint64_t>(fit)) - 1;  // 7 and more
  const int step = static_cast<int>((fit >> (octave - 3)) & 7);
  return std::min(kKeyExact + 1 + (octave - 7) * 8 + step, kKeyCpu - 1);
}

int domain_key(const Inventory& inventory, DomainId domain, const Shape& shape, std::int64_t fit) {
  if (fit <= 0) return 0;
  if (shape.each.gpus > 0 || shape.each.gpu_milli > 0 || shape.without_gpus) return fit_key(fit);
  const fleet::Domain& row = inventory.topology().domain(domain);
  if (inventory.capacity(row.first).gpus == 0) return fit_key(fit);
  std::int64_t idle = 0;
  for (std::uint32_t i = 0; i < row.hosts; ++i)
    idle += std::popcount(inventory.host(HostId(index(row.first) + i)).gpus_idle);
  return std::min<int>(kKeyCpu + static_cast<int>((idle + 1) / 2), kKeys - 1);
}

}  // namespace capstan::scheduler
