// The list of a caller's sandboxes, of all hosts that have some.
//
// Pages as one host's: the next page's token is the host's own, with "HOST/" before it for another host than this one.
// A host that cannot be asked is left out and named in kMissingHeader. Threads: any; blocks.
// Failure: this host's refusals pass through.
#pragma once

#include "agents/front/host_address.h"
#include "agents/front/places.h"
#include "http/message.h"

namespace capstan::agents {

// `places` may be null. `request`: of the client, its query read.
http::Response list_sandboxes(const HostAddress& own, Places* places, const http::Request& request, const std::string& owner);

}  // namespace capstan::agents
