// How it works: gangs come from their slices; services and tasks from the holders of hosts, since only those
// say where they are. Entries are then filed by domain (a counting sort), so that one domain's work is found
// at once.
#include "scheduler/eviction_table.h"

#include <algorithm>
#include <array>
#include <bit>

#include "base/assert.h"
#include "scheduler/preemption.h"

namespace capstan::scheduler {
namespace {

// Ranks of work that is not a gang are units one by one up to so many on a host; beyond, one unit that is
// shrunk later.
constexpr std::uint32_t kSingleRanksMax = 4;

GpuSet lowest_bits(GpuSet set, std::int64_t count) {
  GpuSet out = 0;
  for (; count > 0 && set != 0; --count, set &= set - 1) out |= set & (~set + 1);
  return out;
}

std::int64_t weight(const Capacity& each) {
  if (each.gpus > 0 || each.gpu_milli > 0) return each.gpus * kGpuMilli + each.gpu_milli;
  return std::max<std::int64_t>(each.milli_cpus / 1000, 1);
}

}  // namespace

std::int64_t rank_cost(const Running& running, std::size_t group, std::int64_t now_ms) {
  CAPSTAN_ASSERT(group < running.each.size());
  return std::max<std::int64_t>(lost_ms(running, now_ms) * weight(running.each[group]) / kGpuMilli, 1);
}

std::int64_t stop_cost(const Running& running, std::int64_t now_ms) {
  if (!running.gang) return rank_cost(running, 0, now_ms);
  std::int64_t sum = 0;
  std::size_t at = 0;
  for (std::size_t group = 0; group < running.group_ends.size(); ++group) {
    const std::int64_t each = rank_cost(running, group, now_ms);
    for (; at < running.group_ends[group]; ++at) sum += running.slices[at].ranks * each;
  }
  return sum;
}

EvictionTable::EvictionTable(Inventory& inventory, const RunningJobs& running, const Options& options)
    : inventory_(inventory) {
  std::vector<Known> scattered;  // ascending
  if (options.jobs.empty()) {
    for (const auto& entry : running.entries()) {
      if (entry.row != nullptr) add_row(*entry.row, options, scattered);
    }
  }
  for (const std::int64_t job : options.jobs) {
    if (const auto row = running.find(job); row != running.end()) add_row(row->second, options, scattered);
  }
  if (!scattered.empty()) {
    list_known_shares();
    look_through(scattered, options);
  }
  file();
}

void EvictionTable::add_row(const Running& row, const Options& options, std::vector<Known>& scattered) {
  if (!row.gang) add_leaving(row);
  const Role role = options.role(row);
  if (role == Role::kStays) return;
  if (row.gang) {
    add_gang(row, role, options.now_ms);
  } else {
    scattered.push_back({row.job, &row, role});
  }
}

EvictionTable::~EvictionTable() {
  for (UnitId id = 0; id < units_.size(); ++id) {
    if (units_[id].evicted) restore(id);
  }
}

std::span<const EvictionTable::Entry> EvictionTable::entries(UnitId id) const {
  return std::span(entries_).subspan(units_[id].first_entry, units_[id].entries);
}

std::span<const std::uint32_t> EvictionTable::in_domain(std::uint32_t domain) const {
  if (domain + 1 >= domain_begin_.size()) return {};
  return std::span(domain_entries_)
      .subspan(domain_begin_[domain], domain_begin_[domain + 1] - domain_begin_[domain]);
}

void EvictionTable::add_gang(const Running& running, Role role, std::int64_t now_ms) {
  const auto id = static_cast<UnitId>(units_.size());
  Unit unit{.running = &running, .role = role, .first_entry = static_cast<std::uint32_t>(entries_.size())};
  unit.cost = stop_cost(running, now_ms);
  std::size_t at = 0;
  for (std::uint32_t group = 0; group < running.group_ends.size(); ++group) {
    for (; at < running.group_ends[group]; ++at) {
      const Slice& slice = running.slices[at];
      entries_.push_back({id, slice.host, static_cast<std::uint32_t>(slice.ranks), group, slice.gpus});
    }
  }
  unit.entries = static_cast<std::uint32_t>(entries_.size()) - unit.first_entry;
  units_.push_back(unit);
}

void EvictionTable::add_piece(HostId host, const Running& running, Role role, std::uint32_t ranks,
                              GpuSet gpus, std::int64_t cost) {
  const auto id = static_cast<UnitId>(units_.size());
  units_.push_back({.running = &running,
                    .role = role,
                    .first_entry = static_cast<std::uint32_t>(entries_.size()),
                    .entries = 1,
                    .cost = cost * ranks});
  entries_.push_back({id, host, ranks, 0, gpus});
}

void EvictionTable::add_leaving(const Running& running) {
  for (const Slice& slice : running.leaving)
    add_piece(slice.host, running, Role::kLeaving, static_cast<std::uint32_t>(slice.ranks), slice.gpus, 0);
}

void EvictionTable::look_through(const std::vector<Known>& known, const Options& options) {
  const auto& topology = inventory_.topology();
  std::vector<char> classes;
  for (std::uint32_t i = 0; i < topology.classes(); ++i)
    classes.push_back(!options.in_question || options.in_question(topology.host_class(fleet::ClassId(i))));
  std::size_t enough = options.domains_enough;
  for (const Known& row : known) {
    if (row.role == Role::kLeaving) enough = SIZE_MAX;
  }
  for (const std::uint32_t domain : options.domains) look_at(DomainId(domain), known, options.now_ms);
  std::size_t found = 0;
  for (const fleet::ClusterId cluster : options.clusters) {
    for (const fleet::BlockId block : topology.cluster(cluster).blocks) {
      for (const auto& extent : topology.block(block).extents) {
        for (std::uint32_t i = 0; i < extent.count; ++i) {
          const DomainId domain{index(extent.first) + i};
          const fleet::Domain& row = topology.domain(domain);
          if (row.hosts == 1 && classes[index(topology.class_of(row.first))] == 0) continue;
          if (found >= enough) {
            looked_everywhere_ = false;
            return;
          }
          found += look_at(domain, known, options.now_ms);
        }
      }
    }
  }
}

bool EvictionTable::look_at(DomainId domain, const std::vector<Known>& known, std::int64_t now_ms) {
  const fleet::Domain& row = inventory_.topology().domain(domain);
  const std::size_t before = units_.size();
  for (std::uint32_t i = 0; i < row.hosts; ++i) {
    const HostId host{index(row.first) + i};
    std::vector<ShareHolder> shares;
    std::vector<const Known*> owners;
    for (const Inventory::Holder& holder : inventory_.host(host).holders) {
      const auto at = std::lower_bound(known.begin(), known.end(), holder.job,
                                       [](const Known& entry, std::int64_t job) { return entry.job < job; });
      if (at == known.end() || at->job != holder.job) continue;
      if (at->row->each.front().gpu_milli == 0) {
        add_ranks(host, *at, holder, now_ms);
        continue;
      }
      shares.push_back({.job = holder.job,
                        .share = at->row->each.front().gpu_milli,
                        .ranks = holder.ranks,
                        .gpus = holder.gpus});
      owners.push_back(&*at);
    }
    if (!shares.empty()) add_shares(host, shares, owners, now_ms);
  }
  return units_.size() > before;
}

void EvictionTable::add_ranks(HostId host, const Known& known, const Inventory::Holder& holder,
                              std::int64_t now_ms) {
  const Running& running = *known.row;
  const std::int64_t cost = rank_cost(running, 0, now_ms);
  std::uint32_t ranks = holder.ranks;
  GpuSet gpus = holder.gpus;
  for (const Slice& slice : running.leaving) {
    if (slice.host != host) continue;
    ranks -= std::min(ranks, static_cast<std::uint32_t>(slice.ranks));
    gpus &= ~slice.gpus;
  }
  if (ranks > kSingleRanksMax) {
    add_piece(host, running, known.role, ranks, gpus, cost);
    return;
  }
  for (; ranks > 0; --ranks) {
    const GpuSet mine = lowest_bits(gpus, running.each.front().gpus);
    gpus &= ~mine;
    add_piece(host, running, known.role, 1, mine, cost);
  }
}

// What gangs and leaving ranks hold of the GPUs is known; the rest is divided among the others.
void EvictionTable::add_shares(HostId host, std::vector<ShareHolder>& shares,
                               const std::vector<const Known*>& owners, std::int64_t now_ms) {
  std::array<std::int64_t, fleet::kGpusPerHostMax> used{};
  const auto free = inventory_.gpu_free(host);
  for (std::size_t gpu = 0; gpu < free.size(); ++gpu) used[gpu] = kGpuMilli - free[gpu];
  const auto first = std::lower_bound(known_shares_.begin(), known_shares_.end(), KnownShare{host, 0, 0});
  for (auto at = first; at != known_shares_.end() && at->host == host; ++at)
    used[static_cast<std::size_t>(at->gpu)] -= at->share;
  for (std::size_t i = 0; i < shares.size(); ++i) {
    for (const Slice& slice : owners[i]->row->leaving) {
      if (slice.host != host) continue;
      shares[i].ranks -= std::min(shares[i].ranks, static_cast<std::uint32_t>(slice.ranks));
      shares[i].known |= slice.gpus;
    }
  }
  divide_shares(inventory_, host, used, shares);
  for (std::size_t i = 0; i < shares.size(); ++i) {
    const std::int64_t cost = rank_cost(*owners[i]->row, 0, now_ms);
    for (std::size_t gpu = 0; gpu < free.size(); ++gpu) {
      for (std::uint32_t n = 0; n < shares[i].counts[gpu]; ++n)
        add_piece(host, *owners[i]->row, owners[i]->role, 1, GpuSet{1} << gpu, cost);
    }
  }
}

// Of what is in the table already: gangs, and ranks that leave.
void EvictionTable::list_known_shares() {
  for (const Entry& entry : entries_) {
    const std::int64_t share = units_[entry.unit].running->each[entry.group].gpu_milli;
    if (share > 0 && entry.gpus != 0)
      known_shares_.push_back({entry.host, std::countr_zero(entry.gpus), share});
  }
  std::sort(known_shares_.begin(), known_shares_.end());
}

void EvictionTable::file() {
  const auto& topology = inventory_.topology();
  std::uint32_t last = 0;
  std::vector<std::uint32_t> of(entries_.size());
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    of[i] = index(topology.domain_of(entries_[i].host));
    last = std::max(last, of[i] + 1);
  }
  domain_begin_.assign(last + 1, 0);
  for (const std::uint32_t domain : of) ++domain_begin_[domain + 1];
  for (std::uint32_t domain = 0; domain < last; ++domain) {
    if (domain_begin_[domain + 1] > 0) domains_.push_back(domain);
    domain_begin_[domain + 1] += domain_begin_[domain];
  }
  std::vector<std::uint32_t> next(domain_begin_.begin(), domain_begin_.end());
  domain_entries_.resize(entries_.size());
  for (std::uint32_t i = 0; i < entries_.size(); ++i) domain_entries_[next[of[i]]++] = i;
}

