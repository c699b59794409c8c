// The words for roles, tiers, scopes, windows and units, in SQL, JSON and on the command line.
#include <algorithm>
#include <array>

#include "store/tenants.h"

namespace capstan::store {
namespace {

constexpr std::array<std::string_view, 4> kRoles{"reader", "member", "admin", "owner"};
constexpr std::array<std::string_view, kTiers> kTierNames{"priority", "default", "flex", "batch"};
constexpr std::array<std::string_view, 4> kWindows{"concurrent", "minute", "day", "month"};
constexpr std::array<std::string_view, 5> kUnits{"requests", "tokens", "input_tokens", "output_tokens", "nano_dollars"};
constexpr std::array<std::string_view, 4> kSubjects{"everyone", "organisation", "project", "key"};
constexpr std::array<std::string_view, 4> kScopes{"inference", "models", "files", "admin"};

template <class Enum, std::size_t N>
std::optional<Enum> find(const std::array<std::string_view, N>& names, std::string_view name) {
  const auto at = std::ranges::find(names, name);
  if (at == names.end()) return std::nullopt;
  return static_cast<Enum>(at - names.begin());
}

}  // namespace

std::string_view name_of(Role role) { return kRoles[static_cast<std::size_t>(role)]; }
std::string_view name_of(Tier tier) { return kTierNames[static_cast<std::size_t>(tier)]; }
std::string_view name_of(Window window) { return kWindows[static_cast<std::size_t>(window)]; }
std::string_view name_of(Unit unit) { return kUnits[static_cast<std::size_t>(unit)]; }
std::string_view name_of(Subject subject) { return kSubjects[static_cast<std::size_t>(subject)]; }
std::optional<Role> role_of(std::string_view name) { return find<Role>(kRoles, name); }
std::optional<Tier> tier_of(std::string_view name) { return find<Tier>(kTierNames, name); }
std::optional<Window> window_of(std::string_view name) { return find<Window>(kWindows, name); }
std::optional<Unit> unit_of(std::string_view name) { return find<Unit>(kUnits, name); }

std::string names_of_scopes(std::uint8_t scopes) {
  std::string out;
  for (std::size_t i = 0; i < kScopes.size(); ++i) {
    if ((scopes >> i & 1) != 0) out.append(out.empty() ? "" : ",").append(kScopes[i]);
  }
  return out;
}

Result<std::uint8_t> scopes_of(const std::vector<std::string>& names) {
  std::uint8_t scopes = 0;
  for (const std::string& name : names) {
    const auto at = std::ranges::find(kScopes, name);
    if (at == kScopes.end())
      return fail(Code::kInvalid, "there is no scope '{}'; known are {}", name, fmt::join(kScopes, ", "));
    scopes |= static_cast<std::uint8_t>(1u << (at - kScopes.begin()));
  }
  if (scopes == 0) return fail(Code::kInvalid, "a key needs a scope: {}", fmt::join(kScopes, ", "));
  return scopes;
}

}  // namespace capstan::store
