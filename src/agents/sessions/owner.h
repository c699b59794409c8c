// Who a session belongs to and who pays: the store's numbers, and the header in which the front passes them on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "http/message.h"

namespace capstan::agents {

struct Owner {
  std::int64_t organisation = 1, project = 1, key = 0;
  bool operates = false;  // has the control token: every sandbox that the scheduler placed is open to it, too
};

// "organisation/project/key", "…/all" of who operates; only the front's.
inline constexpr std::string_view kOwnerHeader = "x-capstan-owner";
std::string header_of(const Owner& owner);
Owner owner_of(const http::Request& request);  // without the header: default/default
Owner owner_of(std::string_view header);       // what is none: nobody

}  // namespace capstan::agents
