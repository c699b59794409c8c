// How it works: {"type": …} and the members of the struct.
#include "controller/input.h"

#include "protocol/fields.h"

namespace capstan::controller {
namespace {

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
  return Json::object({{"type", "reports"}, {"host", what.host}, {"reports", std::move(reports)}});
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
  }
  return "lost";
}

Result<fleet::Health> parse_health(std::string_view name) {
  for (const auto health : {fleet::Health::kHealthy, fleet::Health::kSuspect, fleet::Health::kLost}) {
    if (health_name(health) == name) return health;
  }
  return fail(Code::kInvalid, "health '{}' is not healthy, suspect or lost", name);
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
    Reports what;
    CAPSTAN_TRY(what.host, need_text(json, "host"));
    CAPSTAN_TRY(const Json::Array reports, array_or_empty(json, "reports", SIZE_MAX));
    for (const Json& item : reports) {
      CAPSTAN_TRY(protocol::Report report, protocol::Report::from_json(item));
      what.reports.push_back(std::move(report));
    }
    input.what = what;
  } else if (type != "tick") {
    return fail(Code::kInvalid, "input type '{}' is unknown", type);
  }
  return input;
}

}  // namespace capstan::controller