void EvictionTable::move(const Entry& entry, std::uint32_t ranks, GpuSet gpus, bool hold) {
  const Running& running = *units_[entry.unit].running;
  const Capacity& each = running.each[entry.group];
  if (hold) {
    inventory_.hold(entry.host, running.job, ranks, each, gpus);
  } else {
    inventory_.release(entry.host, running.job, ranks, each, gpus);
  }
}

void EvictionTable::move_unit(Unit& unit, bool hold) {
  for (std::uint32_t i = 0; i < unit.entries; ++i) {
    const Entry& entry = entries_[unit.first_entry + i];
    const UnitId id = entry.unit;
    move(entry, unit.running->gang ? entry.ranks : ranks_going(id),
         unit.running->gang ? entry.gpus : gpus_going(id), hold);
  }
}

void EvictionTable::evict(UnitId id) {
  Unit& unit = units_[id];
  CAPSTAN_ASSERT(!unit.evicted);
  move_unit(unit, false);
  unit.evicted = true;
}

void EvictionTable::restore(UnitId id) {
  Unit& unit = units_[id];
  CAPSTAN_ASSERT(unit.evicted);
  move_unit(unit, true);
  unit.evicted = false;
}

void EvictionTable::keep_ranks(UnitId id, std::uint32_t kept) {
  CAPSTAN_ASSERT(!units_[id].running->gang && !units_[id].evicted);
  units_[id].ranks_kept = kept;
}

std::uint32_t EvictionTable::ranks_going(UnitId id) const {
  return entries_[units_[id].first_entry].ranks - units_[id].ranks_kept;
}

GpuSet EvictionTable::gpus_going(UnitId id) const {
  const Unit& unit = units_[id];
  const Entry& entry = entries_[unit.first_entry];
  const Capacity& each = unit.running->each.front();
  return unit.ranks_kept == 0 ? entry.gpus : lowest_bits(entry.gpus, each.gpus * ranks_going(id));
}

std::int64_t EvictionTable::cost(UnitId id) const {
  const Unit& unit = units_[id];
  if (unit.running->gang) return unit.cost;
  return unit.cost / entries_[unit.first_entry].ranks * ranks_going(id);
}

}  // namespace capstan::scheduler
