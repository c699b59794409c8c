// The part of the control API that is about the fleet and its rules: fleet files, conditions of hosts,
// tenants, reservations, maintenance, the queue, policies, defragmentation. docs/api.md.
#pragma once

#include "api/backend.h"
#include "http/server.h"

namespace capstan::api {

// The backend must outlive the router.
void mount_scheduling(http::Router& router, Backend& backend);

}  // namespace capstan::api
