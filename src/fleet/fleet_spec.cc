// How it works: append makes the names of a block, then adds its domains; JSON mirrors the structs.
#include "fleet/fleet_spec.h"

#include <algorithm>
#include <map>

#include "base/text.h"

namespace capstan::fleet {
namespace {

constexpr std::size_t kHostNameMax = 63;

// "b##" and 7 give "b07"; a pattern without '#' gets the number appended if there are several.
std::string numbered(std::string_view pattern, std::int64_t number, std::int64_t count) {
  const std::size_t begin = pattern.find('#');
  if (begin == pattern.npos) return count > 1 ? std::string(pattern) + std::to_string(number) : std::string(pattern);
  std::size_t end = begin;
  while (end < pattern.size() && pattern[end] == '#') ++end;
  std::string digits = std::to_string(number);
  if (digits.size() < end - begin) digits.insert(0, end - begin - digits.size(), '0');
  return std::string(pattern.substr(0, begin)) + digits + std::string(pattern.substr(end));
}

// Counts of a file may multiply past what an integer holds; all that matters beyond the limit is that it is beyond.
std::int64_t product(std::int64_t a, std::int64_t b) {
  return static_cast<std::int64_t>(std::min<__int128>(static_cast<__int128>(a) * b, std::int64_t{1} << 60));
}
std::int64_t sum(std::int64_t a, std::int64_t b) { return std::min(a + b, std::int64_t{1} << 60); }

std::int64_t hosts_in(const BlockSpec& block) {
  std::int64_t hosts = 0;
  for (const auto& group : block.ultraservers) hosts = sum(hosts, product(group.count, group.trays));
  for (const auto& group : block.hosts) hosts = sum(hosts, group.count);
  return product(hosts, block.count);
}

// Numbers go on over the groups of a block that have the same pattern, so that names differ.
class Numbers {
 public:
  std::int64_t take(const std::string& pattern) { return next_[pattern]++; }

