// The wire API of E2B's SDKs over sessions: its control plane (REST), and what its SDKs ask of a sandbox (processes and
// files over Connect, uploads and downloads, code).
//
//   e2b::add_routes(router, manager);
//
// The owner of a control-plane request stands in headers that only the front writes (owner.h). A sandbox's requests
// carry its id (E2b-Sandbox-Id) and its token (X-Access-Token or E2B-Traffic-Access-Token); a signed /files URL carries
// neither, but a hash of the token. What is served, and what is not: docs/sessions.md.
//
// Threads: handlers run on the server's threads and may block there.
#pragma once

#include <functional>

#include "agents/sessions/session_manager.h"
#include "http/server.h"

namespace capstan::agents::e2b {

// What our answers claim to be: the SDKs decide by it what they may use. Later versions promise file metadata.
inline constexpr std::string_view kEnvdVersion = "0.5.11";
inline constexpr std::string_view kUser = "user";

// `manager` outlives the router.
void add_routes(http::Router& router, SessionManager& manager);

// The parts, each in its file.
void add_control_routes(http::Router& router, SessionManager& manager);
void add_process_routes(http::Router& router, SessionManager& manager);
void add_filesystem_routes(http::Router& router, SessionManager& manager);
void add_watch_routes(http::Router& router, SessionManager& manager);
void add_file_routes(http::Router& router, SessionManager& manager);
void add_code_routes(http::Router& router, SessionManager& manager);

// What a body says about the network: its allow_internet_access, and allowOut and denyOut of `rules` (the body itself, or its
// "network"). What cannot be kept is refused by name.
Result<NetworkWish> network_wish(const Json& body, const Json& rules);

// The session that a request of the data plane is for, awake.
Result<SessionPtr> session_of(const http::Request& request, const SessionManager& manager);

// A Connect call: finds the session, reads the message; an error becomes the call's refusal.
using UnaryCall = std::function<Result<Json>(Session& session, const Json& message)>;
void add_unary(http::Router& router, SessionManager& manager, std::string_view path, UnaryCall call);
using StreamCall = std::function<Result<void>(const SessionPtr& session, const Json& message,
                                              const http::Request& request, const http::ResponseWriterPtr& writer)>;
void add_stream(http::Router& router, SessionManager& manager, std::string_view path, StreamCall call);

}  // namespace capstan::agents::e2b
