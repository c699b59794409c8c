// Where this host's session host listens: a file that it writes (mode 0600), read again when it has changed.
//
// Threads: any.  Failure: kUnavailable while it has not started.
#pragma once

#include <filesystem>
#include <mutex>
#include <optional>
#include <string>

#include "base/result.h"

namespace capstan::agents {

class HostAddress {
 public:
  struct Host {
    std::string url, token;
    std::string refusal = {};  // why it makes no sandboxes; empty: it does
    std::string build = {};
  };
  explicit HostAddress(std::filesystem::path file) : file_(std::move(file)) {}
  Result<Host> now() const;

 private:
  const std::filesystem::path file_;
  mutable std::mutex mutex_;
  mutable std::optional<Host> known_;
  mutable std::filesystem::file_time_type changed_{};
};

}  // namespace capstan::agents
