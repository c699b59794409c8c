// Requests of any method and with headers of their own to the running Capstan, for sandboxes: what ApiClient does not need.
//
//   CAPSTAN_TRY(SessionApi api, SessionApi::connect(globals.connection));
//   CAPSTAN_TRY(auto answer, api.send({.method = "DELETE", .target = "/sandboxes/1f3a"}));
//
// The address is found as ApiClient finds it, and so is the token. Failure: as there; an error's message is the answer's.
// Threads: one owner.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "cli/api_client.h"
#include "http/client.h"

namespace capstan::cli {

class SessionApi {
 public:
  static Result<SessionApi> connect(const ConnectionOptions& options);
  Result<http::Response> send(http::Request request);
  // An answer that is read piece by piece; `on_piece` returns false to end.
  Result<void> stream(http::Request request, const std::function<bool(std::string_view piece)>& on_piece);

 private:
  std::string url_, token_;
  std::unique_ptr<http::Client> client_ = std::make_unique<http::Client>();
};

}  // namespace capstan::cli
