// House: one Capstan under test: its scratch directory, its processes, and its API.
//
// Threads: request() from any; the rest from one.  Failure: Result; the caller decides what is a violation.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "http/client.h"

namespace capstan::crash {

class House {
 public:
  // Makes the scratch directory; nothing runs yet.
  House(std::filesystem::path bin, int port);
  // Ends whatever still runs of it (SIGKILL), and removes the directory if `remove_scratch` was called.
  ~House();

  const std::filesystem::path& scratch() const { return scratch_; }
  std::filesystem::path data() const { return scratch_ / "data"; }
  std::filesystem::path starts_file() const { return scratch_ / "starts"; }

  // `capstan up`, and waits until it is ready.
  Result<void> start_up();
  // Waits for `capstan up` to end after its controller was killed.
  void wait_up_ended();
  // `capstan COMMAND…`; the exit code.
  int run(const std::vector<std::string>& arguments) const;

  pid_t up_pid() const { return up_pid_; }
  pid_t controller_pid() const;
  pid_t worker_pid() const;
  struct RankPids {
    pid_t shim = 0;
    pid_t child = 0;
  };
  std::vector<RankPids> rank_pids() const;
  std::size_t rank_records() const;

  // One API call. kUnavailable and the like mean: outcome unknown.
  Result<http::Response> request(const std::string& method, const std::string& target,
                                 const std::string& body = {});

  // Whether a live process has the scratch directory in its command line, environment or open files.
  bool owns(pid_t pid) const;
  std::vector<pid_t> processes() const;
  void remove_scratch() { remove_ = true; }

 private:
  Result<pid_t> spawn(const std::vector<std::string>& arguments) const;

  std::filesystem::path bin_, scratch_;
  int port_;
  pid_t up_pid_ = -1;
  std::string token_;
  http::Client client_;
  bool remove_ = false;
};

}  // namespace capstan::crash
