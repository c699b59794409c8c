// What a template lets its sessions reach, and what a session asks for.
//
//   CAPSTAN_TRY(NetworkTerms terms, network_of(json));   // {"allow": ["pypi.org"], "on_request": ["*.example.com:443"]}
//   CAPSTAN_TRY(HostRules hosts, terms.grant({.kind = NetworkWish::Kind::kListed, .hosts = {"pypi.org"}}));
//
// Off unless the template, which root writes, says otherwise; never more than it says. Threads: values.  Failure: kInvalid
// (an entry), kDenied (more than is permitted, with what is).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "agents/egress/host_rules.h"
#include "base/json.h"

namespace capstan::agents {

inline constexpr std::uint16_t kEgressPort = 3128;  // where a session's proxy listens, inside

struct NetworkWish {
  enum class Kind {
    kTemplate,  // what the template gives unasked
    kNone,
    kAll,     // whatever the template permits
    kListed,  // these alone
  };
  Kind kind = Kind::kTemplate;
  std::vector<std::string> hosts = {};
};

struct NetworkTerms {
  HostRules allow = {};       // for every session
  HostRules on_request = {};  // for those that ask

  bool empty() const { return allow.empty() && on_request.empty(); }
  Result<HostRules> grant(const NetworkWish& wish) const;
};

Result<NetworkTerms> network_of(const Json& json);

}  // namespace capstan::agents
