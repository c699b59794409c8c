// How it works: write_state walks the state in a fixed order; read_state takes line by line and ends by computing what follows
// from the rest: names, timers, what live ranks hold.
#include "controller/snapshot.h"

#include "controller/commands.h"
#include "controller/decision.h"
#include "controller/input.h"
#include "controller/planner.h"
#include "protocol/fields.h"

namespace capstan::controller {
namespace {

using protocol::need_int;
using protocol::need_text;

constexpr int kFormat = 2;

void line(const TextSink& sink, const Json& json) {
  sink(json.dump());
  sink("\n");
}

// What of a host is not as its fleet file says, as an event would say it; null if nothing is.
Json host_to_json(const State& state, HostId id, const State::Fleet* fleet, fleet::ClassId declared) {
  const auto& inventory = state.inventory;
  const auto& host = inventory.host(id);
  Json json = Json::object({{"host", index(id)}});
  if (fleet == nullptr) json["name"] = state.name(id);
  if (fleet == nullptr || inventory.topology().class_of(id) != declared)
    json["capacity"] = protocol::to_json(inventory.capacity(id));
  const fleet::Health usual = fleet != nullptr && fleet->present ? fleet::Health::kHealthy : fleet::Health::kAbsent;
  if (host.health != usual) json["health"] = health_name(host.health);
  if (host.condition != fleet::Condition::kInService) json["condition"] = static_cast<int>(host.condition);
  if (host.cordoned) json["cordoned"] = true;
  if (host.gpus_failed != 0) json["gpus_failed"] = host.gpus_failed;
  if (const auto at = state.contacts.find(id); at != state.contacts.end()) {
    const Contact& contact = at->second;
    json["contact"] = Json::object({{"incarnation", contact.incarnation},
                                    {"build", contact.build},
                                    {"logs_url", contact.logs_url},
                                    {"capabilities", protocol::to_json(contact.capabilities)}});
  }
  if (const auto at = state.flaps.find(id); at != state.flaps.end())
    json["flaps"] = Json::array({at->second.window_began_ms, at->second.losses});
  return json.size() > 1 ? json : Json();
}

void write_hosts(const State& state, const TextSink& sink) {
  // Fleets and hosts in the order of their ids, so that reading gives the same ones.
  std::size_t next_fleet = 0, fleet_end = 0;
  const State::Fleet* fleet = nullptr;
  for (std::size_t i = 0; i < state.inventory.hosts(); ++i) {
    if (next_fleet < state.fleets.size() && state.fleets[next_fleet].first == static_cast<std::int64_t>(i)) {
      fleet = &state.fleets[next_fleet++];
      line(sink, Json::object({{"fleet", fleet::to_json(fleet->spec)}, {"present", fleet->present}}));
      fleet_end = i + static_cast<std::size_t>(fleet->hosts);
    }
    if (i >= fleet_end) fleet = nullptr;
    const HostId id{static_cast<std::uint32_t>(i)};
    const auto resized = state.resized.find(id);
    const auto usual = resized == state.resized.end() ? state.inventory.topology().class_of(id) : resized->second;
    if (const Json json = host_to_json(state, id, fleet, usual); !json.is_null()) line(sink, json);
  }
}

void write_rules(const State& state, const TextSink& sink) {
  Json tenants = Json::array();
  for (const auto& tenant : state.tenants.tenants()) tenants.push_back(workload::to_json(tenant));
  line(sink, Json::object({{"tenants", std::move(tenants)}}));
  line(sink, Json::object({{"order", scheduler::order_name(state.policy.order)},
                           {"starvation_ms", state.policy.starvation_ms}}));
  line(sink, Json::object({{"next_claim", state.next_claim}}));
  for (const auto& [id, claim] : state.claims.all()) line(sink, claim_to_json(state, claim));
  for (const auto& [host, ports] : state.ports)
    line(sink, Json::object({{"ports", index(host)}, {"next", ports.next}}));
}

Result<HostId> host_number(const State& state, const Json& json, std::string_view key) {
  CAPSTAN_TRY(const std::int64_t number, need_int(json, key));
  if (number >= static_cast<std::int64_t>(state.inventory.hosts()))
    return fail(Code::kCorrupt, "there is no host number {}", number);
  return HostId{static_cast<std::uint32_t>(number)};
}

Result<void> read_host(State& state, const Json& json) {
  auto& inventory = state.inventory;
  if (const Json* name = json.find("name")) {
    CAPSTAN_CHECK(add_local_host(state, name->as_string(), json));
  }
  CAPSTAN_TRY(const HostId id, host_number(state, json, "host"));
  if (const Json* capacity = json.find("capacity"); capacity != nullptr && !json.contains("name")) {
    CAPSTAN_CHECK(resize_host(state, id, *capacity));
  }
  if (const auto health = json.get_string("health")) {
    CAPSTAN_TRY(const fleet::Health parsed, parse_health(*health));
    inventory.set_health(id, parsed);
  }
  if (const auto condition = json.get_int("condition")) {
    if (*condition < 0 || *condition > static_cast<int>(fleet::Condition::kQuarantined))
      return fail(Code::kCorrupt, "{} is no condition", *condition);
    inventory.set_condition(id, static_cast<fleet::Condition>(*condition));
  }
  if (json.get_bool("cordoned").value_or(false)) inventory.set_cordoned(id, true);
  if (const auto gpus = json.get_int("gpus_failed"))
    inventory.set_gpus_failed(id, static_cast<scheduler::GpuSet>(*gpus));
  if (const Json* contact = json.find("contact")) {
    Contact& at = state.contacts[id];
    CAPSTAN_TRY(at.incarnation, need_text(*contact, "incarnation"));
    CAPSTAN_TRY(at.build, need_text(*contact, "build"));
    CAPSTAN_TRY(at.logs_url, need_text(*contact, "logs_url"));
    CAPSTAN_TRY(at.capabilities, protocol::capabilities_from_json(*contact, "capabilities"));
  }
  if (const Json* flaps = json.find("flaps"); flaps != nullptr && flaps->size() == 2)
    state.flaps[id] = {flaps->items()[0].as_int(), flaps->items()[1].as_int()};
  return {};
}

// Names, timers, and what live ranks hold.
Result<void> rebuild(State& state, Workload& workload) {
  const auto tenant = state.tenants.find(workload.spec.tenant);
  workload.tenant = tenant.value_or(scheduler::kDefaultTenant);
  if (!has_ended(workload.state) || !state.by_name.contains(workload.spec.name))
    state.by_name[workload.spec.name] = workload.id;
  if (has_ended(workload.state)) {
    state.ended.insert({workload.ended_ms, workload.id});
  } else {
    state.count_demand(workload, 1);
  }
  const auto known = [&](HostId host) { return index(host) < state.inventory.hosts(); };
  for (const auto& slice : workload.job.slices) {
    if (!known(slice.host)) return fail(Code::kCorrupt, "workload {} is on a host that does not exist", workload.id);
  }
  begin_holding(state, workload, 0);
  for (const auto& [number, replica] : workload.service.replicas) {
    if (!known(replica.rank.host)) return fail(Code::kCorrupt, "a replica is on a host that does not exist");
    if (replica.rank.live()) hold_replica(state, workload, replica);
  }
  for (const auto& [host, runs] : workload.tasks.runs) {
    if (!known(host)) return fail(Code::kCorrupt, "a task is on a host that does not exist");
  }
  hold_tasks(state, workload);
  state.update_deadline(workload);
  return {};
}

Result<void> read_header(State& state, const Json& json) {
  CAPSTAN_TRY(const std::int64_t format, need_int(json, "format"));
  if (format != kFormat)
    return fail(Code::kUnsupported, "a snapshot has format {}, this build reads format {}", format, kFormat);
  CAPSTAN_TRY(state.epoch, need_int(json, "epoch"));
  CAPSTAN_TRY(state.build, need_text(json, "build"));
  CAPSTAN_TRY(state.time_ms, need_int(json, "time_ms"));
  CAPSTAN_TRY(state.event_last, need_int(json, "event_last"));
  CAPSTAN_TRY(state.next_id, need_int(json, "next_id", 1));
  CAPSTAN_TRY(state.draining, protocol::bool_or(json, "draining", false));
  return {};
}

Result<void> read_line(State& state, const Json& json, std::map<HostId, std::int64_t>& ports) {
  if (json.contains("format")) return read_header(state, json);
  if (json.contains("fleet")) return add_fleet(state, json);
  if (json.contains("host")) return read_host(state, json);
  if (json.contains("tenants")) return add_tenants(state, json);
  if (const auto name = json.get_string("order")) {
    CAPSTAN_TRY(state.policy.order, scheduler::parse_order(*name));
    CAPSTAN_TRY(state.policy.starvation_ms, need_int(json, "starvation_ms"));
    return {};
  }
  if (json.contains("claim")) return add_claim(state, json);
  if (json.contains("next_claim")) {
    CAPSTAN_TRY(state.next_claim, need_int(json, "next_claim", 1));
    return {};
  }
  if (json.contains("ports")) {
    CAPSTAN_TRY(const HostId host, host_number(state, json, "ports"));
    CAPSTAN_TRY(ports[host], need_int(json, "next", kPortMin, kPortMax));
    return {};
  }
  if (const auto id = json.get_int("runs")) {
    Workload* workload = state.find(*id);
    if (workload == nullptr) return fail(Code::kCorrupt, "tasks of workload {}, which does not exist", *id);
    CAPSTAN_TRY(const std::string text, need_text(json, "of", std::size_t{1} << 30));
    return read_runs(*workload, text);
  }
  CAPSTAN_TRY(Workload workload, workload_from_json(json));
  const std::int64_t id = workload.id;
  state.workloads.emplace_hint(state.workloads.end(), id, std::move(workload));
  return {};
}

}  // namespace

void write_state(const State& state, const TextSink& sink) {
  line(sink, Json::object({{"format", kFormat},
                           {"epoch", state.epoch},
                           {"build", state.build},
                           {"time_ms", state.time_ms},
                           {"event_last", state.event_last},
                           {"next_id", state.next_id},
                           {"draining", state.draining}}));
  write_hosts(state, sink);
  write_rules(state, sink);
  for (const auto& [id, workload] : state.workloads) {
    line(sink, workload_to_json(workload));
    write_runs(workload, sink);
  }
}

Result<State> read_state(std::string_view text) {
  State state;
  std::map<HostId, std::int64_t> ports;
  std::int64_t number = 0;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    if (end == text.npos) return fail(Code::kCorrupt, "a snapshot ends in the middle of line {}", number + 1);
    ++number;
    CAPSTAN_TRY(const Json json, Json::parse(text.substr(0, end)));
    if (number == 1 && !json.contains("format")) return fail(Code::kCorrupt, "a snapshot begins without its format");
    if (auto read = read_line(state, json, ports); !read)
      return std::unexpected(std::move(read).error().with_context(fmt::format("line {} of a snapshot", number)));
    text.remove_prefix(end + 1);
  }
  if (number == 0) return fail(Code::kCorrupt, "a snapshot is empty");
  state.tenants.set_fleet(state.inventory.total());
  for (auto& [id, workload] : state.workloads) CAPSTAN_CHECK(rebuild(state, workload));
  for (const auto& [host, next] : ports) state.ports[host].next = next;
  return state;
}

}  // namespace capstan::controller
