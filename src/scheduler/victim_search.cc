// How it works: areas (clusters, say) are ordered by an estimate of what they would cost. In an area, the
// domains that look cheapest are weighed exactly: which of their units must go so that one more segment fits.
// The cheapest is taken, its gangs vanish everywhere, and so on until the area has enough. Then every unit
// that is not needed comes back, dearest first. Both measures are tried in the best areas; the cheapest
// outcome stands.
#include "scheduler/victim_search.h"

#include <algorithm>
#include <queue>

#include "base/assert.h"
#include "scheduler/preemption.h"

namespace capstan::scheduler {
namespace {

constexpr std::int64_t kTriesMax = 8'192;  // subsets that one search looks at in all

}  // namespace

void VictimSearch::touch(UnitId unit) {
  std::uint32_t last = UINT32_MAX;
  const auto& topology = table_.topology();
  for (const auto& entry : table_.entries(unit)) {
    const std::uint32_t domain = index(topology.domain_of(entry.host));
    if (domain != last) room_.update(domain);
    last = domain;
  }
}

void VictimSearch::evict(UnitId unit) {
  table_.evict(unit);
  touch(unit);
}

void VictimSearch::restore(UnitId unit) {
  table_.restore(unit);
  touch(unit);
}

std::int64_t VictimSearch::cost() const {
  std::int64_t sum = 0;
  for (const UnitId unit : evicted_) sum += table_.cost(unit);
  return sum;
}

void VictimSearch::undo() {
  for (const UnitId unit : evicted_) {
    restore(unit);
    if (!table_.unit(unit).running->gang) table_.keep_ranks(unit, 0);
  }
  evicted_.clear();
}

bool VictimSearch::run() {
  if (room_.met()) return true;
  struct Outcome {
    std::int64_t cost = 0;
    std::vector<std::pair<UnitId, std::uint32_t>> units;  // with what they keep
  };
  std::optional<Outcome> best;
  tries_left_ = kTriesMax;
  const bool one = room_.goal().need == 1;
  for (const Measure measure : {Measure::kWhole, Measure::kShare}) {
    if (one && best) break;  // the whole cost is what counts
    std::size_t tried = 0;
    for (const Area& area : areas(measure)) {
      if (fill(area, measure)) {
        drop_needless();
        ++tried;
        if (const std::int64_t now = cost(); !best || now < best->cost) {
          best = Outcome{.cost = now, .units = {}};
          for (const UnitId unit : evicted_) best->units.emplace_back(unit, table_.unit(unit).ranks_kept);
        }
      }
      undo();
      if (tried >= kAreasTried) break;
    }
    if (!best) return false;
  }
  for (const auto& [unit, kept] : best->units) {
    if (kept > 0) table_.keep_ranks(unit, kept);
    evict(unit);
    evicted_.push_back(unit);
  }
  CAPSTAN_ASSERT(room_.met());
  return true;
}

// What a segment more would cost here, roughly.
std::optional<VictimSearch::Item> VictimSearch::estimate(std::uint32_t domain, Measure measure) const {
  const std::int64_t segment = room_.goal().segment, fit = room_.fit(domain);
  // Work that goes makes room for at most so much on its host, or on another that may then leave the spares.
  const std::int64_t each = room_.most_in(domain);
  if (each == 0) return std::nullopt;
  std::int64_t cost = 0, most = 0;
  UnitId last = UINT32_MAX;
  for (const std::uint32_t at : table_.in_domain(domain)) {
    const auto& entry = table_.entry(at);
    const auto& unit = table_.unit(entry.unit);
    if (unit.role != Role::kRemovable || unit.evicted) continue;
    most += each;
    if (measure == Measure::kShare) {
      cost += unit.cost / std::max<std::uint32_t>(unit.entries, 1);
    } else if (entry.unit != last) {
      cost += unit.cost;
    }
    last = entry.unit;
  }
  std::int64_t gain = (fit + most) / segment - fit / segment;
  const std::int64_t short_last = room_.goal().short_last;
  if (short_last > 0 && fit % segment < short_last && (fit + most) % segment >= short_last) ++gain;
  if (gain == 0) return std::nullopt;
  const std::int64_t short_of = room_.next_step(domain) - fit;
  const std::int64_t scaled =
      most > short_of ? static_cast<std::int64_t>(static_cast<__int128>(cost) * short_of / most) : cost;
  return Item{scaled, domain, gain};
}

std::vector<VictimSearch::Area> VictimSearch::areas(Measure measure) const {
  std::vector<std::vector<Item>> items(room_.areas());
  for (const std::uint32_t domain : table_.domains()) {
    const std::uint32_t area = room_.area_of(domain);
    if (area == GoalRoom::kNoArea) continue;
    if (const auto item = estimate(domain, measure)) items[area].push_back(*item);
  }
  std::vector<Area> out;
  for (std::uint32_t area = 0; area < items.size(); ++area) {
    if (items[area].empty()) continue;
    std::sort(items[area].begin(), items[area].end());
    Area row{.cost = 0, .area = area, .items = std::move(items[area])};
    std::int64_t missing = room_.missing(area);
    __int128 sum = 0;
    for (const Item& item : row.items) {
      if (missing <= 0) break;
      const std::int64_t gain = std::min(missing, item.gain_most);
      sum += static_cast<__int128>(item.cost) * gain;
      missing -= gain;
    }
    row.cost = static_cast<std::int64_t>(std::min<__int128>(sum, INT64_MAX));
    if (missing <= 0) out.push_back(std::move(row));
  }
  std::sort(out.begin(), out.end(), [](const Area& a, const Area& b) {
    return std::pair(a.cost, a.area) < std::pair(b.cost, b.area);
  });
  return out;
}

// Evicts in the area until it has enough; false: all of it does not suffice.
bool VictimSearch::fill(const Area& area, Measure measure) {
  struct Weighed {
    Item item;
    std::vector<UnitId> units;
    std::int64_t fit = 0;  // of the domain, when it was weighed
    bool operator<(const Weighed& other) const { return item > other.item; }  // the cheapest on top
  };
  std::priority_queue<Weighed> heap;
  std::size_t next = 0;
  const auto push = [&](std::uint32_t domain) {
    const bool last = room_.missing(area.area) == 1 && measure == Measure::kWhole;
    if (auto choice = weigh(domain, measure, last))
      heap.push({{choice->cost, domain, 0}, std::move(choice->units), room_.fit(domain)});
  };
  // Enough candidates: those that are missing and some more.
  const auto enough = [&] { return kDomainsWeighed + static_cast<std::size_t>(room_.missing(area.area)); };
  // A shorter last segment makes domains useful that were not before: then all are looked at once more.
  std::size_t restarted = 0;
  bool at_last = room_.missing(area.area) == 1;
  while (room_.missing(area.area) > 0) {
    if (!at_last && room_.missing(area.area) == 1 && room_.goal().short_last > 0) {
      at_last = true;
      heap = {};
      next = 0;
    }
    while (next < area.items.size() && heap.size() < enough()) push(area.items[next++].domain);
    if (heap.empty() && room_.goal().short_last > 0 && evicted_.size() > restarted) {
      restarted = evicted_.size();
      next = 0;
      continue;
    }
    if (heap.empty()) return false;
    Weighed top = heap.top();
    heap.pop();
    // What was evicted since may have made it cheaper or superfluous.
    bool stale = room_.fit(top.item.domain) != top.fit;
    for (const UnitId unit : top.units) stale = stale || table_.unit(unit).evicted;
    if (stale) {
      push(top.item.domain);
      continue;
    }
    for (const UnitId unit : top.units) {
      evict(unit);
      evicted_.push_back(unit);
    }
    if (room_.missing(area.area) > 0) push(top.item.domain);
  }
  return true;
}

std::vector<VictimSearch::Part> VictimSearch::parts_of(std::uint32_t domain, Measure measure) const {
  std::vector<Part> parts;
  for (const std::uint32_t at : table_.in_domain(domain)) {
    const auto& entry = table_.entry(at);
    const auto& unit = table_.unit(entry.unit);
    if (unit.role != Role::kRemovable || unit.evicted) continue;
    const std::int64_t share = unit.cost / std::max<std::uint32_t>(unit.entries, 1);
    if (!parts.empty() && parts.back().unit == entry.unit) {
      if (measure == Measure::kShare) parts.back().cost += share;
    } else {
      parts.push_back({entry.unit, measure == Measure::kShare ? share : unit.cost, 0, false});
    }
    parts.back().most += std::max<std::int64_t>(room_.most(entry.host), 1);
  }
  return parts;
}

void VictimSearch::move(std::uint32_t domain, UnitId unit, bool hold) {
  for (const std::uint32_t at : table_.in_domain(domain)) {
    const auto& entry = table_.entry(at);
    if (entry.unit != unit) continue;
    if (hold) {
      table_.hold(entry);
    } else {
      table_.release(entry);
    }
  }
}

// Which units must go so that the domain takes one segment more; nullopt: none would do.
std::optional<VictimSearch::Choice> VictimSearch::weigh(std::uint32_t domain, Measure measure,
                                                        bool exhaustive) {
  std::vector<Part> parts = parts_of(domain, measure);
  if (parts.empty()) return std::nullopt;
  const std::int64_t target = room_.next_step(domain);
  // Cheapest for what they hold first.
  std::sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) {
    const auto left = static_cast<__int128>(a.cost) * b.most, right = static_cast<__int128>(b.cost) * a.most;
    return left != right ? left < right : a.unit < b.unit;
  });
  std::int64_t most = room_.fit(domain), fit = 0;
  std::size_t out = 0;
  while (out < parts.size() && fit < target) {
    move(domain, parts[out].unit, false);
    parts[out].out = true;
    most += parts[out++].most;
    if (most >= target || out == parts.size()) fit = room_.fit_now(domain);
  }
  std::optional<Choice> choice;
  if (fit >= target) {
    choice.emplace();
    for (std::size_t i = out; i-- > 0;) {  // back with those that the last ones made needless
      if (out == 1) break;
      move(domain, parts[i].unit, true);
      parts[i].out = room_.fit_now(domain) < target;
      if (parts[i].out) move(domain, parts[i].unit, false);
    }
  }
  for (Part& part : parts) {
    if (!part.out) continue;
    move(domain, part.unit, true);
    if (!choice) continue;
    choice->cost += part.cost;
    choice->units.push_back(part.unit);
  }
  if (choice && exhaustive && parts.size() > 1 && parts.size() <= kExhaustiveUnits) {
    std::sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) {
      return std::pair(a.cost, a.unit) < std::pair(b.cost, b.unit);
    });
    for (Part& part : parts) part.out = false;
    try_all(domain, parts, 0, 0, target, *choice);
  }
  return choice;
}

