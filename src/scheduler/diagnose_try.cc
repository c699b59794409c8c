// How it works: work is taken off the inventory through an EvictionTable and put back; changed requests are
// simply placed. A cheap sum (GoalRoom) goes before every placement that would need an index which is not
// there yet.
#include "scheduler/diagnose_try.h"

#include <algorithm>

#include "scheduler/eviction_table.h"
#include "scheduler/goal_room.h"
#include "scheduler/preemption.h"

namespace capstan::scheduler {
namespace {

using Kind = Suggestion::Kind;
using UnitId = EvictionTable::UnitId;

constexpr std::size_t kPlacedEnds = 16;  // placements tried where sums do not decide (several groups)

// When its room will be free; INT64_MAX: unknown.
std::int64_t end_of(const Running& row, std::int64_t now_ms) {
  if (row.stopping) return now_ms + row.grace_ms;
  return std::max(row.ends_by_ms, now_ms);
}

class Try {
 public:
  Try(Inventory& inventory, Placer& placer, const Request& request, EvictionTable& table, GoalRoom& room,
      std::int64_t now_ms)
      : inventory_(inventory),
        placer_(placer),
        request_(request),
        table_(table),
        room_(room),
        now_ms_(now_ms) {}

  // Known ends in their order, until it fits.
  void ends(Diagnosis& out) {
    std::vector<std::pair<std::int64_t, UnitId>> ends;  // units are in order of job
    for (UnitId unit = 0; unit < table_.units(); ++unit) {
      const auto& row = table_.unit(unit);
      const bool leaving = row.role == Role::kLeaving;
      const std::int64_t end = leaving ? now_ms_ + row.running->grace_ms : end_of(*row.running, now_ms_);
      if (end == INT64_MAX || !matters(unit)) continue;
      ends.emplace_back(end, unit);
    }
    const std::size_t count = std::min(ends.size(), kEndsMax);
    std::partial_sort(ends.begin(), ends.begin() + static_cast<std::ptrdiff_t>(count), ends.end());
    std::size_t placed = 0, gone = 0;
    for (; gone < count && !out.starts_ms && placed < kPlacedEnds; ++gone) {
      move(ends[gone].second, true);
      if (!room_.met()) continue;
      ++placed;
      if (!placer_.place(inventory_, request_)) continue;
      out.starts_ms = ends[gone].first;
      const auto& last = table_.unit(ends[gone].second);
      out.starts_after = last.running->job;
      out.ends_by_stopping = last.role == Role::kLeaving || last.running->stopping;
    }
    for (std::size_t i = 0; i < gone; ++i) move(ends[i].second, false);
  }

  // The holders that would make the room alone, the cheapest to stop.
  void stops(Diagnosis& out) {
    std::int64_t best_cost = 0, best_job = 0;
    bool found = false;
    for (const HolderHere& holder : out.holders) {
      std::vector<UnitId> units;
      std::int64_t cost = 0;
      for (auto at = std::lower_bound(by_job_.begin(), by_job_.end(), std::pair(holder.job, UnitId{0}));
           at != by_job_.end() && at->first == holder.job; ++at) {
        units.push_back(at->second);
        cost += table_.cost(at->second);
      }
      if (units.empty() || table_.unit(units.front()).running->stopping || (found && best_cost <= cost))
        continue;
      for (const UnitId unit : units) move(unit, true);
      if (room_.met() && placer_.place(inventory_, request_)) {
        found = true;
        best_cost = cost;
        best_job = holder.job;
      }
      for (const UnitId unit : units) move(unit, false);
    }
    if (found) out.suggestions.push_back({Kind::kStopJob, best_job});
  }

  void index_units() {
    for (UnitId unit = 0; unit < table_.units(); ++unit)
      by_job_.emplace_back(table_.unit(unit).running->job, unit);
    std::sort(by_job_.begin(), by_job_.end());
  }

 private:
  bool matters(UnitId unit) const {
    for (const auto& entry : table_.entries(unit)) {
      if (room_.most(entry.host) > 0) return true;
    }
    return false;
  }

  void move(UnitId unit, bool out) {
    if (out) {
      table_.evict(unit);
    } else {
      table_.restore(unit);
    }
    std::uint32_t last = UINT32_MAX;
    for (const auto& entry : table_.entries(unit)) {
      const std::uint32_t domain = index(table_.topology().domain_of(entry.host));
      if (domain != last) room_.update(domain);
      last = domain;
    }
  }

