// How it works: counts are gathered per block and added up the tree.
#include "api/scheduling_views.h"

#include <algorithm>
#include <bit>
#include <map>
#include <optional>
#include <tuple>

#include "controller/planner.h"
#include "controller/view.h"

namespace capstan::api {
namespace {

using controller::State;
using fleet::HostId;
using scheduler::TenantId;

struct Counts {
  std::int64_t hosts = 0, hosts_free = 0;
  std::int64_t ultraservers = 0, ultraservers_free = 0;
  std::int64_t gpus = 0, gpus_free = 0, gpus_failed = 0;
  std::int64_t milli_cpus = 0, milli_cpus_free = 0;
  std::map<std::string_view, std::int64_t> unavailable;  // hosts by reason

  void add(const Counts& other) {
    hosts += other.hosts;
    hosts_free += other.hosts_free;
    ultraservers += other.ultraservers;
    ultraservers_free += other.ultraservers_free;
    gpus += other.gpus;
    gpus_free += other.gpus_free;
    gpus_failed += other.gpus_failed;
    milli_cpus += other.milli_cpus;
    milli_cpus_free += other.milli_cpus_free;
    for (const auto& [reason, count] : other.unavailable) unavailable[reason] += count;
  }

  void write(Json& out) const {
    out["hosts"] = hosts;
    out["hosts_free"] = hosts_free;
    out["ultraservers"] = ultraservers;
    out["ultraservers_free"] = ultraservers_free;
    out["gpus"] = gpus;
    out["gpus_free"] = gpus_free;
    out["gpus_failed"] = gpus_failed;
    out["milli_cpus"] = milli_cpus;
    out["milli_cpus_free"] = milli_cpus_free;
    Json reasons = Json::object();
    for (const auto& [reason, count] : unavailable) reasons[reason] = count;
    out["unavailable"] = std::move(reasons);
  }
};

// Why a host takes no new work; empty if it does.
std::string_view unavailable(const scheduler::Inventory& inventory, HostId id) {
  const auto& host = inventory.host(id);
  if (host.health == fleet::Health::kAbsent) return "absent";
  if (host.health == fleet::Health::kLost) return "lost";
  if (host.health == fleet::Health::kSuspect) return "suspect";
  if (host.condition != fleet::Condition::kInService) return fleet::condition_name(host.condition);
  const auto domain = inventory.domain_condition(inventory.topology().domain_of(id));
  if (domain != fleet::Condition::kInService) return fleet::condition_name(domain);
  if (host.cordoned) return "cordoned";
  return host.claimed ? "kept" : "";
}

void count_domain(const scheduler::Inventory& inventory, const fleet::Domain& domain, Counts& out) {
  bool free = true;
  for (std::uint32_t i = 0; i < domain.hosts; ++i) {
    const HostId id{fleet::index(domain.first) + i};
    const fleet::Capacity& capacity = inventory.capacity(id);
    ++out.hosts;
    out.gpus += capacity.gpus;
    out.milli_cpus += capacity.milli_cpus;
    out.gpus_failed += std::popcount(inventory.host(id).gpus_failed);
    const std::string_view reason = unavailable(inventory, id);
    if (!reason.empty()) ++out.unavailable[reason];
    const bool takes_work = reason.empty() && inventory.usable(id);
    free = free && takes_work && inventory.idle(id);
    if (!takes_work) continue;
    out.hosts_free += inventory.idle(id);
    out.gpus_free += std::popcount(inventory.host(id).gpus_idle);
    out.milli_cpus_free += std::max<std::int64_t>(0, inventory.host(id).milli_cpus_free);
  }
  if (domain.hosts > 1) {
    ++out.ultraservers;
    out.ultraservers_free += free;
  }
}

Counts count_block(const scheduler::Inventory& inventory, const fleet::Block& block) {
  Counts out;
  for (const auto& extent : block.extents) {
    for (std::uint32_t i = 0; i < extent.count; ++i) {
      const fleet::DomainId id{fleet::index(extent.first) + i};
      count_domain(inventory, inventory.topology().domain(id), out);
    }
  }
  return out;
}

Json classes_view(const scheduler::Inventory& inventory) {
  const auto& topology = inventory.topology();
  std::vector<std::int64_t> hosts(topology.classes());
  for (std::uint32_t i = 0; i < inventory.hosts(); ++i) ++hosts[fleet::index(topology.class_of(HostId{i}))];
  Json list = Json::array();
  for (std::uint32_t i = 0; i < hosts.size(); ++i) {
    const auto& one = topology.host_class(fleet::ClassId{i});
    if (hosts[i] == 0) continue;
    list.push_back(Json::object({{"name", one.name},
                                 {"hosts", hosts[i]},
                                 {"gpu_model", one.gpu_model},
                                 {"gpus", one.capacity.gpus},
                                 {"milli_cpus", one.capacity.milli_cpus},
                                 {"memory_bytes", one.capacity.memory_bytes},
                                 {"shared_gpus", one.fractional}}));
  }
  return list;
}

Json capacity_view(const fleet::Capacity& capacity) {
  return Json::object({{"milli_cpus", capacity.milli_cpus},
                       {"memory_bytes", capacity.memory_bytes},
                       {"gpus", capacity.gpus},
                       {"gpu_milli", capacity.gpu_milli}});
}

double share_of(const scheduler::Tenants& tenants, TenantId id) {
  const scheduler::Share share = tenants.share(id);
  return static_cast<double>(share.used) / static_cast<double>(share.of);
}

// Reasons why workloads wait; equal shapes of one tenant wait for the same one, unless room is kept for them.
class Reasons {
 public:
  explicit Reasons(const State& state) : state_(state) {}
  void write(const controller::Workload& workload, const scheduler::Queue::Entry& entry, Json& out) {
    const bool keeps_room = state_.claims.of_job(workload.id) != nullptr;
    const Key key{entry.request, scheduler::index(entry.tenant), keeps_room ? workload.id : 0};
    auto at = known_.find(key);
    if (at == known_.end()) {
      if (known_.size() >= kQueueReasonsMax) return;
      at = known_
               .emplace(key,
                        state_.planner->why_waits(state_, workload, known_.size() < kQueueReasonsWholeMax))
               .first;
    }
    const auto& why = at->second;
    out["decision"] = !why ? "soon" : why->never ? "never" : "not_now";
    out["reason"] = why ? why->text : "starts with the next look at the queue";
  }

