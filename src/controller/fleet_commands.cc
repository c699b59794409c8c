// How it works: the fleet and its rules change by commands; each is checked whole before its one event.
#include <algorithm>

#include "controller/commands.h"
#include "protocol/fields.h"

namespace capstan::controller {
namespace {

using protocol::need_int;
using protocol::need_text;

constexpr std::size_t kHostsPerEventMax = 100'000;

std::optional<fleet::Condition> parse_condition(std::string_view name) {
  using fleet::Condition;
  for (const Condition one : {Condition::kInService, Condition::kDraining, Condition::kFailed, Condition::kInRepair,
                              Condition::kQuarantined}) {
    if (fleet::condition_name(one) == name) return one;
  }
  return std::nullopt;
}

}  // namespace

Result<void> add_fleet(State& state, const Json& event) {
  const Json* json = event.find("fleet");
  if (json == nullptr) return fail(Code::kCorrupt, "fleet_applied has no fleet");
  CAPSTAN_TRY(fleet::FleetSpec spec, fleet::fleet_from_json(*json));
  CAPSTAN_TRY(const bool present, protocol::bool_or(event, "present", false));
  auto& inventory = state.inventory;
  const std::size_t before = inventory.topology().hosts();
  CAPSTAN_CHECK(fleet::append(inventory.topology(), spec));
  inventory.sync();
  for (std::size_t i = before; present && i < inventory.hosts(); ++i)
    inventory.set_health(HostId{static_cast<std::uint32_t>(i)}, fleet::Health::kHealthy);
  state.fleets.push_back({static_cast<std::int64_t>(before), static_cast<std::int64_t>(inventory.hosts() - before),
                          present, std::move(spec)});
  state.fleet_changed();
  return {};
}

namespace {

Result<std::vector<HostId>> hosts_from(const State& state, const Json& event) {
  CAPSTAN_TRY(const Json::Array list, protocol::array_or_empty(event, "hosts", kHostsPerEventMax));
  std::vector<HostId> hosts;
  for (const Json& item : list) {
    if (!item.is_string()) return fail(Code::kCorrupt, "'hosts' must be names");
    CAPSTAN_TRY(const HostId host, host_named(state, item.as_string()));
    hosts.push_back(host);
  }
  return hosts;
}

Result<void> host_condition(State& state, const Json& event) {
  CAPSTAN_TRY(const std::vector<HostId> hosts, hosts_from(state, event));
  const auto cordoned = event.get_bool("cordoned");
  const auto condition = parse_condition(event.get_string("condition").value_or(""));
  const auto gpus = event.get_int("gpus_failed");
  for (const HostId host : hosts) {
    if (cordoned) state.inventory.set_cordoned(host, *cordoned);
    if (condition) state.inventory.set_condition(host, *condition);
    if (condition == fleet::Condition::kInService) state.flaps.erase(host);
    if (gpus) state.inventory.set_gpus_failed(host, static_cast<scheduler::GpuSet>(*gpus));
  }
  state.room_grew = true;
  return {};
}

}  // namespace

Result<void> add_tenants(State& state, const Json& event) {
  CAPSTAN_TRY(const Json::Array list, protocol::array_or_empty(event, "tenants", workload::kTenantsMax));
  std::vector<workload::Tenant> tenants;
  for (const Json& item : list) {
    CAPSTAN_TRY(workload::Tenant tenant, workload::tenant_from_json(item));
    tenants.push_back(std::move(tenant));
  }
  const auto set = state.tenants.set_all(tenants);
  if (!set) return fail(Code::kCorrupt, "tenants of the journal do not fit: {}", set.error().message);
  state.room_grew = true;
  return {};
}

namespace {

}  // namespace

Result<std::vector<HostId>> named_hosts(const State& state, const std::vector<std::string>& names) {
  const auto& topology = state.inventory.topology();
  std::set<HostId> hosts;
  if (names.empty()) return fail(Code::kInvalid, "name at least one host or UltraServer");
  for (const std::string& name : names) {
    if (const auto host = topology.find(name)) {
      hosts.insert(*host);
    } else if (const auto domain = topology.find_domain(name)) {
      const fleet::Domain& row = topology.domain(*domain);
      for (std::uint32_t i = 0; i < row.hosts; ++i) hosts.insert(HostId{fleet::index(row.first) + i});
    } else {
      return fail(Code::kNotFound, "there is no host or UltraServer {}; see: capstan hosts", name);
    }
    if (hosts.size() > kHostsPerEventMax)
      return fail(Code::kInvalid, "more than {} hosts in one command", kHostsPerEventMax);
  }
  return std::vector<HostId>(hosts.begin(), hosts.end());
}

namespace {

Json condition_event(const State& state, const std::vector<HostId>& hosts, std::string_view why) {
  Json names = Json::array();
  for (const HostId host : hosts) names.push_back(state.name(host));
  Json json = Json::object({{"type", "host_condition"}, {"hosts", std::move(names)}});
  if (!why.empty()) json["why"] = why;
  return json;
}

Result<Json> set_gpus(Decision& decision, const std::vector<HostId>& hosts, const SetCondition& command) {
  const bool failed = command.verb == HostVerb::kFail;
  if (!failed && command.verb != HostVerb::kReturn)
    return fail(Code::kInvalid, "single GPUs can only fail or return");
  if (hosts.size() != 1) return fail(Code::kInvalid, "GPUs are those of one host: name one");
  const HostId host = hosts.front();
  scheduler::GpuSet set = decision.state.inventory.host(host).gpus_failed;
  scheduler::GpuSet named = 0;
  for (const std::int64_t gpu : command.gpus) {
    if (gpu < 0 || gpu >= decision.state.inventory.capacity(host).gpus) {
      return fail(Code::kInvalid, "host {} has {} GPUs, numbered from 0; there is no GPU {}",
                  decision.state.name(host), decision.state.inventory.capacity(host).gpus, gpu);
    }
    named |= scheduler::GpuSet{1} << gpu;
  }
  set = failed ? set | named : set & ~named;
  Json json = condition_event(decision.state, hosts, command.why);
  json["gpus_failed"] = set;
  decision.emit(std::move(json));
  // Who runs on a GPU that has failed goes elsewhere.
  std::vector<std::int64_t> hit;
  for (const auto& holder : decision.state.inventory.host(host).holders) {
    if (failed && (holder.gpus & named) != 0) hit.push_back(holder.job);
  }
  for (const std::int64_t id : hit) {
    stop_on_host(decision, *decision.state.find(id), host, INT64_MAX, StopWhy::kDrain,
                 fmt::format("a GPU of host {} has failed", decision.state.name(host)));
  }
  return Json::object({{"hosts", 1}, {"gpus_failed", set}});
}

}  // namespace

FoldResult fold_fleet(State& state, std::int64_t, std::string_view type, const Json& event) {
  if (type == "fleet_applied") return add_fleet(state, event);
  if (type == "host_condition") return host_condition(state, event);
  if (type == "tenants_set") return add_tenants(state, event);
  if (type == "claim_added") return add_claim(state, event);
  if (type == "claim_removed") {
    CAPSTAN_TRY(const std::int64_t id, need_int(event, "claim", 1));
    state.claims.remove(state.inventory, id);
    state.room_grew = true;
    return Result<void>();
  }
  if (type == "tenant_removed") {
    const auto removed = state.tenants.remove(event.get_string("tenant").value_or(""));
    if (!removed) return fail(Code::kCorrupt, "a tenant of the journal cannot go: {}", removed.error().message);
    return Result<void>();
  }
  if (type == "policy_set") {
    const auto order = scheduler::parse_order(event.get_string("order").value_or(""));
    if (!order) return fail(Code::kCorrupt, "a queue order of the journal is unknown");
    state.policy = {*order, event.get_int("starvation_ms").value_or(0)};
    state.room_grew = true;
    return Result<void>();
  }
  return std::nullopt;
}

Result<Json> apply_fleet(Decision& decision, const ApplyFleet& apply) {
  // On a copy of the names only, so that nothing has happened if one is taken.
  fleet::Topology scratch = decision.state.inventory.topology();
  const std::size_t before = scratch.hosts();
  CAPSTAN_CHECK(fleet::append(scratch, apply.spec));
  const std::size_t added = scratch.hosts() - before;
  if (added == 0) return fail(Code::kInvalid, "fleet {} has no hosts", apply.spec.name);
  decision.emit(Json::object(
      {{"type", "fleet_applied"}, {"fleet", fleet::to_json(apply.spec)}, {"present", apply.present}}));
  return Json::object({{"fleet", apply.spec.name},
                       {"hosts", added},
                       {"ultraservers_and_hosts", scratch.domains()},
                       {"gpus", decision.state.inventory.total().gpus}});
}

Result<Json> set_tenants(Decision& decision, const SetTenants& command) {
  scheduler::Tenants scratch = decision.state.tenants;
  CAPSTAN_TRY(const auto changed, scratch.set_all(command.tenants));
  Json list = Json::array(), warnings = Json::array();
  for (const auto& tenant : command.tenants) list.push_back(workload::to_json(tenant));
  for (const std::string& warning : changed.warnings) warnings.push_back(warning);
  decision.emit(Json::object({{"type", "tenants_set"}, {"tenants", std::move(list)}}));
  return Json::object({{"tenants", command.tenants.size()}, {"warnings", std::move(warnings)}});
}

Result<Json> remove_tenant(Decision& decision, const RemoveTenant& command) {
  const State& state = decision.state;
  scheduler::Tenants scratch = state.tenants;
  CAPSTAN_CHECK(scratch.remove(command.name));
  for (const auto& [id, workload] : state.workloads) {
    if (!has_ended(workload.state) && workload.spec.tenant == command.name)
      return fail(Code::kConflict, "tenant {} has work that has not ended, such as {}; cancel it first", command.name,
                  workload.spec.name);
  }
  decision.emit(Json::object({{"type", "tenant_removed"}, {"tenant", command.name}}));
  return Json::object({{"tenant", command.name}, {"action", "removed"}});
}

void set_host_condition(Decision& decision, const std::vector<HostId>& hosts, fleet::Condition condition,
                        std::string_view why) {
  Json json = condition_event(decision.state, hosts, why);
  json["condition"] = fleet::condition_name(condition);
  decision.emit(std::move(json));
  if (condition == fleet::Condition::kInService || condition == fleet::Condition::kQuarantined) return;
  // What runs there moves away, gracefully; what is broken is left by its ranks in their own way.
  for (const HostId host : hosts) {
    std::vector<std::int64_t> jobs;
    for (const auto& holder : decision.state.inventory.host(host).holders) jobs.push_back(holder.job);
    for (const std::int64_t id : jobs) {
      Workload* workload = decision.state.find(id);
      stop_on_host(decision, *workload, host, INT64_MAX, StopWhy::kDrain,
                   fmt::format("host {} is {}", decision.state.name(host), fleet::condition_name(condition)));
    }
  }
}

Result<Json> set_condition(Decision& decision, const SetCondition& command) {
  CAPSTAN_TRY(const std::vector<HostId> hosts, named_hosts(decision.state, command.names));
  if (!command.gpus.empty()) return set_gpus(decision, hosts, command);
  using fleet::Condition;
  switch (command.verb) {
    case HostVerb::kCordon:
    case HostVerb::kUncordon: {
      Json json = condition_event(decision.state, hosts, command.why);
      json["cordoned"] = command.verb == HostVerb::kCordon;
      decision.emit(std::move(json));
      break;
    }
    case HostVerb::kDrain:
      set_host_condition(decision, hosts, Condition::kDraining, command.why);
      break;
    case HostVerb::kFail:
      set_host_condition(decision, hosts, Condition::kFailed, command.why);
      break;
    case HostVerb::kRepair:
      set_host_condition(decision, hosts, Condition::kInRepair, command.why);
      break;
    case HostVerb::kReturn:
      set_host_condition(decision, hosts, Condition::kInService, command.why);
      break;
  }
  return Json::object({{"verb", verb_name(command.verb)}, {"hosts", hosts.size()}});
}

Result<Json> set_policy(Decision& decision, const SetPolicy& command) {
  Policy policy = decision.state.policy;
  if (!command.order.empty()) {
    CAPSTAN_TRY(policy.order, scheduler::parse_order(command.order));
  }
  if (command.starvation_ms >= 0) policy.starvation_ms = command.starvation_ms;
  Json json = Json::object({{"type", "policy_set"},
                            {"order", scheduler::order_name(policy.order)},
                            {"starvation_ms", policy.starvation_ms}});
  Json answer = Json::object(
      {{"order", scheduler::order_name(policy.order)}, {"starvation_ms", policy.starvation_ms}});
  if (policy.order != decision.state.policy.order || policy.starvation_ms != decision.state.policy.starvation_ms)
    decision.emit(std::move(json));
  return answer;
}

}  // namespace capstan::controller