  Inventory& inventory_;
  Placer& placer_;
  const Request& request_;
  EvictionTable& table_;
  GoalRoom& room_;
  std::int64_t now_ms_;
  std::vector<std::pair<std::int64_t, UnitId>> by_job_;
};

bool places(Inventory& inventory, Placer& placer, const Request& request) {
  return placer.place(inventory, request).has_value();
}

void suggest_segment(Inventory& inventory, Placer& placer, const Request& request, Diagnosis& out) {
  const std::size_t which = out.refusal.group;
  const std::int64_t segment = request.groups[which].segment;
  if (segment <= 1 || request.required == Level::kDomain || request.required == Level::kHost) return;
  for (std::int64_t smaller = (segment + 1) / 2;; smaller = (smaller + 1) / 2) {
    Request changed = request;
    changed.groups[which].segment = smaller;
    const GoalRoom room(inventory, placer, goal_of(changed, which),
                        clusters_of(inventory.topology(), changed));
    if (room.met() && places(inventory, placer, changed)) {
      out.suggestions.push_back({Kind::kSegment, smaller});
      return;
    }
    if (smaller == 1) return;
  }
}

void suggest_level(Inventory& inventory, Placer& placer, const Request& request, Diagnosis& out) {
  for (const Level level : {Level::kDomain, Level::kBlock, Level::kCluster, Level::kNone}) {
    const bool looser =
        request.required != Level::kNone &&
        (level == Level::kNone || static_cast<int>(level) > static_cast<int>(request.required));
    if (!looser) continue;
    Request changed = request;
    changed.required = level;
    const GoalRoom room(inventory, placer, goal_of(changed, 0), clusters_of(inventory.topology(), changed));
    if (!room.met() || !places(inventory, placer, changed)) continue;
    out.suggestions.push_back({Kind::kLevel, static_cast<std::int64_t>(level)});
    return;
  }
}

}  // namespace

void suggest(Inventory& inventory, Placer& placer, const Request& request, Diagnosis& out) {
  if (out.refusal.reason == Reason::kNoHosts) return;
  const std::size_t which = out.refusal.group;
  const Group& group = request.groups[which];
  Request changed = request;
  if (group.ranks > 1 && request.required != Level::kHost) {
    std::int64_t ranks = placer.available(inventory, request, which);
    if (out.need == 1 && out.domain) ranks = std::max(ranks, out.domain->fits);
    ranks = std::min(ranks, group.ranks - 1);
    changed.groups[which].ranks = ranks;
    changed.groups[which].ranks_min = 0;
    if (ranks > 0 && places(inventory, placer, changed)) out.suggestions.push_back({Kind::kRanks, ranks});
  }
  suggest_segment(inventory, placer, request, out);
  suggest_level(inventory, placer, request, out);
  const auto without = [&](Kind kind, bool asked, auto drop) {
    if (!asked) return;
    Request freer = request;
    drop(freer);
    if (places(inventory, placer, freer)) out.suggestions.push_back({kind, 0});
  };
  without(Kind::kAnyGpuModel, !group.shape.gpu_model.empty(),
          [&](Request& freer) { freer.groups[which].shape.gpu_model.clear(); });
  without(Kind::kAnyHostClass, !group.shape.host_class.empty(),
          [&](Request& freer) { freer.groups[which].shape.host_class.clear(); });
  without(Kind::kAnyPlace, !request.cluster.empty() || !request.region.empty(), [&](Request& freer) {
    freer.cluster.clear();
    freer.region.clear();
  });
}

void suggest_uncordon(Inventory& inventory, Placer& placer, const Request& request,
                      const std::vector<HostId>& cordoned, Diagnosis& out) {
  if (cordoned.empty()) return;
  for (const HostId host : cordoned) inventory.set_cordoned(host, false);
  std::vector<HostId> needed;
  if (places(inventory, placer, request)) {
    for (const HostId host : cordoned) {  // back with each that is not needed
      inventory.set_cordoned(host, true);
      if (places(inventory, placer, request)) continue;
      inventory.set_cordoned(host, false);
      needed.push_back(host);
    }
  }
  for (const HostId host : cordoned) inventory.set_cordoned(host, true);
  if (!needed.empty()) out.suggestions.push_back({Kind::kUncordon, 0, needed});
}

namespace {

// The jobs that are worth taking off: those that end first, as far as is known, on hosts in question, and the holders that
// are to be named. Ascending.
std::vector<std::int64_t> jobs_to_try(const RunningJobs& running, const GoalRoom& room, const Diagnosis& out,
                                      std::int64_t now_ms) {
  std::vector<std::pair<std::int64_t, std::int64_t>> ends;
  std::vector<std::int64_t> jobs;
  for (const auto& [job, entry_row] : running.entries()) {
    if (entry_row == nullptr) continue;
    const Running& row = *entry_row;
    if (!row.leaving.empty()) jobs.push_back(job);
    const std::int64_t end = end_of(row, now_ms);
    if (end == INT64_MAX) continue;
    const auto in_question = [&](const Slice& slice) { return room.most(slice.host) > 0; };
    if (!row.gang || std::any_of(row.slices.begin(), row.slices.end(), in_question)) ends.emplace_back(end, job);
  }
  const std::size_t count = std::min(ends.size(), kEndsMax);
  std::partial_sort(ends.begin(), ends.begin() + static_cast<std::ptrdiff_t>(count), ends.end());
  for (std::size_t i = 0; i < count; ++i) jobs.push_back(ends[i].second);
  for (const HolderHere& holder : out.holders) jobs.push_back(holder.job);
  std::sort(jobs.begin(), jobs.end());
  jobs.erase(std::unique(jobs.begin(), jobs.end()), jobs.end());
  return jobs;
}

}  // namespace

void try_ends_and_stops(Inventory& inventory, Placer& placer, const RunningJobs& running,
                        const Request& request, const std::vector<std::uint32_t>& near, std::int64_t now_ms,
                        Diagnosis& out) {
  GoalRoom room(inventory, placer, goal_of(request, out.refusal.group),
                clusters_of(inventory.topology(), request));
  const std::vector<std::int64_t> jobs = jobs_to_try(running, room, out, now_ms);
  if (jobs.empty()) return;
  EvictionTable table(inventory, running,
                      {.now_ms = now_ms,
                       .domains = near,
                       .role = [](const Running&) { return Role::kRemovable; },
                       .jobs = jobs});
  Try attempt(inventory, placer, request, table, room, now_ms);
  attempt.index_units();
  attempt.ends(out);
  attempt.stops(out);
}

}  // namespace capstan::scheduler
