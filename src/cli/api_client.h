// The CLI's connection to a running Capstan: finds it, carries the token, turns error answers into Errors.
//
//   CAPSTAN_TRY(ApiClient api, ApiClient::connect({.server = "", .data_directory = ""}));
//   CAPSTAN_TRY(Json list, api.get("/api/v1/workloads"));
//
// The address is --server, else $CAPSTAN_SERVER, else what controller.json in the data directory says; the
// token is $CAPSTAN_TOKEN, else control.token there. Failure: kUnavailable if nothing answers (the message
// says how to start it), kDenied for a wrong token, else the API's own error.  Threads: one owner.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace capstan::cli {

struct ConnectionOptions {
  std::string server = {};          // URL; empty: find it
  std::string data_directory = {};  // empty: the default one of this user
};

class ApiClient {
 public:
  static Result<ApiClient> connect(const ConnectionOptions& options);
  ApiClient(ApiClient&&) noexcept;
  ~ApiClient();

  Result<Json> get(std::string_view path);
  Result<Json> post(std::string_view path, std::string body,
                    std::string_view content_type = "application/json");
  // Raw bytes as they come; `on_piece` returns false to end. An error answer is returned as such.
  Result<void> stream(std::string_view path, const std::function<bool(std::string_view piece)>& on_piece);
  // A POST whose answer is read piece by piece.
  Result<void> stream_post(std::string_view path, std::string body,
                           const std::function<bool(std::string_view piece)>& on_piece);
  const std::string& base_url() const;

 private:
  struct State;
  explicit ApiClient(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// The data directory that `connect` looks into.
std::filesystem::path data_directory_of(const ConnectionOptions& options);

// Percent-encodes one path segment or query value.
std::string url_encode(std::string_view text);

}  // namespace capstan::cli
