// The gateway: one front for every model that Capstan serves, in every API that it speaks.
//
//   Gateway gateway(directory, registry);
//   gateway.add_exchange("POST", "/v1/responses", […] { return std::make_unique<ResponsesExchange>(…); });
//   gateway.set_admission(…);
//   gateway.mount(router);   // /v1/… also under /openai/v1/…
//
// It brings GET models, models/{id}; POST chat/completions and completions. Every request of an
// exchange goes the same way (docs/gateway-internals.md): id, authentication, admission, a replica that
// src/routing chooses by load in tokens, another one before the first byte, metering, one access line. Streams
// are relayed piece by piece; a client that leaves ends the replica's work; a replica that cannot be reached is
// left alone for a while. Threads: all of it runs on the event loop of the one server that serves the router; add and
// set before mount(), perform and cancel from any thread.
// Failure: 404 unknown model (with the nearest), 503 nothing ready or too many requests (with why, retry-after
// and x-should-retry), 502 a replica broke off its answer.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/exchange.h"
#include "gateway/service_watch.h"
#include "http/server.h"

namespace prometheus {
class Registry;
}

namespace capstan::gateway {

struct Replica {
  std::string id;
  std::string model;  // the name that clients ask for
  std::string url;    // "http://127.0.0.1:20001"
  bool ready = false;
  std::string service = {};   // several services may serve one model (a canary); their requests go by weight
  std::int64_t weight = 100;  // of the service
  std::int64_t hedge_after_ms = 0;  // another replica is asked, too, if the first says nothing for so long; 0: never
  bool http2 = false;         // it speaks HTTP/2 without being asked, as our engine does: requests share connections
  // Of a server that is not ours: what stands before its paths in place of "/v1" ("/openai/v1"), and that it is told nothing
  // of who asks.
  std::string base_path = {};
  bool external = false;
  std::string key = {};  // that server's; sent as a bearer, and never shown
};

// What the gateway needs of the world; the controller's state stands behind it.
class ReplicaDirectory {
 public:
  virtual ~ReplicaDirectory() = default;
  // All replicas of all served models, ready or not. Called on the event loop, and by endpoints.
  virtual std::vector<Replica> replicas() const = 0;
  // Changes whenever what the others say may have changed; they are asked again then. 0: not known, ask for every request.
  virtual std::uint64_t version() const { return 0; }
  // Models that are asked for but have no replica yet, with why ("waits for 2 cpus"); may be empty.
  virtual std::vector<std::pair<std::string, std::string>> waiting() const = 0;
  // The name of the model that an alias stands for in the request of that id; `model` itself if it is none. From any thread.
  virtual std::string resolve(const std::string& model, std::string_view request_id) const {
    return (void)request_id, model;
  }
  // Further names under which models are served.
  virtual std::vector<std::string> aliases() const { return {}; }
  // The service that starts a replica of the model when a request waits for one (scale from zero); "": none does.
  virtual std::string starter(const std::string& model) const { return (void)model, std::string(); }
};

struct GatewayOptions {
  int requests_max = 10'000;  // under way at once; more get 503
  // How long a request waits for the first replica of a service that starts one for it.
  int cold_start_timeout_ms = 120'000;
  // How long what the directory said counts even if its version changes meanwhile.
  int directory_ttl_ms = 0;
  // One JSON object a line and request; empty: they go to the log.
  std::string access_log = {};
  // To replicas that speak HTTP/2, too: a request that has one to itself is answered some 30 us sooner so.
  bool lone_over_http1 = true;
};

class Gateway {
 public:
  // `directory` outlives the gateway.
  Gateway(const ReplicaDirectory& directory, std::shared_ptr<prometheus::Registry> registry,
          const GatewayOptions& options = {});
  ~Gateway();

  // Whether an exchange's begin() may block (reads a database, say); it then runs on the server's pool.
  enum class Blocking { kNever, kBegin };
  // Takes the place of one that is there for the same.
  void add_exchange(std::string method, std::string pattern, ExchangeFactory factory,
                    Blocking blocking = Blocking::kNever);
  // Those requests of an exchange's route that need more than one call of a replica go to `endpoint` instead, as below.
  // The route is one with Blocking::kBegin.
  using Takes = std::function<bool(const http::Request&)>;
  // A route without a replica behind it (files, catalogues). The handler runs on the pool and may block; who
  // is not authenticated gets `shape` of the refusal.
  using Endpoint = std::function<void(const http::Request&, const CallerPtr&, const http::ResponseWriterPtr&)>;
  using ErrorShape = std::function<http::Response(const ApiError&)>;
  void add_endpoint(std::string method, std::string pattern, Endpoint endpoint, ErrorShape shape);
  // As of http::Router.
  void allow_large_bodies(std::string method, std::string path, std::uint64_t bytes_max);
  // How requests under a prefix are refused that no route takes (404 unknown_url, 405 method_not_allowed), or whose body
  // has a content coding (415). `/v1` has OpenAI's.
  void add_surface(std::string prefix, ErrorShape shape);
  void divert(const std::string& pattern, Takes takes, Endpoint endpoint, ErrorShape shape);
  void set_authenticator(std::unique_ptr<Authenticator> authenticator);
  void set_admission(std::unique_ptr<Admission> admission);

  void mount(http::Router& router);
  // A request that comes from inside (a line of a batch), to the exchange whose pattern is its target; the caller
  // is known already. The answer comes to `writer`, on the event loop. kUnavailable unless the server runs.
  Result<void> perform(http::Request request, const CallerPtr& caller, const http::ResponseWriterPtr& writer);
  // The same for an exchange of its own. Its begin() must not block.
  Result<void> perform(std::unique_ptr<Exchange> exchange, http::Request request, const CallerPtr& caller,
                       const http::ResponseWriterPtr& writer);
  // On the event loop, before all requests are ended with the server. Before mount().
  void at_stop(std::function<void()> task);
  // Of the server that serves the routes; null unless it runs.
  http::EventLoop* loop() const;
  // What autoscaling needs to know of each service.
  const ServiceWatch& watch() const;
  void cancel();  // ends all requests under way, for shutting down

 private:
  struct State;
  std::shared_ptr<State> state_;  // shared with the handlers
};

// With the request's own x-request-id, if it is plain, or a new one.
http::Response with_id(const http::Request& request, http::Response response);
// The headers by which a request's trace goes on, for the requests that it leads to.
http::Headers trace_of(const http::Request& request);

}  // namespace capstan::gateway
