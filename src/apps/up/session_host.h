// The session host: sandbox sessions of this host and their APIs, in a process that may make sandboxes.
//
// Started and kept by the worker (worker/sandboxes/), as its user (root, where sandboxes shall work); it outlives worker and
// controller as ranks do, so that sessions do. It listens on loopback only, for the gateway's front (agents/front/front.h) and
// for the worker, and says where: sessions.json in the data directory, for the controller's user, and worker/session-host.json,
// which it holds locked as long as it lives (docs/formats/session-host.md). It leaves on SIGTERM, when its data directory is
// removed, when no session is left while no worker lives for kAloneMs, and when none is left and a worker of another build asks;
// its sessions end with it.
#pragma once

#include <filesystem>

namespace capstan::apps {

inline constexpr const char* kSessionsAddress = "sessions.json";
inline constexpr int kAloneMs = 30'000;

// The process's exit code: 0 after an orderly end, or if there is one already.
int run_session_host(const std::filesystem::path& data);

}  // namespace capstan::apps
