#include "agents/sessions/owner.h"

#include "base/text.h"

namespace capstan::agents {

std::string header_of(const Owner& owner) {
  return fmt::format("{}/{}/{}", owner.organisation, owner.project, owner.key);
}

Owner owner_of(const http::Request& request) {
  const std::string text = request.headers.get(kOwnerHeader);
  const auto parts = split(text, '/');
  if (parts.size() != 3) return {};
  return {parse_int(parts[0]).value_or(1), parse_int(parts[1]).value_or(1), parse_int(parts[2]).value_or(0)};
}

}  // namespace capstan::agents
