// How it works: every choice lists the domains with room anew, sorts them by the order of the policy and
// takes the first that will do.
#include "scheduler/place_among.h"

#include <algorithm>
#include <map>

#include "base/assert.h"
#include "scheduler/place_groups.h"

namespace capstan::scheduler {
namespace {

using fleet::BlockId;
using fleet::ClusterId;
using fleet::RegionId;

// A domain with room.
struct Row {
  int key = 0;
  std::uint32_t domain = 0;
  std::int64_t fit = 0;
  std::uint32_t block = 0;
  std::uint32_t cluster = 0;
  std::uint32_t region = 0;
  friend bool operator<(const Row& a, const Row& b) {
    return std::pair(a.key, a.domain) < std::pair(b.key, b.domain);
  }
};
using Rows = std::vector<Row>;

struct Share {
  std::uint32_t block = 0;
  std::int64_t segments = 0;
};

// The smallest block that takes the rest, else the largest, and so on; empty if they do not suffice.
std::vector<Share> share_blocks(std::map<std::uint32_t, std::int64_t> blocks, std::int64_t need) {
  std::vector<Share> out;
  while (need > 0) {
    auto best = blocks.end();
    for (auto at = blocks.begin(); at != blocks.end(); ++at) {
      if (at->second == 0) continue;
      if (best == blocks.end()) {
        best = at;
        continue;
      }
      const bool takes = at->second >= need, best_takes = best->second >= need;
      if (takes != best_takes ? takes : takes ? at->second < best->second : at->second > best->second)
        best = at;
    }
    if (best == blocks.end()) return {};
    out.push_back({best->first, std::min(need, best->second)});
    need -= out.back().segments;
    blocks.erase(best);
  }
  return out;
}

class SortingChooser : public DomainChooser {
 public:
  SortingChooser(const Inventory& inventory, const HostFilter& filter)
      : inventory_(inventory), filter_(filter) {
    const auto& topology = inventory.topology();
    if (filter.only != nullptr) {
      for (const HostId host : *filter.only) domains_.push_back(index(topology.domain_of(host)));
      domains_.erase(std::unique(domains_.begin(), domains_.end()), domains_.end());
    } else {
      for (std::uint32_t i = 0; i < topology.domains(); ++i) domains_.push_back(i);
    }
  }

  std::optional<Parts> choose(const Group& group, Level required,
                              const std::vector<ClusterId>& clusters) override {
    const Rows rows = rows_of(group.shape, clusters);
    const bool one_domain = required == Level::kDomain || segments_of(group) == 1;
    if (one_domain || group.segment == 0) {
      for (const Row& row : rows) {
        if (row.fit >= group.ranks) return Parts{{row.domain, group.ranks}};
      }
      if (one_domain) return std::nullopt;
    }
    const std::int64_t segment = std::max<std::int64_t>(group.segment, 1), need = segments_of(group);
    const auto shares = choose_blocks(rows, segment, need, required);
    if (shares.empty()) return group.ranks % segment == 0 ? std::nullopt : choose_tail(rows, group, required);
    std::map<std::uint32_t, std::int64_t> taken;  // segments of each domain
    for (const Share& share : shares) {
      Rows here;
      for (const Row& row : rows) {
        if (row.block == share.block) here.push_back(row);
      }
      if (segment > 1) {
        take_segments(here, segment, share.segments, taken);
      } else {
        take_ranks(here, share.segments, taken);
      }
    }
    Parts parts;
    std::int64_t rest = group.ranks;
    for (const auto& [domain, segments] : taken) {
      parts.push_back({domain, std::min(rest, segments * segment)});
      rest -= parts.back().ranks;
    }
    return parts;
  }

  std::int64_t available(const Group& group, Level required,
                         const std::vector<ClusterId>& clusters) override {
    const std::int64_t segment = std::max<std::int64_t>(group.segment, 1);
    std::map<std::uint32_t, std::int64_t> sums;
    std::int64_t best = 0;
    for (const Row& row : rows_of(group.shape, clusters)) {
      std::int64_t& sum = sums[area_of(row, required == Level::kHost ? Level::kDomain : required)];
      sum += row.fit / segment;
      best = std::max(best, sum);
    }
    return best * segment;
  }

