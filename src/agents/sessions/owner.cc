#include "agents/sessions/owner.h"

#include "base/text.h"

namespace capstan::agents {

std::string header_of(const Owner& owner) {
  return fmt::format("{}/{}/{}{}", owner.organisation, owner.project, owner.key, owner.operates ? "/all" : "");
}

Owner owner_of(const http::Request& request) {
  const std::string* text = request.headers.find(kOwnerHeader);
  return text == nullptr ? Owner{} : owner_of(std::string_view(*text));
}

Owner owner_of(std::string_view header) {
  const auto parts = split(header, '/');
  if (parts.size() != 3 && (parts.size() != 4 || parts[3] != "all")) return {0, 0, 0};
  return {parse_int(parts[0]).value_or(0), parse_int(parts[1]).value_or(0), parse_int(parts[2]).value_or(0), parts.size() == 4};
}

}  // namespace capstan::agents
