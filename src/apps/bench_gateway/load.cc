// How: one event loop with a chain of calls per connection; the next request of a chain starts when its last has ended.
#include "apps/bench_gateway/load.h"

#include <algorithm>
#include <charconv>
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

http::Request head() {
  return {.method = "POST",
          .target = "/v1/chat/completions",
          .headers = {{"content-type", "application/json"}, {"authorization", "Bearer sk-bench"}}};
}

struct Shared {
  explicit Shared(std::string u) : url(std::move(u)) {}
  std::string url;
  http::EventLoop loop;
  http::AsyncClient client{loop};
  http::Request request = head();
  int left = 0;     // requests to start
  int open = 0;     // chains under way
  RequestResult requests;
  StreamResult streams;
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

class Listener final : public http::CallSink {
 public:
  Listener(Shared& shared, std::string_view body, int tokens) : shared_(shared), tokens_(tokens) {
    call_ = shared_.client.start(shared_.url, shared_.request, body, {}, *this);
  }
  void on_head(http::Response&) override {}
  void on_piece(std::string_view piece) override {
    const std::int64_t now_us = steady_us();
    static constexpr std::string_view kMark = "\"us=";
    for (std::size_t at = piece.find(kMark); at != std::string_view::npos; at = piece.find(kMark, at + 1)) {
      std::int64_t sent_us = 0;
      std::from_chars(piece.data() + at + kMark.size(), piece.data() + piece.size(), sent_us);
      shared_.streams.delays_us.push_back(now_us - sent_us);
      ++count_;
    }
    done_ = done_ || piece.contains("[DONE]");
  }
  void on_end(Result<void> result) override {
    shared_.streams.delivered += count_;
    if (result && done_ && count_ == tokens_) ++shared_.streams.complete;
    if (--shared_.open == 0) shared_.loop.stop();
  }

 private:
  Shared& shared_;
  int tokens_;
  int count_ = 0;
  bool done_ = false;
  std::unique_ptr<http::AsyncCall> call_;
};

}  // namespace

RequestResult run_requests(const std::string& url, const RequestLoad& load) {
  Shared shared(url);
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

StreamResult run_streams(const std::string& url, const StreamLoad& load) {
  Shared shared(url);
  shared.open = load.streams;
  const std::string body = fmt::format(
      R"({{"model":"bench","stream":true,"max_tokens":{},"messages":[{{"role":"user","content":"Tell me a story."}}]}})",
      load.tokens);
  std::vector<std::unique_ptr<Listener>> listeners;
  std::unique_ptr<http::EventLoop::Timer> timer;
  // Streams start spread over a token's interval and a little more, as in life.
  timer = std::make_unique<http::EventLoop::Timer>(shared.loop, [&] {
    for (int i = 0; i < 20 && std::cmp_less(listeners.size(), load.streams); ++i)
      listeners.push_back(std::make_unique<Listener>(shared, body, load.tokens));
    if (std::cmp_less(listeners.size(), load.streams)) timer->arm(7);
  });
  timer->arm(0);
  shared.loop.run();
  listeners.clear();
  std::ranges::sort(shared.streams.delays_us);
  return std::move(shared.streams);
}

double percentile(const std::vector<std::int64_t>& sorted, double fraction) {
  if (sorted.empty()) return 0;
  return static_cast<double>(sorted[static_cast<std::size_t>(fraction * static_cast<double>(sorted.size() - 1))]);
}

}  // namespace capstan::bench_gateway
