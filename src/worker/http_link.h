// The worker's two uses of HTTP as a client: the sync with the controller, and health probes.
#pragma once

#include <memory>
#include <string>

#include "worker/controller_link.h"
#include "worker/data_directory.h"
#include "worker/health_monitor.h"

namespace capstan::worker {

inline constexpr std::int64_t kSyncTimeoutMs = 20'000;  // the controller holds a turn for 5 s at most

// Reads D/controller.json for the address again after each failure. `token`: D/worker.token.
std::unique_ptr<ControllerLink> make_http_link(std::filesystem::path data_directory, std::string token);

HealthMonitor::Probe http_probe();

}  // namespace capstan::worker
