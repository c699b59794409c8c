// E2B's words for what a sandbox may reach. There, what allowOut does not list is open unless denyOut closes it; here, what is
// not listed is always closed, so a deny list can only say what holds anyway.
#include <algorithm>

#include "agents/e2b/e2b.h"

namespace capstan::agents::e2b {
namespace {

bool is_everything(const std::string& entry) { return entry == "0.0.0.0/0" || entry == "::/0" || entry == "*"; }

Result<std::vector<std::string>> entries_of(const Json& rules, std::string_view member) {
  std::vector<std::string> out;
  const Json* list = rules.find(member);
  if (list == nullptr || list->is_null()) return out;
  const bool good = list->is_array() && std::ranges::all_of(list->items(), [](const Json& one) { return one.is_string(); });
  if (!good) return fail(Code::kInvalid, "{} must be a list of strings", member);
  for (const Json& one : list->items()) out.push_back(one.as_string());
  return out;
}

}  // namespace

Result<NetworkWish> network_wish(const Json& body, const Json& rules) {
  using Kind = NetworkWish::Kind;
  for (const std::string_view member : {"rules", "maskRequestHost", "egressProxy"}) {
    const Json* wish = rules.find(member);
    if (wish != nullptr && !wish->is_null() && (!wish->is_object() || wish->size() > 0))
      return fail(Code::kUnsupported, "network.{} is not offered by sandboxes here", member);
  }
  if (rules.get_bool("allowPublicTraffic").value_or(false))
    return fail(Code::kUnsupported, "network.allowPublicTraffic: nobody reaches a sandbox's ports from outside");
  CAPSTAN_TRY(const auto deny, entries_of(rules, "denyOut"));
  for (const std::string& entry : deny) {
    if (!is_everything(entry))
      return fail(Code::kUnsupported, "network.denyOut: '{}'; it may only be 0.0.0.0/0: what allowOut does not list is refused",
                  entry);
  }
  CAPSTAN_TRY(auto allow, entries_of(rules, "allowOut"));
  if (std::ranges::any_of(allow, is_everything)) return NetworkWish{.kind = Kind::kAll};
  if (!allow.empty()) return NetworkWish{.kind = Kind::kListed, .hosts = std::move(allow)};
  if (!body.get_bool("allow_internet_access").value_or(deny.empty())) return NetworkWish{.kind = Kind::kNone};
  if (body.get_bool("allow_internet_access").value_or(false)) return NetworkWish{.kind = Kind::kAll};
  return NetworkWish{};
}

}  // namespace capstan::agents::e2b
