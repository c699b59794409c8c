#include "apps/bench_gateway/origin.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <memory>

#include "apps/bench_gateway/streams.h"

namespace capstan::bench_gateway {
namespace {

constexpr std::string_view kWhole =
    R"({"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"bench","choices":[{"index":0,"message":)"
    R"({"role":"assistant","content":"Hello there."},"finish_reason":"stop"}],)"
    R"("usage":{"prompt_tokens":20,"completion_tokens":4,"total_tokens":24}})";
constexpr std::string_view kUsage =
    R"({"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"bench","choices":[],)"
    R"("usage":{"prompt_tokens":20,"completion_tokens":4,"total_tokens":24}})";

// Streamed answers, a token each every kTokenIntervalMs: a slot of streams falls due every millisecond, so that a thousand of
// them need one timer. Of the server's event loop.
class TokenWheel {
 public:
  explicit TokenWheel(http::EventLoop& loop) : timer_(loop, [this] { turn(); }) { timer_.arm(1); }
  void add(http::ResponseWriterPtr writer, int tokens) {
    writer->start(200, {{"content-type", "text/event-stream"}});
    slots_[(now_ + kTokenIntervalMs - 1) % kTokenIntervalMs].push_back({std::move(writer), tokens});
  }

 private:
  struct Stream {
    http::ResponseWriterPtr writer;
    int left = 0;
  };

  void turn() {
    timer_.arm(1);
    // A turn that came late makes up for those it missed.
    for (const std::int64_t now_us = stamp_us(); begun_us_ + now_ * 1'000 <= now_us; ++now_) {
      auto& slot = slots_[static_cast<std::size_t>(now_ % kTokenIntervalMs)];
      std::erase_if(slot, [](Stream& stream) { return !send(stream); });
    }
  }

  // False after its end.
  static bool send(Stream& stream) {
    if (stream.left-- == 0 || stream.writer->client_gone()) {
      stream.writer->write(fmt::format("data: {}\n\ndata: [DONE]\n\n", kUsage));
      stream.writer->finish();
      return false;
    }
    stream.writer->write(fmt::format(
        "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"bench\","
        "\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"us={}\"}},\"finish_reason\":null}}],\"usage\":null}}\n\n",
        stamp_us()));
    return true;
  }

  http::EventLoop::Timer timer_;
  const std::int64_t begun_us_ = stamp_us();
  std::int64_t now_ = 0;  // milliseconds since then that are served
  std::array<std::vector<Stream>, kTokenIntervalMs> slots_;
};

}  // namespace

int serve_until_end_of_input(const http::Router& router) {
  auto server = http::Server::start({.threads = 2}, router);
  if (!server) return fmt::print(stderr, "{}\n", server.error().message), 1;
  fmt::print("{}\n", (*server)->port());
  std::fflush(stdout);
  char byte;
  while (::read(STDIN_FILENO, &byte, 1) > 0) {
  }
  return 0;
}

int run_origin() {
  http::Router router;
  std::unique_ptr<TokenWheel> wheel;
  router.add_loop_hooks([&wheel](http::EventLoop& on) { wheel = std::make_unique<TokenWheel>(on); }, [&wheel] { wheel.reset(); });
  router.add_on_loop("POST", "/v1/chat/completions", [&wheel](http::Request request, const http::ResponseWriterPtr& writer) {
    const auto at = request.body.find("\"stream\":true");
    if (at == std::string::npos)
      return writer->respond(http::Response::text(200, std::string(kWhole), "application/json"));
    const auto limit = request.body.find("\"max_tokens\":");
    wheel->add(writer, limit == std::string::npos ? 50 : std::atoi(request.body.c_str() + limit + 13));
  });
  return serve_until_end_of_input(router);
}

}  // namespace capstan::bench_gateway
