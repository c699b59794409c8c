// The way to this host's session host for a controller elsewhere: /session-host/… on the worker's port.
//
//   add_sandbox_routes(router, host, worker_token, incarnation);   // routes of the log server (log_server.h)
//
// What comes after the prefix goes on as it is, but the worker's token of x-capstan-host-token for the session host's own. That
// token is derived from the worker's and good for one incarnation only, so whoever listens by chance where a worker
// was learns nothing that opens another door; answers carry the incarnation, so that the asker knows who answered.
// Threads: of the server's event loop.  Failure: 403 (the token), 503 (no session host).
#pragma once

#include <string>

#include "http/server.h"
#include "worker/sandboxes/sandbox_host.h"

namespace capstan::worker {

inline constexpr std::string_view kSessionHostPrefix = "/session-host";
inline constexpr const char* kWorkerHeader = "x-capstan-worker";

std::string relay_token(const std::string& worker_token, const std::string& incarnation);
// `host` outlives the server.
void add_sandbox_routes(http::Router& router, const SessionHostProcess& host, const std::string& worker_token,
                        const std::string& incarnation);

}  // namespace capstan::worker
