// The worker: one process per host that starts ranks for the controller, watches them, and serves their logs.
//
// It dials the controller (the address is in D/controller.json, the token in D/worker.token) and survives it:
// without a controller, ranks run on and ends are kept until they can be told. It is started by `capstan up`,
// as root if that was root, in its own session. Signals: SIGTERM stops all ranks gracefully, then the worker
// leaves. SIGUSR1: it leaves at once, its ranks run on (another build takes over). SIGINT, SIGHUP and SIGPIPE
// are ignored.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace capstan::worker {

struct WorkerOptions {
  std::filesystem::path data_directory;
  std::filesystem::path bin;    // folder of capstan-shim and the other programs; empty: this program's own
  std::filesystem::path share;  // models/ and examples/; empty: none
  std::vector<std::string> session_host = {};  // arguments with which this program is the session host; empty: no sandboxes
};

// The process's exit code: 0 after an orderly end, 6 if a worker of this build already runs, 1 otherwise.
int run_worker(const WorkerOptions& options);

}  // namespace capstan::worker
