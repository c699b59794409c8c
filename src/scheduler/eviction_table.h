// EvictionTable: what could be taken off an inventory, by unit and by domain; taken off and put back.
//
//   EvictionTable table(inventory, running, {.now_ms = now, .clusters = all, .role = role_of});
//   table.evict(unit);
//   … placer.place(inventory, request) …
//   table.restore(unit);
//
// A unit is what goes together: a gang, or ranks of a service or task array on one host. Preemption,
// explanations and defragmentation try things with it. The inventory is as it was once every unit is
// restored, and the destructor restores what is left.
//
// Cost: building is O(running gangs and their slices), and O(holders of the hosts in `clusters`) if work that
// is not a gang has a role; evict and restore are O(slices of the unit).  Memory: 32 bytes a slice.
// Threads: one owner.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "scheduler/gpu_shares.h"
#include "scheduler/inventory.h"
#include "scheduler/running.h"

namespace capstan::scheduler {

enum class Role : std::uint8_t {
  kStays,      // not in the table
  kLeaving,    // its room will be free soon
  kRemovable,  // may be evicted
};

class EvictionTable {
 public:
  using UnitId = std::uint32_t;
  struct Options {
    std::int64_t now_ms = 0;
    // Work that is not a gang is looked for on their hosts, of classes in question only.
    std::span<const fleet::ClusterId> clusters = {};
    std::span<const std::uint32_t> domains = {};  // further ones, looked at whatever their class
    std::function<bool(const fleet::HostClass&)> in_question = {};
    std::size_t domains_enough =
        SIZE_MAX;  // stop looking after so many domains that have some, if none of it leaves
    std::function<Role(const Running&)> role = {};
    std::span<const std::int64_t> jobs = {};  // only these, ascending; empty: all
  };
  struct Entry {  // ranks of a unit on one host
    UnitId unit = 0;
    HostId host{};
    std::uint32_t ranks = 0;
    std::uint32_t group = 0;
    GpuSet gpus = 0;
  };
  struct Unit {
    const Running* running = nullptr;  // not owned
    Role role = Role::kStays;
    std::uint32_t first_entry = 0;
    std::uint32_t entries = 0;
    std::uint32_t ranks_kept = 0;  // of work that is not a gang: so many stay when it is evicted
    bool evicted = false;
    std::int64_t cost = 0;  // of all its ranks, in GPU-milliseconds
  };

  EvictionTable(Inventory& inventory, const RunningJobs& running, const Options& options);
  ~EvictionTable();
  EvictionTable(const EvictionTable&) = delete;
  EvictionTable& operator=(const EvictionTable&) = delete;

  const fleet::Topology& topology() const { return inventory_.topology(); }
  std::size_t units() const { return units_.size(); }
  const Unit& unit(UnitId id) const { return units_[id]; }
  std::span<const Entry> entries(UnitId id) const;
  // Indices into all_entries of what is in the domain, units together.
  std::span<const std::uint32_t> in_domain(std::uint32_t domain) const;
  const Entry& entry(std::uint32_t at) const { return entries_[at]; }
  // Domains that hold something removable, ascending.
  std::span<const std::uint32_t> domains() const { return domains_; }
  bool looked_everywhere() const { return looked_everywhere_; }

  void evict(UnitId id);
  void restore(UnitId id);
  // Of work that is not a gang and is not evicted now: all but `kept` of its ranks will go.
  void keep_ranks(UnitId id, std::uint32_t kept);
  // Only what is in this entry, and back: for a look at one domain.
  void release(const Entry& entry) { move(entry, entry.ranks, entry.gpus, false); }
  void hold(const Entry& entry) { move(entry, entry.ranks, entry.gpus, true); }
  // Cost of what really goes.
  std::int64_t cost(UnitId id) const;
  std::uint32_t ranks_of(UnitId id) const { return entries_[units_[id].first_entry].ranks; }  // of no gang
  std::uint32_t ranks_going(UnitId id) const;
  GpuSet gpus_going(UnitId id) const;  // of work that is not a gang

 private:
  struct Known {
    std::int64_t job = 0;
    const Running* row = nullptr;
    Role role = Role::kStays;
  };
  void add_row(const Running& row, const Options& options, std::vector<Known>& scattered);
  void add_gang(const Running& running, Role role, std::int64_t now_ms);
  void add_leaving(const Running& running);
  void add_piece(HostId host, const Running& running, Role role, std::uint32_t ranks, GpuSet gpus,
                 std::int64_t cost);
  struct KnownShare {
    HostId host{};
    int gpu = 0;
    std::int64_t share = 0;
    friend auto operator<=>(const KnownShare&, const KnownShare&) = default;
  };
  void add_ranks(HostId host, const Known& known, const Inventory::Holder& holder, std::int64_t now_ms);
  void add_shares(HostId host, std::vector<ShareHolder>& shares, const std::vector<const Known*>& owners,
                  std::int64_t now_ms);
  void list_known_shares();
  void look_through(const std::vector<Known>& known, const Options& options);
  bool look_at(fleet::DomainId domain, const std::vector<Known>& known, std::int64_t now_ms);
  void file();
  void move(const Entry& entry, std::uint32_t ranks, GpuSet gpus, bool hold);
  void move_unit(Unit& unit, bool hold);

  Inventory& inventory_;
  std::vector<Unit> units_;
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> domain_begin_;  // of each domain, in domain_entries_
  std::vector<std::uint32_t> domain_entries_;
  std::vector<std::uint32_t> domains_;
  std::vector<KnownShare> known_shares_;  // ascending
  bool looked_everywhere_ = true;
};

}  // namespace capstan::scheduler