  void fill(const Shape& shape, const Part& part, std::vector<Slice>& out) override {
    fill_domain(inventory_, DomainId(part.domain), shape, ClassMask(inventory_.topology(), shape), filter_,
                part.ranks, out);
  }

  // In the order of best fit.
  Rows rows_of(const Shape& shape, const std::vector<ClusterId>& clusters) const {
    const auto& topology = inventory_.topology();
    const ClassMask mask(topology, shape);
    Rows rows;
    for (const std::uint32_t domain : domains_) {
      const BlockId block = topology.domain(DomainId(domain)).block;
      const ClusterId cluster = topology.block(block).cluster;
      if (!std::binary_search(clusters.begin(), clusters.end(), cluster)) continue;
      const std::int64_t fit = domain_fit(inventory_, DomainId(domain), shape, mask, filter_);
      if (fit == 0) continue;
      rows.push_back({domain_key(inventory_, DomainId(domain), shape, fit), domain, fit, index(block),
                      index(cluster), index(topology.cluster(cluster).region)});
    }
    std::sort(rows.begin(), rows.end());
    return rows;
  }

 private:
  static std::uint32_t area_of(const Row& row, Level level) {
    switch (level) {
      case Level::kDomain:
        return row.domain;
      case Level::kBlock:
        return row.block;
      case Level::kCluster:
        return row.cluster;
      case Level::kRegion:
        return row.region;
      default:
        return 0;
    }
  }

  static std::vector<Share> choose_blocks(const Rows& rows, std::int64_t segment, std::int64_t need,
                                          Level required) {
    std::map<std::uint32_t, std::map<std::uint32_t, std::int64_t>> clusters;  // segments of each block
    std::map<std::uint32_t, std::int64_t> room;                               // of each cluster
    std::map<std::uint32_t, std::vector<std::pair<std::int64_t, std::uint32_t>>> areas;
    std::map<std::uint32_t, std::uint32_t> region_of;
    for (const Row& row : rows) {
      clusters[row.cluster][row.block] += row.fit / segment;
      room[row.cluster] += row.fit / segment;
      region_of[row.cluster] = row.region;
    }
    std::vector<Share> best;
    std::int64_t best_left = 0;
    for (const auto& [cluster, blocks] : clusters) {
      auto shares = share_blocks(blocks, need);
      if (shares.empty() || (required == Level::kBlock && shares.size() > 1)) continue;
      const std::int64_t left = room[cluster] - need;
      if (!best.empty() && std::pair(best.size(), best_left) <= std::pair(shares.size(), left)) continue;
      best = std::move(shares);
      best_left = left;
    }
    if (!best.empty() || (required != Level::kNone && required != Level::kRegion)) return best;
    // Over several clusters: those with most room first.
    for (const auto& [cluster, segments] : room)
      areas[required == Level::kNone ? 0 : region_of[cluster]].emplace_back(-segments, cluster);
    for (auto& [area, order] : areas) {
      std::sort(order.begin(), order.end());
      std::int64_t rest = need;
      best.clear();
      for (const auto& [minus_room, cluster] : order) {
        const std::int64_t take = std::min(rest, -minus_room);
        if (take == 0) break;
        for (const Share& share : share_blocks(clusters[cluster], take)) best.push_back(share);
        rest -= take;
      }
      if (rest == 0) return best;
    }
    return {};
  }