 private:
  using Key = std::tuple<std::uint32_t, std::size_t, std::int64_t>;
  const State& state_;
  std::map<Key, std::optional<controller::Planner::Why>> known_;
};

}  // namespace

Json fleet_view(const State& state) {
  const auto& topology = state.inventory.topology();
  Counts total;
  Json regions = Json::array();
  for (std::uint32_t r = 0; r < topology.regions(); ++r) {
    const fleet::Region& region = topology.region(fleet::RegionId{r});
    Counts of_region;
    Json clusters = Json::array();
    for (const auto cluster_id : region.clusters) {
      const fleet::Cluster& cluster = topology.cluster(cluster_id);
      Counts of_cluster;
      Json blocks = Json::array();
      for (const auto block_id : cluster.blocks) {
        const fleet::Block& block = topology.block(block_id);
        const Counts of_block = count_block(state.inventory, block);
        Json json = Json::object({{"name", block.name}});
        of_block.write(json);
        blocks.push_back(std::move(json));
        of_cluster.add(of_block);
      }
      Json json = Json::object({{"name", cluster.name}});
      of_cluster.write(json);
      json["blocks"] = std::move(blocks);
      clusters.push_back(std::move(json));
      of_region.add(of_cluster);
    }
    Json json = Json::object({{"name", region.name}});
    of_region.write(json);
    json["clusters"] = std::move(clusters);
    regions.push_back(std::move(json));
    total.add(of_region);
  }
  Json all = Json::object();
  total.write(all);
  return Json::object({{"total", std::move(all)},
                       {"regions", std::move(regions)},
                       {"classes", classes_view(state.inventory)}});
}

Result<Json> hosts_view(const State& state, const HostFilter& filter) {
  const auto& inventory = state.inventory;
  const auto& topology = inventory.topology();
  std::vector<bool> block_matches(topology.blocks(), filter.under.empty());
  bool found = filter.under.empty();
  for (std::uint32_t i = 0; i < topology.blocks() && !filter.under.empty(); ++i) {
    const fleet::Block& block = topology.block(fleet::BlockId{i});
    const fleet::Cluster& cluster = topology.cluster(block.cluster);
    block_matches[i] = cluster.name == filter.under || topology.region(cluster.region).name == filter.under ||
                       fmt::format("{}/{}", cluster.name, block.name) == filter.under;
    found = found || block_matches[i];
  }
  Json list = Json::array();
  std::int64_t matched = 0;
  for (std::uint32_t i = 0; i < topology.domains(); ++i) {
    const fleet::Domain& domain = topology.domain(fleet::DomainId{i});
    const bool named = !filter.under.empty() && domain.name == filter.under;
    found = found || named;
    if (!named && !block_matches[fleet::index(domain.block)]) continue;
    for (std::uint32_t tray = 0; tray < domain.hosts; ++tray) {
      const HostId host{fleet::index(domain.first) + tray};
      if (filter.unavailable && unavailable(inventory, host).empty()) continue;
      if (matched++ < filter.limit) list.push_back(controller::view_host(state, host));
    }
  }
  if (!found) {
    return fail(Code::kNotFound, "there is no region, cluster, block (as cluster/block) or UltraServer '{}'",
                filter.under);
  }
  return Json::object({{"hosts", std::move(list)}, {"matched", matched}});
}

Json queue_view(const State& state, std::int64_t limit) {
  const auto& queue = state.planner->queue();
  Json list = Json::array();
  Reasons reasons(state);
  std::int64_t position = 0;
  for (const std::int64_t id : queue.heads(static_cast<std::size_t>(limit), state.tenants)) {
    const controller::Workload* workload = state.find(id);
    const auto* entry = queue.find(id);
    if (workload == nullptr || entry == nullptr) continue;
    const auto& spec = workload->spec;
    const bool gang = spec.is_gang();
    const std::int64_t ranks = gang                                    ? spec.ranks
                               : spec.kind == workload::Kind::kService ? spec.replicas
                                                                       : spec.count;
    Json json = Json::object({{"position", ++position},
                              {"name", spec.name},
                              {"kind", workload::kind_name(spec.kind)},
                              {"state", controller::state_name(workload->state)},
                              {"tenant", spec.tenant},
                              {"share", share_of(state.tenants, entry->tenant)},
                              {"priority", spec.priority},
                              {"ranks", ranks},
                              {"gpus_each", spec.resources.gpus},
                              {"gpu_milli_each", spec.resources.gpu_milli},
                              {"segment", spec.placement.segment},
                              {"created_ms", workload->created_ms}});
    reasons.write(*workload, *entry, json);
    list.push_back(std::move(json));
  }
  return Json::object({{"order", scheduler::order_name(state.policy.order)},
                       {"waiting", queue.size()},
                       {"workloads", std::move(list)}});
}

Json tenants_view(const State& state) {
  Json list = Json::array();
  std::map<TenantId, std::int64_t> depth;
  for (const TenantId id : state.tenants.ids()) {
    const TenantId parent = state.tenants.parent(id);
    depth[id] = parent == scheduler::kRootTenant ? 0 : depth[parent] + 1;
    const scheduler::Usage usage = state.tenants.usage(id);
    Json json = workload::to_json(state.tenants.tenant(id));
    json["depth"] = depth[id];
    json["used"] = capacity_view(usage.used);
    json["borrowed"] = capacity_view(usage.borrowed);
    json["share"] = share_of(state.tenants, id);
    json["waiting"] = state.planner->queue().waiting(id);
    list.push_back(std::move(json));
  }
  return Json::object({{"tenants", std::move(list)}});
}

Json reservations_view(const State& state, std::int64_t now_ms) {
  Json list = Json::array();
  for (const auto& [id, claim] : state.claims.all()) {
    const bool gang = claim.kind == scheduler::ClaimKind::kGang;
    list.push_back(Json::object({{"name", claim.name},
                                 {"kind", scheduler::claim_kind_name(claim.kind)},
                                 {"tenant", claim.tenant},
                                 {"hosts", claim.hosts.size()},
                                 {"from_ms", claim.from_ms},
                                 {"until_ms", claim.until_ms},
                                 {"state", gang                      ? "gathers room"
                                           : now_ms < claim.from_ms  ? "comes"
                                           : now_ms < claim.until_ms ? "holds"
                                                                     : "ends"}}));
  }
  return Json::object({{"reservations", std::move(list)}});
}

Json policy_view(const State& state) {
  return Json::object(
      {{"order", scheduler::order_name(state.policy.order)}, {"starvation_ms", state.policy.starvation_ms}});
}

}  // namespace capstan::api
