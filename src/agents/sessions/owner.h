// Who a session belongs to and who pays: the store's numbers, and the header in which the front passes them on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "http/message.h"

namespace capstan::agents {

struct Owner {
  std::int64_t organisation = 1, project = 1, key = 0;
};

inline constexpr std::string_view kOwnerHeader = "x-capstan-owner";  // "organisation/project/key"; only the front's
std::string header_of(const Owner& owner);
Owner owner_of(const http::Request& request);  // without the header: default/default

}  // namespace capstan::agents
