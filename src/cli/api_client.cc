#include "cli/api_client.h"

#include <cstdlib>
#include <filesystem>
#include <utility>

#include "base/file.h"
#include "base/paths.h"
#include "base/text.h"
#include "http/client.h"

namespace capstan::cli {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

// The user's own directory, or root's where the user may read it (after `sudo ./capstan up` it is the
// user's).
fs::path find_data_directory(const std::string& named) {
  if (!named.empty()) return named;
  const fs::path own = default_data_directory();
  std::error_code ignored;
  const fs::path system = "/var/lib/capstan";
  if (!fs::exists(own / "controller.json", ignored) && fs::exists(system / "controller.json", ignored))
    return system;
  return own;
}

Code code_of(int status) {
  switch (status) {
    case 401:
    case 403:
      return Code::kDenied;
    case 404:
      return Code::kNotFound;
    case 409:
      return Code::kConflict;
    case 429:
    case 503:
    case 507:
      return Code::kExhausted;
    default:
      return status >= 500 ? Code::kUnavailable : Code::kInvalid;
  }
}

// The API's error body; every diagnostic of a spec gets a line of its own.
Error error_of(int status, const std::string& body) {
  Error error{code_of(status), fmt::format("the server answered {}", status), {}};
  const auto json = Json::parse(body);
  const Json* inner = json ? json->find("error") : nullptr;
  if (inner == nullptr) return error;
  error.message = inner->get_string("message").value_or(error.message);
  const Json* diagnostics = inner->find("diagnostics");
  if (diagnostics == nullptr || !diagnostics->is_array() || diagnostics->size() < 2) return error;
  error.message = "the file has mistakes:";
  for (const Json& d : diagnostics->items()) {
    error.message +=
        fmt::format("\n  {}:{}:{}: {}", d.get_string("file").value_or(""), d.get_int("line").value_or(0),
                    d.get_int("column").value_or(0), d.get_string("message").value_or(""));
  }
  return error;
}

}  // namespace

struct ApiClient::State {
  std::string url;
  std::string token;
  http::Client client;

  http::Request make(std::string_view method, std::string_view path) const {
    http::Request request{.method = std::string(method), .target = std::string(path)};
    if (!token.empty()) request.headers.set("authorization", "Bearer " + token);
    return request;
  }

  Error explain(Error error) const {
    if (error.code == Code::kUnavailable || error.code == Code::kTimeout) {
      error.message =
          fmt::format("Capstan does not answer at {} ({}); start it with: capstan up", url, error.message);
    }
    return error;
  }

  Result<Json> exchange(const http::Request& request) {
    auto answer = client.request(url, request, {});
    if (!answer) return std::unexpected(explain(std::move(answer).error()));
    if (answer->status >= 300) return std::unexpected(error_of(answer->status, answer->body));
    if (answer->body.empty()) return Json::object();
    return Json::parse(answer->body);
  }

  Result<void> stream(const http::Request& request, const std::function<bool(std::string_view)>& on_piece) {
    constexpr int kSilenceMs = 24 * 3600 * 1000;
    int status = 0;
    std::string refusal;
    const auto on_head = [&](const http::Response& head) { return (status = head.status) != 0; };
    const auto result =
        client.stream(url, request, {.timeout_ms = kSilenceMs}, on_head, [&](std::string_view piece) {
          if (status < 300) return on_piece(piece);
          refusal += piece;
          return refusal.size() < (1u << 20);
        });
    if (status >= 300) return std::unexpected(error_of(status, refusal));
    if (!result && result.error().code != Code::kCancelled) return std::unexpected(explain(result.error()));
    return {};
  }
};

ApiClient::ApiClient(std::unique_ptr<State> state) : state_(std::move(state)) {}
ApiClient::ApiClient(ApiClient&&) noexcept = default;
ApiClient::~ApiClient() = default;

Result<ApiClient> ApiClient::connect(const ConnectionOptions& options) {
  auto state = std::make_unique<State>();
  const fs::path data = find_data_directory(options.data_directory);
  state->url = options.server;
  state->token = environment("CAPSTAN_TOKEN");
  if (state->token.empty()) {
    if (const auto token = read_file(data / "control.token", 1024)) {
      state->token = trim(*token);
    } else if (token.error().code == Code::kDenied) {
      return fail(Code::kDenied, "{} belongs to another user; ask its owner, or name yours with --data-dir",
                  data.string());
    }
  }
  if (!state->url.empty()) return ApiClient(std::move(state));
  const auto text = read_file(data / "controller.json", 64 << 10);
  if (!text) {
    if (text.error().code == Code::kDenied) return std::unexpected(text.error());
    return fail(Code::kUnavailable, "Capstan is not running on {}; start it with: capstan up", data.string());
  }
  CAPSTAN_TRY(const Json json, Json::parse(*text));
  const std::string scheme = json.get_bool("tls").value_or(false) ? "https" : "http";
  state->url = fmt::format("{}://{}:{}", scheme, json.get_string("host").value_or("127.0.0.1"),
                           json.get_int("port").value_or(8080));
  return ApiClient(std::move(state));
}

Result<Json> ApiClient::get(std::string_view path) { return state_->exchange(state_->make("GET", path)); }

Result<Json> ApiClient::post(std::string_view path, std::string body, std::string_view content_type) {
  http::Request request = state_->make("POST", path);
  request.headers.set("content-type", std::string(content_type));
  request.body = std::move(body);
  return state_->exchange(request);
}

Result<void> ApiClient::stream(std::string_view path,
                               const std::function<bool(std::string_view piece)>& on_piece) {
  return state_->stream(state_->make("GET", path), on_piece);
}

Result<void> ApiClient::stream_post(std::string_view path, std::string body,
                                    const std::function<bool(std::string_view piece)>& on_piece) {
  http::Request request = state_->make("POST", path);
  request.headers.set("content-type", "application/json");
  request.body = std::move(body);
  return state_->stream(request, on_piece);
}

std::filesystem::path data_directory_of(const ConnectionOptions& options) {
  return find_data_directory(options.data_directory);
}

const std::string& ApiClient::base_url() const { return state_->url; }

std::string url_encode(std::string_view text) { return http::percent_encode(text); }

}  // namespace capstan::cli
