// The one HTTP server: HTTP/1.1 and HTTP/2 on one port, plain or under TLS; answers whole or piece by piece.
//
//   Router router;
//   router.add("GET", "/workloads/{name}", [](const Request& request, const ResponseWriterPtr& writer) {
//     writer->respond(Response::json(200, describe(request.param("name"))));
//   });
//   CAPSTAN_TRY(auto server, Server::start({.host = "127.0.0.1", .port = 0}, router));
//
// Threads: one event loop's thread; handlers run on a pool (`threads`) and may block, or on the loop itself
// (add_on_loop) and must not; both may keep the writer and answer later from any thread. Open streams hold no
// thread.  Bounds: ServerLimits, each answered with its status (408, 413, 431, 503). Refused with 400: what two
// servers could read differently (lengths, codings, folded headers, bare line feeds, several Hosts). HTTP/2
// starts with its preface (h2c with prior knowledge) or by ALPN. A non-loopback host without TLS is refused by
// start().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "http/event_loop.h"
#include "http/message.h"

namespace capstan::http {

inline constexpr std::size_t kUnsentLowBytes = 64u << 10;  // where when_sent() calls back
inline constexpr std::uint64_t kUploadBytesMax = 513u << 20;  // of a form with a file of 512 MiB
inline constexpr std::size_t kBodyHeldBytes = 512u << 10;   // of a body that may be large; more goes to a file

class ResponseWriter {
 public:
  virtual ~ResponseWriter() = default;  // an unanswered request gets a 500
  // The whole answer, once.
  virtual void respond(Response response) = 0;
  // Or: head, pieces, end. `write` queues; false once the client is gone. Past
  // ServerLimits::write_queue_bytes_max it waits for the client on a handler's thread; on any other thread it
  // cuts that slow client off.
  virtual void start(int status, Headers headers) = 0;
  virtual bool write(std::string_view piece) = 0;
  virtual void finish() = 0;
  // The connection broke off before the end (then every write returns false).
  virtual bool client_gone() const = 0;
  // Called once, on the loop, when the client leaves before finish(); at once if it already has.
  virtual void on_client_gone(std::function<void()> callback) = 0;
  // Back-pressure for those who must not wait: what write() took and the socket has not, and a call, once, on the
  // loop, when it is below kUnsentLowBytes. Of the loop's thread.
  virtual std::size_t unsent_bytes() const { return 0; }
  virtual void when_sent(std::function<void()> callback) { callback(); }
};
using ResponseWriterPtr = std::shared_ptr<ResponseWriter>;  // shared by the handler and the connection
using Handler = std::function<void(const Request&, const ResponseWriterPtr&)>;
using LoopHandler = std::function<void(Request, const ResponseWriterPtr&)>;

// Routes by method and path; a segment "{name}" matches one segment and becomes a param, a last "{name...}"
// the rest.
class Router {
 public:
  void add(std::string method, std::string pattern, Handler handler);
  // The handler runs on the event loop and must not block.
  void add_on_loop(std::string method, std::string pattern, LoopHandler handler);
  // Bodies of these requests may have `bytes_max`; those over kBodyHeldBytes come as Request::body_file, so their handlers
  // use content(). A path that ends in '/' stands for all below it.
  void allow_large_bodies(std::string method, std::string path, std::uint64_t bytes_max);
  // What to do with the event loop of the server that serves these routes: before it runs, and, on its thread, after
  // its last connection is closed.
  void add_loop_hooks(std::function<void(EventLoop&)> start, std::function<void()> stop);
  // What answers when no pattern matches (404) or only another method does (405; `allow` holds the methods).
  // The default answers {"error":{"code","message"}}.
  using Refusal = std::function<Response(const Request&, int status, const std::string& allow)>;
  void set_refusal(std::string path_prefix, Refusal refusal);
  // Runs before the handler; a Response returned refuses the request.
  using Guard = std::function<std::optional<Response>(const Request&)>;
  void add_guard(std::string path_prefix, Guard guard);
  // Shares its routes.
  Router handler() const { return *this; }

  // Of the server: who serves `request`, whose params it fills in; a refusal, or one of the handlers.
  struct Target {
    std::optional<Response> refusal = std::nullopt;
    const Handler* handler = nullptr;
    const LoopHandler* loop_handler = nullptr;
  };
  Target route(Request& request) const;
  // 0: no larger than any other's.
  std::uint64_t large_body_max(std::string_view method, std::string_view target) const;
  void start_on(EventLoop& loop) const;
  void stop_on_loop() const;

 private:
  struct Route {
    std::string method;
    std::vector<std::string> segments;
    Handler handler;
    LoopHandler loop_handler;
  };
  struct Table;
  Target refuse(const Request& request, const std::string& allow) const;
  std::shared_ptr<Table> table_;  // shared by this router's copies, one of which every server has

 public:
  Router();
};

struct ServerLimits {
  std::uint64_t header_bytes_max = 64u << 10;
  std::uint64_t body_bytes_max = 32u << 20;
  std::uint64_t write_queue_bytes_max = 8u << 20;
  std::uint64_t buffered_bytes_max = 1u << 30;  // of all bodies together that are still arriving
  std::uint64_t body_files_bytes_max = 8ull << 30;  // of all large bodies together, on disk
  int connections_max = 10'000;
  int streams_max = 256;      // under way at once on one connection of HTTP/2
  int requests_max = 20'000;  // under way at once
  int request_timeout_ms = 30'000;  // for a request's header from its first byte, and for its body after that
  int idle_timeout_ms = 120'000;    // until the next request begins; also for one write
};

struct ServerOptions {
  std::string host = "127.0.0.1";
  int port = 0;  // 0: any free one
  int threads = 16;
  std::string tls_certificate = {};  // PEM files; both or none
  std::string tls_key = {};
  ServerLimits limits = {};
  std::string body_directory = "/var/tmp";  // of large bodies' files, which have no names there
};

class Server {
 public:
  static Result<std::unique_ptr<Server>> start(const ServerOptions& options, Router router);
  ~Server();  // stop(0)
  int port() const;
  // No new connections and requests (GOAWAY); waits up to `drain_ms` for answers under way, then closes everything.
  void stop(int drain_ms);

 private:
  struct State;
  explicit Server(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

bool is_loopback(std::string_view host);  // 127.0.0.0/8, ::1, localhost

// Refuses what a web page could send through a browser: a Host that is neither loopback nor in `hosts`, and
// (with `check_origin`) an Origin other than this server's own. 403 with a reason.
struct BrowserCheck {
  std::vector<std::string> hosts = {};
  bool check_origin = true;
};
std::optional<Response> refuse_foreign(const Request& request, const BrowserCheck& check);

// One server-sent event.
std::string sse_event(std::string_view data, std::string_view event = {}, std::string_view id = {});

}  // namespace capstan::http