 private:
  std::map<std::string, std::int64_t> next_;
};

Result<ClassId> class_named(Topology& topology, const FleetSpec& spec, const std::string& name) {
  for (const HostClass& one : spec.classes) {
    if (one.name == name) return topology.intern(one);
  }
  return fail(Code::kInvalid, "host class {} is not described", name);
}

Result<void> add_block(Topology& topology, const FleetSpec& spec, const std::string& region,
                       const std::string& cluster, const std::string& name, const BlockSpec& block) {
  const BlockId id = topology.block(region, cluster, name);
  const std::string path = cluster + "-" + name + "-";
  Numbers numbers;
  for (const UltraServerGroup& group : block.ultraservers) {
    CAPSTAN_TRY(const ClassId host_class, class_named(topology, spec, group.host_class));
    for (std::int64_t i = 0; i < group.count; ++i) {
      const std::string domain = path + numbered(group.name, numbers.take(group.name), group.count + 1);
      if (domain.size() + 5 > kHostNameMax)
        return fail(Code::kInvalid, "{}-t00 is longer than {} characters", domain, kHostNameMax);
      std::vector<std::string> hosts;
      hosts.reserve(static_cast<std::size_t>(group.trays));
      for (std::int64_t tray = 0; tray < group.trays; ++tray)
        hosts.push_back(domain + (tray < 10 ? "-t0" : "-t") + std::to_string(tray));
      const auto added = topology.add_domain(
          id, {.name = domain, .spares = static_cast<std::uint16_t>(group.spares)}, host_class, std::move(hosts));
      if (!added) return std::unexpected(added.error());
    }
  }
  for (const HostGroup& group : block.hosts) {
    CAPSTAN_TRY(const ClassId host_class, class_named(topology, spec, group.host_class));
    for (std::int64_t i = 0; i < group.count; ++i) {
      std::string host = path + numbered(group.name, numbers.take(group.name), group.count + 1);
      if (host.size() > kHostNameMax)
        return fail(Code::kInvalid, "{} is longer than {} characters", host, kHostNameMax);
      if (const auto added = topology.add_host(id, host_class, std::move(host)); !added)
        return std::unexpected(added.error());
    }
  }
  return {};
}

Result<void> append_all(Topology& topology, const FleetSpec& spec) {
  for (const RegionSpec& region : spec.regions) {
    std::map<std::string, std::int64_t> cluster_next;
    for (const ClusterSpec& clusters : region.clusters) {
      for (std::int64_t c = 0; c < clusters.count; ++c) {
        const std::string cluster = numbered(clusters.name, cluster_next[clusters.name]++, clusters.count);
        std::map<std::string, std::int64_t> block_next;
        for (const BlockSpec& blocks : clusters.blocks) {
          for (std::int64_t b = 0; b < blocks.count; ++b) {
            const std::string name = numbered(blocks.name, block_next[blocks.name]++, blocks.count);
            CAPSTAN_CHECK(add_block(topology, spec, region.name, cluster, name, blocks));
          }
        }
      }
    }
  }
  return {};
}

Json to_json(const HostClass& one) {
  Json json = Json::object({{"name", one.name},
                            {"milli_cpus", one.capacity.milli_cpus},
                            {"memory_bytes", one.capacity.memory_bytes},
                            {"gpus", one.capacity.gpus},
                            {"gpu_model", one.gpu_model},
                            {"gpu_memory_bytes", one.gpu_memory_bytes},
                            {"fractional", one.fractional}});
  Json slices = Json::array();
  for (const std::int64_t slice : one.gpu_slices) slices.push_back(slice);
  if (!one.gpu_slices.empty()) json["gpu_slices"] = std::move(slices);
  return json;
}

template <class Items, class Put>
Json list(const Items& items, Put put) {
  Json out = Json::array();
  for (const auto& item : items) out.push_back(put(item));
  return out;
}

Json put_block(const BlockSpec& block) {
  return Json::object({{"name", block.name},
                       {"count", block.count},
                       {"ultraservers", list(block.ultraservers,
                                             [](const UltraServerGroup& group) {
                                               return Json::object({{"kind", group.kind},
                                                                    {"host_class", group.host_class},
                                                                    {"trays", group.trays},
                                                                    {"count", group.count},
                                                                    {"spares", group.spares},
                                                                    {"name", group.name}});
                                             })},
                       {"hosts", list(block.hosts, [](const HostGroup& group) {
                          return Json::object({{"class", group.host_class}, {"count", group.count}, {"name", group.name}});
                        })}});
}

// ---- reading: what does not fit is kCorrupt or kInvalid, with the member's name
Result<std::int64_t> number(const Json& json, std::string_view key, std::int64_t low, std::int64_t high) {
  const auto value = json.get_int(key);
  if (!value || *value < low || *value > high)
    return fail(Code::kInvalid, "'{}' must be an integer from {} to {}", key, low, high);
  return *value;
}

Result<std::string> word(const Json& json, std::string_view key) {
  const auto value = json.get_string(key);
  if (!value) return fail(Code::kInvalid, "'{}' must be a string", key);
  return *value;
}

template <class Read>
Result<void> each(const Json& json, std::string_view key, Read read) {
  const Json* items = json.find(key);
  if (items == nullptr || !items->is_array()) return fail(Code::kInvalid, "'{}' must be an array", key);
  for (const Json& item : items->items()) CAPSTAN_CHECK(read(item));
  return {};
}

Result<HostClass> class_from(const Json& json) {
  HostClass out;
  CAPSTAN_TRY(out.name, word(json, "name"));
  CAPSTAN_TRY(out.capacity.milli_cpus, number(json, "milli_cpus", 0, std::int64_t{1} << 40));
  CAPSTAN_TRY(out.capacity.memory_bytes, number(json, "memory_bytes", 0, std::int64_t{1} << 56));
  CAPSTAN_TRY(out.capacity.gpus, number(json, "gpus", 0, kGpusPerHostMax));
  CAPSTAN_TRY(out.gpu_model, word(json, "gpu_model"));
  CAPSTAN_TRY(out.gpu_memory_bytes, number(json, "gpu_memory_bytes", 0, std::int64_t{1} << 56));
  out.fractional = json.get_bool("fractional").value_or(false);
  if (json.contains("gpu_slices")) {
    CAPSTAN_CHECK(each(json, "gpu_slices", [&](const Json& item) -> Result<void> {
      if (!item.is_int()) return fail(Code::kInvalid, "'gpu_slices' must be integers");
      out.gpu_slices.push_back(item.as_int());
      return {};
    }));
  }
  return out;
}

Result<BlockSpec> block_from(const Json& json) {
  BlockSpec out;
  CAPSTAN_TRY(out.name, word(json, "name"));
  CAPSTAN_TRY(out.count, number(json, "count", 1, kFleetHostsMax));
  CAPSTAN_CHECK(each(json, "ultraservers", [&](const Json& item) -> Result<void> {
    UltraServerGroup& group = out.ultraservers.emplace_back();
    CAPSTAN_TRY(group.kind, word(item, "kind"));
    CAPSTAN_TRY(group.host_class, word(item, "host_class"));
    CAPSTAN_TRY(group.trays, number(item, "trays", 1, kTraysMax));
    CAPSTAN_TRY(group.count, number(item, "count", 1, kFleetHostsMax));
    CAPSTAN_TRY(group.spares, number(item, "spares", 0, group.trays - 1));
    CAPSTAN_TRY(group.name, word(item, "name"));
    return {};
  }));
  CAPSTAN_CHECK(each(json, "hosts", [&](const Json& item) -> Result<void> {
    HostGroup& group = out.hosts.emplace_back();
    CAPSTAN_TRY(group.host_class, word(item, "class"));
    CAPSTAN_TRY(group.count, number(item, "count", 1, kFleetHostsMax));
    CAPSTAN_TRY(group.name, word(item, "name"));
    return {};
  }));
  return out;
}

}  // namespace

std::int64_t hosts_of(const FleetSpec& spec) {
  std::int64_t hosts = 0;
  for (const auto& region : spec.regions) {
    for (const auto& cluster : region.clusters) {
      std::int64_t in_cluster = 0;
      for (const auto& block : cluster.blocks) in_cluster = sum(in_cluster, hosts_in(block));
      hosts = sum(hosts, product(in_cluster, cluster.count));
    }
  }
  return hosts;
}

Result<void> append(Topology& topology, const FleetSpec& spec) {
  const std::int64_t hosts = hosts_of(spec);
  if (hosts + static_cast<std::int64_t>(topology.hosts()) > kFleetHostsMax)
    return fail(Code::kInvalid, "fleet {} has {} hosts; all fleets together may have {}", spec.name, hosts, kFleetHostsMax);
  if (topology.hosts() == 0) {
    Topology fresh;
    fresh.reserve(static_cast<std::size_t>(hosts));
    CAPSTAN_CHECK(append_all(fresh, spec));
    topology = std::move(fresh);
    return {};
  }
  Topology grown = topology;
  grown.reserve(topology.hosts() + static_cast<std::size_t>(hosts));
  CAPSTAN_CHECK(append_all(grown, spec));
  topology = std::move(grown);
  return {};
}

Json to_json(const FleetSpec& spec) {
  return Json::object({{"name", spec.name},
                       {"classes", list(spec.classes, [](const HostClass& one) { return to_json(one); })},
                       {"regions", list(spec.regions, [](const RegionSpec& region) {
                          return Json::object({{"name", region.name},
                                               {"clusters", list(region.clusters, [](const ClusterSpec& cluster) {
                                                  return Json::object({{"name", cluster.name},
                                                                       {"count", cluster.count},
                                                                       {"blocks", list(cluster.blocks, put_block)}});
                                                })}});
                        })}});
}

Result<FleetSpec> fleet_from_json(const Json& json) {
  FleetSpec spec;
  CAPSTAN_TRY(spec.name, word(json, "name"));
  CAPSTAN_CHECK(each(json, "classes", [&](const Json& item) -> Result<void> {
    CAPSTAN_TRY(HostClass one, class_from(item));
    spec.classes.push_back(std::move(one));
    return {};
  }));
  CAPSTAN_CHECK(each(json, "regions", [&](const Json& region_json) -> Result<void> {
    RegionSpec& region = spec.regions.emplace_back();
    CAPSTAN_TRY(region.name, word(region_json, "name"));
    return each(region_json, "clusters", [&](const Json& cluster_json) -> Result<void> {
      ClusterSpec& cluster = region.clusters.emplace_back();
      CAPSTAN_TRY(cluster.name, word(cluster_json, "name"));
      CAPSTAN_TRY(cluster.count, number(cluster_json, "count", 1, kFleetHostsMax));
      return each(cluster_json, "blocks", [&](const Json& item) -> Result<void> {
        CAPSTAN_TRY(BlockSpec block, block_from(item));
        cluster.blocks.push_back(std::move(block));
        return {};
      });
    });
  }));
  return spec;
}

}  // namespace capstan::fleet
