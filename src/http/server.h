// The one HTTP server: HTTP/1.1 over TCP or TLS, answers whole or piece by piece.
//
//   Router router;
//   router.add("GET", "/workloads/{name}", [](const Request& request, const ResponseWriterPtr& writer) {
//     writer->respond(Response::json(200, describe(request.param("name"))));
//   });
//   CAPSTAN_TRY(auto server, Server::start({.host = "127.0.0.1", .port = 0}, router.handler()));
//
// Threads: one I/O thread; handlers run on a pool (`threads`) and may block; a handler may keep the writer
// and answer later from any thread. Open streams hold no thread.  Bounds: ServerLimits, each answered with
// its status (408, 413, 431, 503). Refused with 400: conflicting lengths, folded headers, several Hosts.
// HTTP/2's preface gets a 505. A non-loopback host without TLS is refused by start().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "http/message.h"

namespace capstan::http {

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
  // Called once, on an I/O thread, when the client leaves before finish(); at once if it already has.
  virtual void on_client_gone(std::function<void()> callback) = 0;
};
using ResponseWriterPtr = std::shared_ptr<ResponseWriter>;  // shared by the handler and the connection
using Handler = std::function<void(const Request&, const ResponseWriterPtr&)>;

// Routes by method and path; a segment "{name}" matches one segment and becomes a param, a last "{name...}"
// the rest.
class Router {
 public:
  void add(std::string method, std::string pattern, Handler handler);
  // What answers when no pattern matches (404) or only another method does (405; `allow` holds the methods).
  // The default answers {"error":{"code","message"}}.
  using Refusal = std::function<Response(const Request&, int status, const std::string& allow)>;
  void set_refusal(std::string path_prefix, Refusal refusal);
  // Runs before the handler; a Response returned refuses the request.
  using Guard = std::function<std::optional<Response>(const Request&)>;
  void add_guard(std::string path_prefix, Guard guard);
  Handler handler() const;  // shares the routes added so far

 private:
  struct Route {
    std::string method;
    std::vector<std::string> segments;
    Handler handler;
  };
  struct Table {
    std::vector<Route> routes;
    std::vector<std::pair<std::string, Refusal>> refusals;
    std::vector<std::pair<std::string, Guard>> guards;
  };
  static void dispatch(const Table& table, const Request& request, const ResponseWriterPtr& writer);
  std::shared_ptr<Table> table_ = std::make_shared<Table>();  // shared with the handlers given out
};

struct ServerLimits {
  std::uint64_t header_bytes_max = 64u << 10;
  std::uint64_t body_bytes_max = 32u << 20;
  std::uint64_t write_queue_bytes_max = 8u << 20;
  int connections_max = 10'000;
  int request_timeout_ms = 30'000;  // for a request's body, from the end of its header
  int idle_timeout_ms = 120'000;    // until the next request's header is complete; also for one write
};

struct ServerOptions {
  std::string host = "127.0.0.1";
  int port = 0;  // 0: any free one
  int threads = 16;
  std::string tls_certificate = {};  // PEM files; both or none
  std::string tls_key = {};
  ServerLimits limits = {};
};

class Server {
 public:
  static Result<std::unique_ptr<Server>> start(const ServerOptions& options, Handler handler);
  ~Server();  // stop(0)
  int port() const;
  // No new connections; waits up to `drain_ms` for answers under way, then closes everything.
  void stop(int drain_ms);

 private:
  struct State;
  explicit Server(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;  // shared with its connections
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
