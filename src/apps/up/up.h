// `capstan up`: everything of one machine. A small supervisor in the foreground keeps the worker alive (as
// root, if it was started as root); its one child, which drops root, is controller, control API and gateway
// on one port.
//
// Ctrl-C ends both and leaves worker and ranks running; `capstan down` ends everything. The supervisor's
// death takes the controller with it. Threads: the supervisor has one.
#pragma once

#include <filesystem>
#include <string>

#include "apps/up/data_directory.h"
#include "apps/up/shipped.h"

namespace capstan::apps {

struct UpOptions {
  std::string data_directory = {};
  std::string host = "127.0.0.1";
  int port = 8080;
  bool ephemeral = false;  // Ctrl-C stops the ranks too
  bool bare = false;       // no default model
  bool require_keys = false;  // inference needs a key on loopback, too
  std::string tls_certificate = {};
  std::string tls_key = {};
};

// Runs until told to stop; the exit code.
int up(const UpOptions& options);

// What the child needs: the controller process of one data directory.
struct ControllerOptions {
  const UpOptions& up;
  const DataDirectory& data;
  Shipped shipped;
};
// The controller, API and gateway until SIGINT or SIGTERM or a shutdown by API; the exit code.
// kExitDown tells the supervisor that everything was stopped and the worker shall leave too.
inline constexpr int kExitDown = 10;
int run_controller(const ControllerOptions& options);

}  // namespace capstan::apps
