// One request, passed on to the session host, and its answer passed back.
//
// Threads: of the event loop that `client` and `writer` belong to, except HostAddress.  A short answer is sent whole; a
// stream piece by piece: while the client lags, nothing more is read from the host. When the client leaves, so does the
// request to the host.
#pragma once

#include <filesystem>
#include <mutex>
#include <optional>
#include <string>

#include "http/async_client.h"
#include "http/server.h"

namespace capstan::agents {

// Where the session host listens: a file that it writes (mode 0600), read again when it has changed. Threads: any.
class HostAddress {
 public:
  struct Host {
    std::string url, token;
    std::string refusal = {};  // why it makes no sandboxes; empty: it does
  };
  explicit HostAddress(std::filesystem::path file) : file_(std::move(file)) {}
  // kUnavailable while it has not started.
  Result<Host> now() const;

 private:
  const std::filesystem::path file_;
  mutable std::mutex mutex_;
  mutable std::optional<Host> known_;
  mutable std::filesystem::file_time_type changed_{};
};

// `client` and `address` outlive the request.
void relay(http::AsyncClient& client, const HostAddress& address, http::Request request, const std::string& owner,
           const http::ResponseWriterPtr& writer);

}  // namespace capstan::agents
