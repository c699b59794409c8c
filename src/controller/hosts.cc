// How it works: a host joins with each new worker process; its health follows the failure detector. A lost
// host's ranks are ended as lost, one report each, so that jobs, services and tasks treat them as any other
// end.
#include "controller/commands.h"
#include "controller/decision.h"
#include "controller/input.h"
#include "protocol/fields.h"

namespace capstan::controller {
namespace {

using protocol::need_text;

// The host's class says what it offers. A worker's word counts: a class of that capacity is made if none is known.
fleet::HostClass class_of(const fleet::Capacity& capacity, const fleet::HostClass* declared) {
  fleet::HostClass out;
  if (declared != nullptr) out = *declared;
  if (declared == nullptr) {
    out.name = "local";
    out.fractional = true;
  }
  out.capacity = capacity;
  out.capacity.gpus = std::min(capacity.gpus, fleet::kGpusPerHostMax);
  return out;
}

Result<HostId> add_local(State& state, const std::string& name, const fleet::Capacity& capacity) {
  auto& topology = state.inventory.topology();
  const auto host_class = topology.intern(class_of(capacity, nullptr));
  CAPSTAN_TRY(const HostId host, topology.add_host(topology.block("local", "local", "local"), host_class, name));
  state.inventory.sync();
  return host;
}

void resize(State& state, HostId host, const fleet::Capacity& capacity) {
  auto& topology = state.inventory.topology();
  const fleet::HostClass wanted = class_of(capacity, &topology.host_class(host));
  if (topology.host_class(host) == wanted) return;
  state.resized.try_emplace(host, topology.class_of(host));
  state.inventory.resize(host, topology.intern(wanted));
}

Result<void> host_joined(State& state, const Json& event) {
  CAPSTAN_TRY(const std::string name, need_text(event, "host"));
  Contact contact;
  CAPSTAN_TRY(contact.incarnation, need_text(event, "incarnation"));
  CAPSTAN_TRY(contact.build, need_text(event, "build"));
  CAPSTAN_TRY(contact.logs_url, need_text(event, "logs_url"));
  const Json* member = event.find("capacity");
  if (member == nullptr) return fail(Code::kCorrupt, "host_joined has no capacity");
  CAPSTAN_TRY(const fleet::Capacity capacity, protocol::capacity_from_json(*member));
  CAPSTAN_TRY(contact.capabilities, protocol::capabilities_from_json(event, "capabilities"));
  auto& inventory = state.inventory;
  auto host = inventory.topology().find(name);
  if (!host) {
    CAPSTAN_TRY(host, add_local(state, name, capacity));
  } else {
    resize(state, *host, capacity);
  }
  if (inventory.host(*host).health == fleet::Health::kAbsent) inventory.set_health(*host, fleet::Health::kHealthy);
  state.contacts[*host] = std::move(contact);
  state.fleet_changed();
  return {};
}

Result<void> host_health(State& state, std::int64_t time_ms, const Json& event) {
  CAPSTAN_TRY(const std::string name, need_text(event, "host"));
  CAPSTAN_TRY(const std::string text, need_text(event, "health"));
  CAPSTAN_TRY(const HostId host, host_named(state, name));
  CAPSTAN_TRY(const fleet::Health health, parse_health(text));
  state.inventory.set_health(host, health);
  state.room_grew = state.room_grew || health == fleet::Health::kHealthy;
  if (health != fleet::Health::kLost) return {};
  Flaps& flaps = state.flaps[host];
  if (flaps.losses == 0 || time_ms - flaps.window_began_ms > kFlapWindowMs) flaps = {time_ms, 0};
  ++flaps.losses;
  return {};
}

void report(Decision& decision, HostId host, const protocol::Report& report, TaskBatch& batch) {
  Workload* workload = decision.state.find(report.id.job);
  if (workload == nullptr) return;
  switch (workload->spec.kind) {
    case workload::Kind::kJob:
    case workload::Kind::kSandbox:
      return report_job(decision, *workload, host, report);
    case workload::Kind::kService:
      return report_service(decision, *workload, host, report);
    case workload::Kind::kTasks:
      return report_tasks(decision, *workload, host, report, batch);
  }
}

}  // namespace

Result<void> add_local_host(State& state, const std::string& name, const Json& json) {
  const Json* capacity = json.find("capacity");
  if (capacity == nullptr) return fail(Code::kCorrupt, "host {} has no capacity", name);
  CAPSTAN_TRY(const fleet::Capacity room, protocol::capacity_from_json(*capacity));
  CAPSTAN_TRY(const HostId host, add_local(state, name, room));
  (void)host;
  return {};
}

Result<void> resize_host(State& state, HostId host, const Json& json) {
  CAPSTAN_TRY(const fleet::Capacity capacity, protocol::capacity_from_json(json));
  resize(state, host, capacity);
  return {};
}

FoldResult fold_hosts(State& state, std::int64_t time_ms, std::string_view type, const Json& event) {
  if (type == "host_joined") return host_joined(state, event);
  if (type == "host_health") return host_health(state, time_ms, event);
  return std::nullopt;
}

void join_host(Decision& decision, const JoinHost& join) {
  const auto host = decision.state.inventory.topology().find(join.host);
  const auto known = host ? decision.state.contacts.find(*host) : decision.state.contacts.end();
  if (known != decision.state.contacts.end()) {
    const Contact& contact = known->second;
    if (contact.incarnation == join.incarnation && contact.build == join.build &&
        contact.logs_url == join.logs_url && contact.capabilities == join.capabilities &&
        decision.state.inventory.capacity(*host) == class_of(join.capacity, nullptr).capacity) {
      return;
    }
  }
  decision.emit(Json::object({{"type", "host_joined"},
                              {"host", join.host},
                              {"incarnation", join.incarnation},
                              {"build", join.build},
                              {"logs_url", join.logs_url},
                              {"capacity", protocol::to_json(join.capacity)},
                              {"capabilities", protocol::to_json(join.capabilities)}}));
}

void set_health(Decision& decision, const SetHealth& change) {
  const State& state = decision.state;
  const auto host = state.inventory.topology().find(change.host);
  if (!host || state.inventory.host(*host).health == change.health) return;
  decision.emit(
      Json::object({{"type", "host_health"}, {"host", change.host}, {"health", health_name(change.health)}}));
  if (change.health != fleet::Health::kLost) return;
  Reports lost{change.host, {}, {}};
  for (const RankId& id : state.ranks_on(*host)) {
    protocol::RankExited exit;
    exit.lost = true;
    exit.message = "its host " + change.host + " is lost";
    lost.reports.push_back({1, id, exit});
  }
  take_reports(decision, lost);
  const Flaps& flaps = state.flaps.at(*host);
  if (flaps.losses < kFlapsMax || state.inventory.host(*host).condition != fleet::Condition::kInService) return;
  set_host_condition(decision, {*host}, fleet::Condition::kQuarantined,
                     fmt::format("it was lost {} times within an hour", flaps.losses));
}

void take_reports(Decision& decision, const Reports& reports) {
  const auto host = decision.state.inventory.topology().find(reports.host);
  if (!host) return;
  TaskBatch batch;
  batch.host = reports.host;
  for (const protocol::Report& one : reports.reports) report(decision, *host, one, batch);
  for (const protocol::TaskReport& one : reports.tasks) report_task_ranges(decision, *host, one, batch);
  flush_tasks(decision, batch);
}

}  // namespace capstan::controller
