#include "cli/session_api.h"

#include <cstdlib>

#include "base/file.h"
#include "base/json.h"
#include "base/text.h"

namespace capstan::cli {
namespace {

constexpr int kSilenceMs = 24 * 3600 * 1000;  // a command may say nothing for long
constexpr std::size_t kRefusalBytesMax = 1u << 20;

Error error_of(int status, const std::string& body) {
  const Code code = status == 401 || status == 403   ? Code::kDenied
                    : status == 404 || status == 502 ? Code::kNotFound
                    : status == 409                  ? Code::kConflict
                    : status == 429 || status == 507 ? Code::kExhausted
                    : status == 501                  ? Code::kUnsupported
                    : status >= 500                  ? Code::kUnavailable
                                                     : Code::kInvalid;
  const auto json = Json::parse(body);
  return {code, json ? json->get_string("message").value_or(body) : fmt::format("the server answered {}", status), {}};
}

}  // namespace

Result<SessionApi> SessionApi::connect(const ConnectionOptions& options) {
  CAPSTAN_TRY(const ApiClient found, ApiClient::connect(options));
  SessionApi api;
  api.url_ = found.base_url();
  const char* token = std::getenv("CAPSTAN_TOKEN");
  if (token != nullptr) {
    api.token_ = token;
  } else if (const auto file = read_file(data_directory_of(options) / "control.token", 1024)) {
    api.token_ = trim(*file);
  }
  return api;
}

Result<http::Response> SessionApi::send(http::Request request) {
  if (!token_.empty()) request.headers.set("authorization", "Bearer " + token_);
  CAPSTAN_TRY(http::Response answer, client_->request(url_, request, {}));
  if (answer.status >= 300) return std::unexpected(error_of(answer.status, answer.body));
  return answer;
}

Result<void> SessionApi::stream(http::Request request, const std::function<bool(std::string_view piece)>& on_piece) {
  if (!token_.empty()) request.headers.set("authorization", "Bearer " + token_);
  int status = 0;
  std::string refusal;
  const auto on_head = [&](const http::Response& head) { return (status = head.status) != 0; };
  const auto result = client_->stream(url_, request, {.timeout_ms = kSilenceMs}, on_head, [&](std::string_view piece) {
    if (status < 300) return on_piece(piece);
    refusal += piece;
    return refusal.size() < kRefusalBytesMax;
  });
  if (status >= 300) return std::unexpected(error_of(status, refusal));
  if (!result && result.error().code != Code::kCancelled) return std::unexpected(result.error());
  return {};
}

}  // namespace capstan::cli