// Every set of parts[from …] on top of what is out, as long as it is cheaper than the best.
void VictimSearch::try_all(std::uint32_t domain, std::vector<Part>& parts, std::size_t from,
                           std::int64_t cost, std::int64_t target, Choice& best) {
  for (std::size_t i = from; i < parts.size() && tries_left_ > 0; ++i) {
    if (cost + parts[i].cost >= best.cost) return;  // ascending: so are all that follow
    --tries_left_;
    move(domain, parts[i].unit, false);
    parts[i].out = true;
    if (room_.fit_now(domain) >= target) {
      best = {.cost = cost + parts[i].cost, .units = {}};
      for (const Part& part : parts) {
        if (part.out) best.units.push_back(part.unit);
      }
    } else {
      try_all(domain, parts, i + 1, cost + parts[i].cost, target, best);
    }
    move(domain, parts[i].unit, true);
    parts[i].out = false;
  }
}

// Dearest first, everything that may stay stays.
void VictimSearch::drop_needless() {
  std::vector<UnitId> order = evicted_;
  std::sort(order.begin(), order.end(), [&](UnitId a, UnitId b) {
    return std::pair(-table_.cost(a), a) < std::pair(-table_.cost(b), b);
  });
  std::vector<UnitId> kept;
  for (const UnitId unit : order) {
    restore(unit);
    if (room_.met()) {
      kept.push_back(unit);
      continue;
    }
    if (table_.ranks_of(unit) > 1 && !table_.unit(unit).running->gang) {
      shrink(unit);
    } else {
      evict(unit);
    }
  }
  std::sort(kept.begin(), kept.end());
  std::erase_if(evicted_, [&](UnitId unit) { return std::binary_search(kept.begin(), kept.end(), unit); });
}

// Evicts as few ranks of it as suffice: more never hurt, so halving finds the number.
void VictimSearch::shrink(UnitId unit) {
  const std::uint32_t ranks = table_.ranks_of(unit);
  std::uint32_t low = 0, high = ranks;  // low do not suffice, high do
  while (high - low > 1) {
    const std::uint32_t middle = low + (high - low) / 2;
    table_.keep_ranks(unit, ranks - middle);
    evict(unit);
    const bool enough = room_.met();
    restore(unit);
    (enough ? high : low) = middle;
  }
  table_.keep_ranks(unit, ranks - high);
  evict(unit);
}

}  // namespace capstan::scheduler
