// The gateway: one OpenAI-compatible front for every model that Capstan serves.
//
//   Gateway gateway(directory, registry);
//   gateway.mount(router);   // /v1/… and the alias /openai/v1/…
//
// GET models, models/{id}; POST chat/completions and completions, relayed to a replica (our engine or any
// OpenAI-compatible server) that src/routing chooses by load in tokens. Streams are relayed piece by piece; a
// client that leaves ends the replica's work; a replica that cannot be reached is left alone for a while;
// another is tried before the first byte, also when one answers that it is full, loading or leaving (429,
// 502, 503). A stream that breaks off ends with an event with an error. Every answer carries x-request-id;
// every error has OpenAI's shape. Threads: handlers run on the server's pool; one thread a request under way.
// Failure: 404 unknown model (with the nearest), 503 nothing ready or too many requests (with why,
// retry-after and x-should-retry), 502 a replica broke off its answer.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "http/client.h"
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
};

// What the gateway needs of the world; the controller's state stands behind it.
class ReplicaDirectory {
 public:
  virtual ~ReplicaDirectory() = default;
  // All replicas of all served models, ready or not. Called once per request, from any thread.
  virtual std::vector<Replica> replicas() const = 0;
  // Models that are asked for but have no replica yet, with why ("waits for 2 cpus"); may be empty.
  virtual std::vector<std::pair<std::string, std::string>> waiting() const = 0;
};

struct GatewayLimits {
  int requests_max =
      64;  // under way at once; below the server's threads, so that inference never starves the control API
};

class Gateway {
 public:
  // `directory` outlives the gateway.
  Gateway(const ReplicaDirectory& directory, std::shared_ptr<prometheus::Registry> registry,
          const GatewayLimits& limits = {});
  ~Gateway();
  void mount(http::Router& router);
  void cancel();  // ends all requests under way, for shutting down

 private:
  struct State;
  std::shared_ptr<State> state_;  // shared with the handlers
};

}  // namespace capstan::gateway
