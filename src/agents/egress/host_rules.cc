// How it works: an entry without a port becomes two rules, so that each rule has one port and comparing lists is comparing
// rules.
#include "agents/egress/host_rules.h"

#include <algorithm>

#include "base/text.h"

namespace capstan::agents {
namespace {

constexpr std::uint16_t kPortsUnlessNamed[] = {80, 443};
constexpr std::size_t kShownMax = 10;

}  // namespace

bool is_host_name(std::string_view name) {
  constexpr std::size_t kNameMax = 253, kLabelMax = 63;
  if (name.empty() || name.size() > kNameMax) return false;
  return std::ranges::all_of(split(name, '.'), [](std::string_view label) {
    return !label.empty() && label.size() <= kLabelMax && std::ranges::all_of(label, [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
    });
  });
}

bool HostRules::Rule::covers(const Rule& other) const {
  if (port != other.port) return false;
  if (address) return other.address == address;
  if (name.empty()) return !other.address || other.address->is_public();
  if (other.address || other.name.empty()) return false;
  if (!below) return !other.below && name == other.name;
  return other.name.ends_with(name) && (other.below || other.name.size() > name.size());
}

Result<void> HostRules::parse_one(const std::string& entry, std::vector<Rule>& rules) {
  const auto wrong = [&] {
    return fail(Code::kInvalid,
                "'{}' is no host; right would be name, *.name, an IP address or *, each perhaps with :port", entry);
  };
  std::string host = to_lower(entry), port;
  const std::size_t colon = host.rfind(':');
  const bool bare_version_6 = colon != host.npos && host.front() != '[' && host.find(':') != colon;
  if (colon != host.npos && !bare_version_6 && !host.ends_with(']')) {
    port = host.substr(colon + 1);
    host.resize(colon);
    const auto number = parse_int(port);
    if (!number || *number < 1 || *number > 65535) return wrong();
  }
  Rule rule{.address = Address::parse(host)};
  if (!rule.address && host != "*") {
    rule.below = host.starts_with("*.");
    rule.name = rule.below ? host.substr(1) : host;
    if (!is_host_name(rule.below ? host.substr(2) : host)) return wrong();
  }
  for (const std::uint16_t each : kPortsUnlessNamed) {
    rule.port = port.empty() ? each : static_cast<std::uint16_t>(*parse_int(port));
    rules.push_back(rule);
    if (!port.empty()) break;
  }
  return {};
}

Result<HostRules> HostRules::parse(const std::vector<std::string>& entries) {
  if (entries.size() > kHostRulesMax)
    return fail(Code::kInvalid, "{} hosts; a list may have {}", entries.size(), kHostRulesMax);
  HostRules out;
  for (const std::string& entry : entries) CAPSTAN_CHECK(parse_one(entry, out.rules_));
  out.entries_ = entries;
  return out;
}

std::string HostRules::text() const {
  if (empty()) return "nothing";
  const std::size_t shown = std::min(kShownMax, entries_.size());
  std::string out = fmt::format("{}", fmt::join(entries_.begin(), entries_.begin() + static_cast<std::ptrdiff_t>(shown), ", "));
  if (shown < entries_.size()) out += fmt::format(" and {} more", entries_.size() - shown);
  return out;
}

bool HostRules::allows_name(std::string_view name, std::uint16_t port) const {
  const Rule wanted{.name = std::string(name), .port = port};
  return !name.empty() && std::ranges::any_of(rules_, [&](const Rule& rule) { return rule.covers(wanted); });
}

bool HostRules::allows_address(const Address& address, std::uint16_t port) const {
  const Rule wanted{.address = address, .port = port};
  return std::ranges::any_of(rules_, [&](const Rule& rule) { return rule.covers(wanted); });
}

bool HostRules::permits(const Address& address, std::uint16_t port) const {
  if (std::ranges::any_of(rules_, [&](const Rule& rule) { return rule.address == address && rule.port == port; })) return true;
  const auto own = own_addresses();
  return address.is_public() && std::ranges::find(own, address) == own.end();
}

Result<void> HostRules::check_within(const HostRules& limits) const {
  for (const std::string& entry : entries_) {
    std::vector<Rule> wanted;
    CAPSTAN_CHECK(parse_one(entry, wanted));
    for (const Rule& rule : wanted) {
      if (std::ranges::any_of(limits.rules_, [&](const Rule& limit) { return limit.covers(rule); })) continue;
      return fail(Code::kDenied, "'{}' (port {}) is not allowed here; allowed is {}", entry, rule.port, limits.text());
    }
  }
  return {};
}

HostRules HostRules::with(const HostRules& more) const {
  HostRules out = *this;
  out.entries_.insert(out.entries_.end(), more.entries_.begin(), more.entries_.end());
  out.rules_.insert(out.rules_.end(), more.rules_.begin(), more.rules_.end());
  return out;
}

}  // namespace capstan::agents
