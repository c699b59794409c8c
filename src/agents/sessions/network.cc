#include "agents/sessions/network.h"

namespace capstan::agents {

Result<HostRules> NetworkTerms::grant(const NetworkWish& wish) const {
  const HostRules permitted = allow.with(on_request);
  const auto none = [&] {
    return fail(Code::kDenied, "sandboxes of this template have no network; its file may allow hosts (docs/sessions.md)");
  };
  switch (wish.kind) {
    case NetworkWish::Kind::kNone:
      return HostRules{};
    case NetworkWish::Kind::kTemplate:
      return allow;
    case NetworkWish::Kind::kAll:
      if (permitted.empty()) return none();
      return permitted;
    case NetworkWish::Kind::kListed:
      break;
  }
  if (permitted.empty() && !wish.hosts.empty()) return none();
  CAPSTAN_TRY(HostRules wanted, HostRules::parse(wish.hosts));
  CAPSTAN_CHECK(wanted.check_within(permitted));
  return wanted;
}

Result<NetworkTerms> network_of(const Json& json) {
  if (!json.is_object()) return fail(Code::kInvalid, "'network' must be an object with allow, on_request");
  NetworkTerms out;
  for (const auto& [member, value] : json.members()) {
    if (member != "allow" && member != "on_request")
      return fail(Code::kInvalid, "'network.{}' is unknown; there are allow, on_request", member);
    std::vector<std::string> entries;
    if (!value.is_array()) return fail(Code::kInvalid, "'network.{}' must be a list of hosts", member);
    for (const Json& entry : value.items()) {
      if (!entry.is_string()) return fail(Code::kInvalid, "'network.{}' must be a list of hosts", member);
      entries.push_back(entry.as_string());
    }
    CAPSTAN_TRY((member == "allow" ? out.allow : out.on_request), HostRules::parse(entries));
  }
  return out;
}

}  // namespace capstan::agents
