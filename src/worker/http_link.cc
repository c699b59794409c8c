// How it works: http::Client::cancel() is for good, so an interrupted client is replaced by a new one. The
// address is kept while calls succeed, and read again from controller.json after any failure.
#include "worker/http_link.h"

#include <mutex>

#include "base/file.h"
#include "http/client.h"

namespace capstan::worker {
namespace {

class HttpLink : public ControllerLink {
 public:
  HttpLink(std::filesystem::path data_directory, std::string token)
      : data_directory_(std::move(data_directory)), token_(std::move(token)) {}

  Result<Json> sync(const Json& request) override {
    CAPSTAN_TRY(const std::string url, address());
    http::Request post;
    post.method = "POST";
    post.target = "/worker/v1/sync";
    post.headers = {{"authorization", "Bearer " + token_}, {"content-type", "application/json"}};
    post.body = request.dump();
    http::ClientOptions options;
    options.connect_timeout_ms = 2000;
    options.timeout_ms = kSyncTimeoutMs;
    CAPSTAN_TRY(const auto client, begin());
    auto answer = client->request(url, post, options);
    if (!answer) {
      ended();
      if (answer.error().code != Code::kCancelled) url_.clear();
      return std::unexpected(std::move(answer).error());
    }
    if (answer->status != 200) {
      url_.clear();
      return fail(Code::kUnavailable, "{} answers {} to the worker: {}", url, answer->status,
                  answer->body.substr(0, 300));
    }
    return Json::parse(answer->body);
  }

  void interrupt() override {
    const std::lock_guard lock(mutex_);
    interrupted_ = true;
    if (client_) client_->cancel();
  }

 private:
  // Of the thread that syncs.
  Result<std::string> address() {
    if (!url_.empty()) return url_;
    CAPSTAN_TRY(const std::string text, read_file(data_directory_ / "controller.json", 64 * 1024));
    CAPSTAN_TRY(const Json json, Json::parse(text));
    const auto host = json.get_string("host");
    const auto port = json.get_int("port");
    if (!host || !port) return fail(Code::kCorrupt, "controller.json names no host and port");
    // A controller that listens everywhere is reached on loopback; IPv6 needs brackets in a URL.
    std::string reachable = *host == "0.0.0.0" ? "127.0.0.1" : *host == "::" ? "::1" : *host;
    if (reachable.find(':') != reachable.npos) reachable = "[" + reachable + "]";
    url_ =
        fmt::format("{}://{}:{}", json.get_bool("tls").value_or(false) ? "https" : "http", reachable, *port);
    return url_;
  }

  Result<std::shared_ptr<http::Client>> begin() {
    const std::lock_guard lock(mutex_);
    if (interrupted_) {
      interrupted_ = false;
      client_.reset();
      return fail(Code::kCancelled, "interrupted");
    }
    if (!client_) client_ = std::make_shared<http::Client>();
    return client_;
  }

  void ended() {
    const std::lock_guard lock(mutex_);
    interrupted_ = false;
    client_.reset();
  }

  std::filesystem::path data_directory_;
  std::string token_;
  std::string url_;
  std::mutex mutex_;
  std::shared_ptr<http::Client> client_;  // shared by the call under way and interrupt()
  bool interrupted_ = false;
};

}  // namespace

std::unique_ptr<ControllerLink> make_http_link(std::filesystem::path data_directory, std::string token) {
  return std::make_unique<HttpLink>(std::move(data_directory), std::move(token));
}

HealthMonitor::Probe http_probe() {
  const auto client = std::make_shared<http::Client>();  // shared by the copies of the probe
  return [client](std::int64_t port, const std::string& path, std::int64_t timeout_ms) -> Result<int> {
    http::Request get;
    get.target = path;
    http::ClientOptions options;
    options.connect_timeout_ms = static_cast<int>(timeout_ms);
    options.timeout_ms = static_cast<int>(timeout_ms);
    options.body_bytes_max = 1 << 20;
    CAPSTAN_TRY(const auto answer, client->request(fmt::format("http://127.0.0.1:{}", port), get, options));
    return answer.status;
  };
}

}  // namespace capstan::worker
