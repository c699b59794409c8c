// How it works: {"type": …} and the members of the struct.
#include "controller/input.h"

#include <algorithm>
#include <array>

#include "protocol/fields.h"

namespace capstan::controller {
namespace {

constexpr std::array<std::string_view, 6> kVerbs = {"cordon", "uncordon", "drain", "fail", "repair", "return"};

using protocol::array_or_empty;
using protocol::need_int;
using protocol::need_text;

Json put(const BeginEpoch& what) {
  return Json::object({{"type", "begin_epoch"}, {"epoch", what.epoch}, {"build", what.build}});
}
Json put(const Apply& what) {
  Json specs = Json::array();
  for (const auto& spec : what.specs) specs.push_back(workload::to_json(spec));
  return Json::object({{"type", "apply"}, {"specs", std::move(specs)}});
}
Json put(const Cancel& what) { return Json::object({{"type", "cancel"}, {"name", what.name}}); }
Json put(const Scale& what) {
  return Json::object(
      {{"type", "scale"}, {"name", what.name}, {"replicas", what.replicas}, {"why", what.why}});
}
Json put(const Drain&) { return Json::object({{"type", "drain"}}); }
Json put(const JoinHost& what) {
  return Json::object({{"type", "join_host"},
                       {"host", what.host},
                       {"incarnation", what.incarnation},
                       {"build", what.build},
                       {"logs_url", what.logs_url},
                       {"capacity", protocol::to_json(what.capacity)},
                       {"capabilities", protocol::to_json(what.capabilities)}});
}
Json put(const SetHealth& what) {
  return Json::object({{"type", "set_health"}, {"host", what.host}, {"health", health_name(what.health)}});
}
Json put(const Reports& what) {
  Json reports = Json::array();
  for (const auto& report : what.reports) reports.push_back(report.to_json());
  Json json = Json::object({{"type", "reports"}, {"host", what.host}});
  if (!what.reports.empty()) json["reports"] = std::move(reports);
  if (!what.tasks.empty()) json["tasks"] = protocol::to_json(what.tasks);
  return json;
}
Json put(const ApplyFleet& what) {
  return Json::object(
      {{"type", "apply_fleet"}, {"fleet", fleet::to_json(what.spec)}, {"present", what.present}});
}
Json put(const SetTenants& what) {
  Json tenants = Json::array();
  for (const auto& tenant : what.tenants) tenants.push_back(workload::to_json(tenant));
  return Json::object({{"type", "set_tenants"}, {"tenants", std::move(tenants)}});
}
Json put(const RemoveTenant& what) { return Json::object({{"type", "remove_tenant"}, {"name", what.name}}); }
Json put(const Reserve& what) {
  return Json::object({{"type", "reserve"},
                       {"name", what.name},
                       {"tenant", what.tenant},
                       {"hosts", what.hosts},
                       {"per_domain", what.per_domain},
                       {"gpu_model", what.gpu_model},
                       {"host_class", what.host_class},
                       {"cluster", what.cluster},
                       {"from_ms", what.from_ms},
                       {"until_ms", what.until_ms}});
}
Json put(const Unreserve& what) { return Json::object({{"type", "unreserve"}, {"name", what.name}}); }
Json put(const Maintain& what) {
  Json names = Json::array();
  for (const auto& name : what.names) names.push_back(name);
  return Json::object({{"type", "maintain"},
                       {"names", std::move(names)},
                       {"from_ms", what.from_ms},
                       {"until_ms", what.until_ms}});
}
Json put(const Defragment& what) {
  return Json::object({{"type", "defragment"}, {"dry_run", what.dry_run}, {"moves_max", what.moves_max}});
}
Json put(const SetCondition& what) {
  Json names = Json::array(), gpus = Json::array();
  for (const auto& name : what.names) names.push_back(name);
  for (const std::int64_t gpu : what.gpus) gpus.push_back(gpu);
  return Json::object({{"type", "set_condition"},
                       {"names", std::move(names)},
                       {"verb", verb_name(what.verb)},
                       {"gpus", std::move(gpus)},
                       {"why", what.why}});
}
Json put(const SetPolicy& what) {
  return Json::object({{"type", "set_policy"}, {"order", what.order}, {"starvation_ms", what.starvation_ms}});
}
Json put(const Tick&) { return Json::object({{"type", "tick"}}); }

Result<Apply> apply_from(const Json& json) {
  Apply what;
  CAPSTAN_TRY(const Json::Array specs, array_or_empty(json, "specs", SIZE_MAX));
  for (const Json& item : specs) {
    CAPSTAN_TRY(workload::Spec spec, workload::from_json(item));
    what.specs.push_back(std::move(spec));
  }
  return what;
}

Result<Reports> reports_from(const Json& json) {
  Reports what;
  CAPSTAN_TRY(what.host, need_text(json, "host"));
  CAPSTAN_TRY(const Json::Array reports, array_or_empty(json, "reports", SIZE_MAX));
  for (const Json& item : reports) {
    CAPSTAN_TRY(protocol::Report report, protocol::Report::from_json(item));
    what.reports.push_back(std::move(report));
  }
  CAPSTAN_TRY(what.tasks, protocol::task_reports_from_json(json, "tasks"));
  return what;
}

Result<ApplyFleet> fleet_from(const Json& json) {
  ApplyFleet what;
  const Json* spec = json.find("fleet");
  if (spec == nullptr) return fail(Code::kInvalid, "'fleet' is absent");
  CAPSTAN_TRY(what.spec, fleet::fleet_from_json(*spec));
  CAPSTAN_TRY(what.present, protocol::bool_or(json, "present", false));
  return what;
}

Result<SetTenants> tenants_from(const Json& json) {
  SetTenants what;
  CAPSTAN_TRY(const Json::Array tenants, array_or_empty(json, "tenants", workload::kTenantsMax));
  for (const Json& item : tenants) {
    CAPSTAN_TRY(workload::Tenant tenant, workload::tenant_from_json(item));
    what.tenants.push_back(std::move(tenant));
  }
  return what;
}

Result<std::vector<std::string>> names_from(const Json& json) {
  std::vector<std::string> out;
  CAPSTAN_TRY(const Json::Array names, array_or_empty(json, "names", SIZE_MAX));
  for (const Json& name : names) {
    if (!name.is_string()) return fail(Code::kInvalid, "'names' must be an array of strings");
    out.push_back(name.as_string());
  }
  return out;
}

Result<Reserve> reserve_from(const Json& json) {
  Reserve what;
  CAPSTAN_TRY(what.name, need_text(json, "name"));
  CAPSTAN_TRY(what.tenant, need_text(json, "tenant"));
  CAPSTAN_TRY(what.hosts, need_int(json, "hosts"));
  CAPSTAN_TRY(what.per_domain, need_int(json, "per_domain"));
  CAPSTAN_TRY(what.gpu_model, need_text(json, "gpu_model"));
  CAPSTAN_TRY(what.host_class, need_text(json, "host_class"));
  CAPSTAN_TRY(what.cluster, need_text(json, "cluster"));
  CAPSTAN_TRY(what.from_ms, need_int(json, "from_ms"));
  CAPSTAN_TRY(what.until_ms, need_int(json, "until_ms"));
  return what;
}

Result<Maintain> maintain_from(const Json& json) {
  Maintain what;
  CAPSTAN_TRY(what.names, names_from(json));
  CAPSTAN_TRY(what.from_ms, need_int(json, "from_ms"));
  CAPSTAN_TRY(what.until_ms, need_int(json, "until_ms"));
  return what;
}

Result<SetCondition> condition_from(const Json& json) {
  SetCondition what;
  CAPSTAN_TRY(what.names, names_from(json));
  CAPSTAN_TRY(const Json::Array gpus, array_or_empty(json, "gpus", fleet::kGpusPerHostMax));
  for (const Json& gpu : gpus) {
    if (!gpu.is_int()) return fail(Code::kInvalid, "'gpus' must be an array of integers");
    what.gpus.push_back(gpu.as_int());
  }
  CAPSTAN_TRY(const std::string verb, need_text(json, "verb"));
  CAPSTAN_TRY(what.verb, parse_verb(verb));
  CAPSTAN_TRY(what.why, protocol::text_or(json, "why", ""));
  return what;
}

Result<JoinHost> join_from(const Json& json) {
  JoinHost what;
  CAPSTAN_TRY(what.host, need_text(json, "host"));
  CAPSTAN_TRY(what.incarnation, need_text(json, "incarnation"));
  CAPSTAN_TRY(what.build, need_text(json, "build"));
  CAPSTAN_TRY(what.logs_url, need_text(json, "logs_url"));
  const Json* capacity = json.find("capacity");
  if (capacity == nullptr) return fail(Code::kInvalid, "'capacity' is absent");
  CAPSTAN_TRY(what.capacity, protocol::capacity_from_json(*capacity));
  CAPSTAN_TRY(what.capabilities, protocol::capabilities_from_json(json, "capabilities"));
  return what;
}

}  // namespace

std::string_view health_name(fleet::Health health) {
  switch (health) {
    case fleet::Health::kHealthy:
      return "healthy";
    case fleet::Health::kSuspect:
      return "suspect";
    case fleet::Health::kLost:
      return "lost";
    case fleet::Health::kAbsent:
      return "absent";
  }
  return "lost";
}

Result<fleet::Health> parse_health(std::string_view name) {
  for (const auto health :
       {fleet::Health::kHealthy, fleet::Health::kSuspect, fleet::Health::kLost, fleet::Health::kAbsent}) {
    if (health_name(health) == name) return health;
  }
  return fail(Code::kInvalid, "health '{}' is not healthy, suspect, lost or absent", name);
}

std::string_view verb_name(HostVerb verb) { return kVerbs[static_cast<std::size_t>(verb)]; }

Result<HostVerb> parse_verb(std::string_view name) {
  const auto at = std::find(kVerbs.begin(), kVerbs.end(), name);
  if (at == kVerbs.end())
    return fail(Code::kInvalid, "'{}' is not cordon, uncordon, drain, fail, repair or return", name);
  return static_cast<HostVerb>(at - kVerbs.begin());
}

Json Input::to_json() const {
  return std::visit([](const auto& one) { return put(one); }, what);
}

Result<Input> Input::from_json(std::int64_t time_ms, const Json& json) {
  Input input{time_ms, Tick{}};
  CAPSTAN_TRY(const std::string type, need_text(json, "type"));
  if (type == "begin_epoch") {
    BeginEpoch what;
    CAPSTAN_TRY(what.epoch, need_int(json, "epoch"));
    CAPSTAN_TRY(what.build, need_text(json, "build"));
    input.what = what;
  } else if (type == "apply") {
    CAPSTAN_TRY(input.what, apply_from(json));
  } else if (type == "cancel") {
    Cancel what;
    CAPSTAN_TRY(what.name, need_text(json, "name"));
    input.what = what;
  } else if (type == "scale") {
    Scale what;
    CAPSTAN_TRY(what.name, need_text(json, "name"));
    CAPSTAN_TRY(what.replicas, need_int(json, "replicas"));
    CAPSTAN_TRY(what.why, protocol::text_or(json, "why", ""));
    input.what = what;
  } else if (type == "drain") {
    input.what = Drain{};
  } else if (type == "join_host") {
    CAPSTAN_TRY(input.what, join_from(json));
  } else if (type == "set_health") {
    SetHealth what;
    CAPSTAN_TRY(what.host, need_text(json, "host"));
    CAPSTAN_TRY(const std::string health, need_text(json, "health"));
    CAPSTAN_TRY(what.health, parse_health(health));
    input.what = what;
  } else if (type == "reports") {
    CAPSTAN_TRY(input.what, reports_from(json));
  } else if (type == "apply_fleet") {
    CAPSTAN_TRY(input.what, fleet_from(json));
  } else if (type == "set_tenants") {
    CAPSTAN_TRY(input.what, tenants_from(json));
  } else if (type == "remove_tenant") {
    RemoveTenant what;
    CAPSTAN_TRY(what.name, need_text(json, "name"));
    input.what = what;
  } else if (type == "reserve") {
    CAPSTAN_TRY(input.what, reserve_from(json));
  } else if (type == "unreserve") {
    Unreserve what;
    CAPSTAN_TRY(what.name, need_text(json, "name"));
    input.what = what;
  } else if (type == "maintain") {
    CAPSTAN_TRY(input.what, maintain_from(json));
  } else if (type == "defragment") {
    Defragment what;
    CAPSTAN_TRY(what.dry_run, protocol::bool_or(json, "dry_run", true));
    CAPSTAN_TRY(what.moves_max, need_int(json, "moves_max"));
    input.what = what;
  } else if (type == "set_condition") {
    CAPSTAN_TRY(input.what, condition_from(json));
  } else if (type == "set_policy") {
    SetPolicy what;
    CAPSTAN_TRY(what.order, protocol::text_or(json, "order", ""));
    CAPSTAN_TRY(what.starvation_ms, protocol::int_or(json, "starvation_ms", -1, -1));
    input.what = what;
  } else if (type != "tick") {
    return fail(Code::kInvalid, "input type '{}' is unknown", type);
  }
  return input;
}

}  // namespace capstan::controller
