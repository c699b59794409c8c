// Which hosts may be reached: a list of entries, each a name, "*.name" (names below it, not itself), an IP address, or "*"
// (any public host), each with a port or for 80 and 443.
//
//   CAPSTAN_TRY(HostRules rules, HostRules::parse({"pypi.org", "*.pythonhosted.org:443", "10.0.0.5:8080", "[fd00::1]:80"}));
//   rules.allows_name("pypi.org", 443);
//   CAPSTAN_CHECK(wanted.check_within(rules));   // every entry of `wanted` is permitted by one of `rules`
//
// A name's addresses are looked at apart: those that are not public are refused unless an entry names the address itself
// (permits). Threads: values.  Bounds: kHostRulesMax entries.  Failure: kInvalid (an entry, with what would be right),
// kDenied (check_within, with what is allowed).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agents/egress/address.h"
#include "base/result.h"

namespace capstan::agents {

inline constexpr std::size_t kHostRulesMax = 256;

class HostRules {
 public:
  static Result<HostRules> parse(const std::vector<std::string>& entries);

  bool empty() const { return rules_.empty(); }
  const std::vector<std::string>& entries() const { return entries_; }  // as they were given
  std::string text() const;                                             // the first few, for an error

  // `name`: lower case, without a dot at its end.
  bool allows_name(std::string_view name, std::uint16_t port) const;
  // Whether to connect to this address: it is public and not this host's, or it is listed itself.
  bool permits(const Address& address, std::uint16_t port) const;
  // Whether an address that was asked for as such is on the list.
  bool allows_address(const Address& address, std::uint16_t port) const;

  Result<void> check_within(const HostRules& limits) const;
  HostRules with(const HostRules& more) const;

 private:
  struct Rule {
    std::string name{};  // empty: any; of one that begins with "*.", what follows, with the dot
    bool below = false;
    std::optional<Address> address{};
    std::uint16_t port = 0;
    bool covers(const Rule& other) const;
  };
  static Result<void> parse_one(const std::string& entry, std::vector<Rule>& rules);

  std::vector<std::string> entries_;
  std::vector<Rule> rules_;  // one port each
};

// Whether a name is one that a resolver may be asked for: letters, digits, '-', '_' and dots, at most 253.
bool is_host_name(std::string_view name);

}  // namespace capstan::agents
