#include "workload/session_spec.h"

namespace capstan::workload {

Json to_json(const SessionSpec& session, bool all) {
  const SessionSpec base;
  Json json = Json::object();
  if (all || session.template_name != base.template_name) json["template"] = session.template_name;
  if (all || session.timeout_ms != base.timeout_ms) json["timeout_ms"] = session.timeout_ms;
  if (session.allow) json["allow"] = Json(Json::Array(session.allow->begin(), session.allow->end()));
  return json;
}

Result<SessionSpec> session_spec_from_json(const Json& json) {
  if (!json.is_object()) return fail(Code::kCorrupt, "'session' must be an object, not {}", json.type_name());
  SessionSpec session;
  if (const Json* name = json.find("template")) {
    if (!name->is_string()) return fail(Code::kCorrupt, "'session.template' must be a string");
    session.template_name = name->as_string();
  }
  if (const Json* timeout = json.find("timeout_ms")) {
    if (!timeout->is_int() || timeout->as_int() < 0)
      return fail(Code::kCorrupt, "'session.timeout_ms' must be an integer of at least 0");
    session.timeout_ms = timeout->as_int();
  }
  const Json* allow = json.find("allow");
  if (allow == nullptr) return session;
  if (!allow->is_array() || allow->size() > kAllowedHostsMax)
    return fail(Code::kCorrupt, "'session.allow' must be a list of at most {} hosts", kAllowedHostsMax);
  session.allow.emplace();
  for (const Json& host : allow->items()) {
    if (!host.is_string()) return fail(Code::kCorrupt, "'session.allow' must be a list of strings");
    session.allow->push_back(host.as_string());
  }
  return session;
}

}  // namespace capstan::workload