  // The shorter last segment goes where whole ones leave just enough; they take all else that there is.
  static std::optional<Parts> choose_tail(const Rows& rows, const Group& group, Level required) {
    const std::int64_t whole = group.ranks / group.segment, tail = group.ranks % group.segment;
    std::vector<Level> levels = {required};
    if (required == Level::kRegion || required == Level::kNone)
      levels.insert(levels.begin(), Level::kCluster);
    for (const Level level : levels) {
      std::map<std::uint32_t, Rows> areas;
      for (const Row& row : rows) areas[area_of(row, level)].push_back(row);
      for (const auto& [area, here] : areas) {
        std::map<std::uint32_t, std::int64_t> taken;
        std::map<std::uint32_t, std::int64_t> of_block;
        std::int64_t sum = 0;
        for (const Row& row : here) {
          sum += row.fit / group.segment;
          of_block[row.block] += row.fit / group.segment;
          if (row.fit >= group.segment) taken[row.domain] = row.fit / group.segment * group.segment;
        }
        if (sum != whole) continue;
        // A block that is used already, the least room that takes it, the lowest id.
        std::vector<std::tuple<bool, std::int64_t, std::uint32_t>> order;
        for (const Row& row : here) {
          if (row.fit % group.segment >= tail)
            order.emplace_back(of_block[row.block] == 0, row.fit % group.segment, row.domain);
        }
        if (order.empty()) continue;
        const std::uint32_t last = std::get<2>(*std::min_element(order.begin(), order.end()));
        const std::int64_t with_tail = taken[last] + tail;
        taken.erase(last);
        Parts parts;
        for (const auto& [domain, ranks] : taken) parts.push_back({domain, ranks});
        parts.push_back({last, with_tail});
        return parts;
      }
    }
    return std::nullopt;
  }

  static void take_segments(const Rows& rows, std::int64_t segment, std::int64_t need,
                            std::map<std::uint32_t, std::int64_t>& taken) {
    for (const Row& row : rows) {
      const std::int64_t take = std::min(need, row.fit / segment);
      if (take > 0) taken[row.domain] = take;
      need -= take;
    }
    CAPSTAN_ASSERT(need == 0);
  }

  // The domain that the rest fits best; else the emptiest, and so on. Domains with GPUs come last for ranks
  // without.
  static void take_ranks(Rows rows, std::int64_t need, std::map<std::uint32_t, std::int64_t>& taken) {
    while (need > 0) {
      auto best = std::find_if(rows.begin(), rows.end(), [&](const Row& row) { return row.fit >= need; });
      if (best == rows.end()) {
        best = std::min_element(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
          const auto emptiest = [](const Row& row) {
            return std::pair(row.key < kKeyCpu ? -row.key : row.key, row.domain);
          };
          return emptiest(a) < emptiest(b);
        });
      }
      CAPSTAN_ASSERT(best != rows.end());
      taken[best->domain] = std::min(need, best->fit);
      need -= taken[best->domain];
      rows.erase(best);
    }
  }

  const Inventory& inventory_;
  HostFilter filter_;
  std::vector<std::uint32_t> domains_;
};

}  // namespace

Placed place_among(Inventory& inventory, const Request& request, const HostFilter& filter) {
  SortingChooser chooser(inventory, filter);
  return place_groups(inventory, request, clusters_allowed(inventory.topology(), request), chooser);
}

Placed place_some_among(Inventory& inventory, const Request& request, const HostFilter& filter) {
  CAPSTAN_ASSERT(request.groups.size() == 1);
  const Group& group = request.groups.front();
  SortingChooser chooser(inventory, filter);
  std::int64_t rest = group.shape.each.gpu_milli > 0 ? 1 : group.ranks;
  auto rows = chooser.rows_of(group.shape, clusters_allowed(inventory.topology(), request));
  std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
    const auto order = [](const Row& row) {
      return std::tuple(row.key >= kKeyCpu, row.cluster, row.key, row.domain);
    };
    return order(a) < order(b);
  });
  Placement out;
  out.group_ranks = {0};
  for (const Row& row : rows) {
    const std::int64_t take = std::min(rest, row.fit);
    if (take == 0) break;
    chooser.fill(group.shape, {row.domain, take}, out.slices);
    out.group_ranks.front() += take;
    rest -= take;
  }
  if (out.group_ranks.front() > 0) return out;
  return std::unexpected(Refusal{inventory.total() == Capacity{} ? Reason::kNoHosts : Reason::kBusy, 0});
}

Inventory idle_copy(const Inventory& inventory) {
  Inventory out;
  out.topology() = inventory.topology();
  out.sync();
  for (std::uint32_t host = 0; host < out.hosts(); ++host)
    out.set_health(HostId(host), fleet::Health::kHealthy);
  return out;
}

}  // namespace capstan::scheduler
