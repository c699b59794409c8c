// The one HTTP client: blocking, HTTP/1.1, keeps connections to a server for the next request.
//
//   Client client;
//   CAPSTAN_TRY(Response answer, client.request("http://127.0.0.1:8080", {.target = "/healthz"}, {}));
//   client.stream(url, request, {}, [](const Response& head) { return true; },
//                 [](std::string_view piece) { return show(piece); });
//
// Threads: safe from several threads; each request has a connection of its own meanwhile.  Failure:
// kUnavailable (cannot connect, connection broke), kTimeout, kCancelled (a callback returned false, or
// cancel()), kInvalid (not HTTP). A request on a kept connection that the server had closed meanwhile is
// tried once more on a fresh one.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "http/message.h"

namespace capstan::http {

// Ends one request from another thread: its connection is shut down, and it fails with kCancelled.
class Cancellation {
 public:
  Cancellation();
  ~Cancellation();
  void cancel();

 private:
  friend class Client;
  struct State;
  std::unique_ptr<State> state_;
};

struct ClientOptions {
  int connect_timeout_ms = 5'000;
  int timeout_ms = 60'000;                   // without a byte either way
  std::uint64_t body_bytes_max = 64u << 20;  // of a whole answer; a stream has no limit
  Cancellation* cancellation = nullptr;      // not owned; outlives the request
};

class Client {
 public:
  Client();
  ~Client();

  // `url` is scheme, host and port ("http://127.0.0.1:8080"); https checks the certificate against the
  // system's roots.
  Result<Response> request(std::string_view url, const Request& request, const ClientOptions& options);

  // `on_head` gets status and headers and may refuse to go on; `on_piece` gets the body as it comes.
  Result<void> stream(std::string_view url, const Request& request, const ClientOptions& options,
                      const std::function<bool(const Response& head)>& on_head,
                      const std::function<bool(std::string_view piece)>& on_piece);

  // Ends all requests under way with kCancelled, and all later ones. For shutting down from another thread.
  void cancel();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Reads server-sent events from pieces of a stream: calls `on_event` with each event's data (lines joined by
// '\n').
class SseParser {
 public:
  explicit SseParser(std::function<void(std::string_view event, std::string_view data)> on_event)
      : on_event_(std::move(on_event)) {}
  void feed(std::string_view piece);

 private:
  std::function<void(std::string_view, std::string_view)> on_event_;
  std::string pending_;
  std::string event_;
  std::string data_;
};

}  // namespace capstan::http
