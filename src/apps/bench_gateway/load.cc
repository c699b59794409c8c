// How: one event loop with a chain of calls per connection; the next request of a chain starts when its last has ended.
#include "apps/bench_gateway/load.h"

#include <algorithm>
#include <chrono>
#include <memory>

#include "http/async_client.h"

namespace capstan::bench_gateway {
namespace {

constexpr std::string_view kBody =
    R"({"model":"bench","messages":[{"role":"system","content":"You are a helpful assistant that answers briefly."},)"
    R"({"role":"user","content":"Hello, who are you and what can you do for me today?"}],"max_tokens":64,"temperature":0.2})";

std::int64_t steady_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

http::Request head(const std::string& key) {
  return {.method = "POST",
          .target = "/v1/chat/completions",
          .headers = {{"content-type", "application/json"}, {"authorization", "Bearer " + key}}};
}

struct Shared {
  Shared(std::string u, const std::string& key) : url(std::move(u)), request(head(key)) {}
  std::string url;
  http::EventLoop loop;
  http::AsyncClient client{loop};
  http::Request request;
  int left = 0;     // requests to start
  int open = 0;     // chains under way
  RequestResult requests;
};

class Chain final : public http::CallSink {
 public:
  explicit Chain(Shared& shared) : shared_(shared) { next(); }
  void on_head(http::Response& head) override { status_ = head.status; }
  void on_piece(std::string_view piece) override { bytes_ += piece.size(); }
  void on_end(Result<void> result) override {
    shared_.requests.latencies_us.push_back(steady_us() - started_us_);
    if (result && status_ == 200 && bytes_ > 200) ++shared_.requests.good;
    next();
  }

 private:
  void next() {
    if (shared_.left == 0) {
      if (--shared_.open == 0) shared_.loop.stop();
      return;
    }
    --shared_.left;
    bytes_ = 0;
    started_us_ = steady_us();
    call_ = shared_.client.start(shared_.url, shared_.request, kBody, {}, *this);
  }
  Shared& shared_;
  std::unique_ptr<http::AsyncCall> call_;
  int status_ = 0;
  std::size_t bytes_ = 0;
  std::int64_t started_us_ = 0;
};

}  // namespace

RequestResult run_requests(const std::string& url, const std::string& key, const RequestLoad& load) {
  Shared shared(url, key);
  shared.left = load.requests;
  shared.open = load.connections;
  const std::int64_t start_us = steady_us();
  std::vector<std::unique_ptr<Chain>> chains;
  for (int i = 0; i < load.connections; ++i) chains.push_back(std::make_unique<Chain>(shared));
  shared.loop.run();
  chains.clear();
  shared.requests.seconds = static_cast<double>(steady_us() - start_us) / 1e6;
  std::ranges::sort(shared.requests.latencies_us);
  return std::move(shared.requests);
}

double percentile(const std::vector<std::int64_t>& sorted, double fraction) {
  if (sorted.empty()) return 0;
  return static_cast<double>(sorted[static_cast<std::size_t>(fraction * static_cast<double>(sorted.size() - 1))]);
}

}  // namespace capstan::bench_gateway
