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

Result<void> host_joined(State& state, const Json& event) {
  CAPSTAN_TRY(const std::string name, need_text(event, "host"));
  Host host = state.hosts[name];
  CAPSTAN_TRY(host.incarnation, need_text(event, "incarnation"));
  CAPSTAN_TRY(host.build, need_text(event, "build"));
  CAPSTAN_TRY(host.logs_url, need_text(event, "logs_url"));
  const Json* capacity = event.find("capacity");
  if (capacity == nullptr) return fail(Code::kCorrupt, "host_joined has no capacity");
  CAPSTAN_TRY(host.capacity, protocol::capacity_from_json(*capacity));
  CAPSTAN_TRY(host.capabilities, protocol::capabilities_from_json(event, "capabilities"));
  const bool grew = state.inventory.set_host({name, host.capacity, host.health});
  state.room_grew = state.room_grew || grew;
  state.hosts[name] = std::move(host);
  return {};
}

Result<void> host_health(State& state, const Json& event) {
  CAPSTAN_TRY(const std::string name, need_text(event, "host"));
  CAPSTAN_TRY(const std::string health, need_text(event, "health"));
  const auto at = state.hosts.find(name);
  if (at == state.hosts.end())
    return fail(Code::kCorrupt, "an event names host {}, which never joined", name);
  CAPSTAN_TRY(at->second.health, parse_health(health));
  state.inventory.set_host({name, at->second.capacity, at->second.health});
  state.room_grew = state.room_grew || at->second.health == fleet::Health::kHealthy;
  return {};
}

void report(Decision& decision, const protocol::Report& report, TaskBatch& batch) {
  Workload* workload = decision.state.find(report.id.job);
  if (workload == nullptr) return;
  switch (workload->spec.kind) {
    case workload::Kind::kJob:
      return report_job(decision, *workload, report);
    case workload::Kind::kService:
      return report_service(decision, *workload, report);
    case workload::Kind::kTasks:
      return report_tasks(decision, *workload, report, batch);
  }
}

}  // namespace

FoldResult fold_hosts(State& state, std::int64_t, std::string_view type, const Json& event) {
  if (type == "host_joined") return host_joined(state, event);
  if (type == "host_health") return host_health(state, event);
  return std::nullopt;
}

void join_host(Decision& decision, const JoinHost& join) {
  const auto known = decision.state.hosts.find(join.host);
  if (known != decision.state.hosts.end()) {
    const Host& host = known->second;
    if (host.incarnation == join.incarnation && host.build == join.build && host.logs_url == join.logs_url &&
        host.capacity == join.capacity && host.capabilities == join.capabilities) {
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
  const auto known = decision.state.hosts.find(change.host);
  if (known == decision.state.hosts.end() || known->second.health == change.health) return;
  decision.emit(
      Json::object({{"type", "host_health"}, {"host", change.host}, {"health", health_name(change.health)}}));
  if (change.health != fleet::Health::kLost) return;
  Reports lost{change.host, {}};
  for (const RankId& id : known->second.ranks) {
    protocol::RankExited exit;
    exit.lost = true;
    exit.message = "its host " + change.host + " is lost";
    lost.reports.push_back({1, id, exit});
  }
  take_reports(decision, lost);
}

void take_reports(Decision& decision, const Reports& reports) {
  const auto known = decision.state.hosts.find(reports.host);
  if (known == decision.state.hosts.end()) return;
  TaskBatch batch;
  batch.host = reports.host;
  for (const protocol::Report& one : reports.reports) {
    if (known->second.ranks.contains(one.id)) report(decision, one, batch);
  }
  flush_tasks(decision, batch);
}

}  // namespace capstan::controller
