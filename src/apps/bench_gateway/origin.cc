#include "apps/bench_gateway/origin.h"

#include <fmt/format.h>
#include <prometheus/registry.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <set>

#include "base/log.h"
#include "gateway/gateway.h"
#include "http/server.h"

namespace capstan::bench_gateway {
namespace {

constexpr std::string_view kWhole =
    R"({"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"bench","choices":[{"index":0,"message":)"
    R"({"role":"assistant","content":"Hello there."},"finish_reason":"stop"}],)"
    R"("usage":{"prompt_tokens":20,"completion_tokens":4,"total_tokens":24}})";
constexpr std::string_view kUsage =
    R"({"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"bench","choices":[],)"
    R"("usage":{"prompt_tokens":20,"completion_tokens":4,"total_tokens":24}})";

std::int64_t steady_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// One streamed answer: a token per timer tick.
class TokenStream : public std::enable_shared_from_this<TokenStream> {
 public:
  TokenStream(http::EventLoop& loop, http::ResponseWriterPtr writer, int tokens)
      : writer_(std::move(writer)), tokens_(tokens), timer_(loop, [this] { tick(); }) {}
  void start() {
    self_ = shared_from_this();
    writer_->start(200, {{"content-type", "text/event-stream"}});
    timer_.arm(kTokenIntervalMs);
  }

 private:
  void tick() {
    if (sent_ == tokens_ || writer_->client_gone()) {
      writer_->write(fmt::format("data: {}\n\ndata: [DONE]\n\n", kUsage));
      writer_->finish();
      const auto keep = std::move(self_);
      return;
    }
    timer_.arm(kTokenIntervalMs);
    ++sent_;
    writer_->write(fmt::format(
        "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"bench\","
        "\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"us={}\"}},\"finish_reason\":null}}],\"usage\":null}}\n\n",
        steady_us()));
  }

  http::ResponseWriterPtr writer_;
  int tokens_;
  int sent_ = 0;
  http::EventLoop::Timer timer_;
  std::shared_ptr<TokenStream> self_;  // until its last token
};

class OneReplica final : public gateway::ReplicaDirectory {
 public:
  explicit OneReplica(int port) : list_{{"bench-1", "bench", fmt::format("http://127.0.0.1:{}", port), true}} {}
  std::vector<gateway::Replica> replicas() const override { return list_; }
  std::vector<std::pair<std::string, std::string>> waiting() const override { return {}; }

 private:
  std::vector<gateway::Replica> list_;
};

int serve(const http::Router& router) {
  auto server = http::Server::start({.threads = 2}, router);
  if (!server) return fmt::print(stderr, "{}\n", server.error().message), 1;
  fmt::print("{}\n", (*server)->port());
  std::fflush(stdout);
  char byte;
  while (::read(STDIN_FILENO, &byte, 1) > 0) {
  }
  return 0;
}

}  // namespace

int run_origin() {
  http::Router router;
  http::EventLoop* loop = nullptr;
  router.add_loop_hooks([&loop](http::EventLoop& on) { loop = &on; }, [] {});
  router.add_on_loop("POST", "/v1/chat/completions", [&loop](http::Request request, const http::ResponseWriterPtr& writer) {
    const auto at = request.body.find("\"stream\":true");
    if (at == std::string::npos)
      return writer->respond(http::Response::text(200, std::string(kWhole), "application/json"));
    const auto limit = request.body.find("\"max_tokens\":");
    const int tokens = limit == std::string::npos ? 50 : std::atoi(request.body.c_str() + limit + 13);
    std::make_shared<TokenStream>(*loop, writer, tokens)->start();
  });
  return serve(router);
}

int run_gateway(int origin_port) {
  log_configure("bench-gateway", LogLevel::kWarn);
  const OneReplica replica(origin_port);
  gateway::Gateway gateway(replica, std::make_shared<prometheus::Registry>(),
                           {.directory_ttl_ms = 25, .access_log = "/dev/null"});
  http::Router router;
  router.add_guard("/", [](const http::Request& request) { return http::refuse_foreign(request, {}); });
  gateway.mount(router);
  return serve(router);
}

}  // namespace capstan::bench_gateway
