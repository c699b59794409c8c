// The client of an event loop: requests whose answers come as callbacks, over kept connections of HTTP/1.1 or, to servers
// that are known to speak it, many at once over one of HTTP/2.
//
//   AsyncClient client(loop);
//   call = client.start(url, {.method = "POST", .target = "/v1/chat/completions", .headers = …}, body, {}, sink);
//   call.reset();   // gives it up: no more callbacks, its connection (of HTTP/2: its stream) is closed
//
// Threads: of the loop.  Ownership: url, body and sink outlive the call. Callbacks never come from inside start(); after
// on_end none comes. A callback may destroy its call.  Failure: as in client.h (kUnavailable, kTimeout, kInvalid).
// A request on a kept connection that the server had closed meanwhile is tried once more on a fresh one.
// Bounds: kKeptMax idle connections, closed after kKeptMs; a paused call reads nothing (of HTTP/2: a window's bytes).
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "http/event_loop.h"
#include "http/message.h"

namespace capstan::http {

class CallSink {
 public:
  virtual void on_head(Response& head) = 0;
  virtual void on_piece(std::string_view piece) = 0;
  virtual void on_end(Result<void> result) = 0;

 protected:
  ~CallSink() = default;
};

class AsyncCall {
 public:
  virtual ~AsyncCall() = default;
  virtual void pause() = 0;
  virtual void resume() = 0;
};

struct CallOptions {
  int connect_timeout_ms = 5'000;
  int silence_timeout_ms = 60'000;  // without a byte either way
  bool http2 = false;  // the server is known to speak it without being asked; for http:// only
};

class AsyncClient {
 public:
  static constexpr std::size_t kKeptMax = 1'024;
  static constexpr int kKeptMs = 30'000;

  explicit AsyncClient(EventLoop& loop);
  ~AsyncClient();  // after all its calls
  std::unique_ptr<AsyncCall> start(const std::string& url, const Request& head, std::string_view body,
                                   const CallOptions& options, CallSink& sink);

  struct State;  // of async_client.cc

 private:
  std::shared_ptr<State> state_;  // shared with tasks on their way
};

}  // namespace capstan::http
