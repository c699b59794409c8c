// The engine behind HTTP: OpenAI's chat and completions, models, health and metrics of one model.
//
//   CAPSTAN_TRY(auto server, EngineServer::start({.port = 9000, .served_name = "abacus"},
//                                                [](auto progress) { return load_served_model(...); }));
//   ...                    // /health answers 503 with the stage while the loader runs on its own thread,
//   then 200 server->drain(30'000); // new requests get 503, those under way end, then the model is let go
//
// Routes: POST /v1/chat/completions, POST /v1/completions, GET /v1/models, GET /v1/models/{id}, GET /health,
// GET /metrics. Without an API key, a request from a web page of another origin, or with a foreign Host, is refused.
// Threads: drain and the questions from any thread. Destruction drains at once (0 ms).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "engine/server/served_model.h"

namespace capstan::engine {

struct EngineServerOptions {
  std::string host = "127.0.0.1";  // another than loopback needs a certificate and a key
  int port = 0;                    // 0: any free one
  std::string served_name;
  std::string tls_certificate = {};  // PEM files; both or none
  std::string tls_key = {};
  std::string api_key = {};  // asked for as a bearer token of every route but /health; empty: none
};

// Told by the loader: what it is doing now ("reading the tokenizer"), and how far it is where that is known.
struct LoadProgress {
  std::string_view stage = {};
  std::uint64_t done = 0;  // bytes
  std::uint64_t total = 0;
};

class EngineServer {
 public:
  using Progress = std::function<void(const LoadProgress&)>;
  using Loader = std::function<Result<ServedModel>(const Progress&)>;

  // Listens at once. Failure: kInvalid for another host than loopback without TLS and a key, kConflict or kIo for
  // the port.
  static Result<std::unique_ptr<EngineServer>> start(EngineServerOptions options, Loader loader);
  ~EngineServer();

  int port() const;
  // Waits until the model is ready; the loader's error if it failed (health then stays 503).
  Result<void> wait_ready();
  bool ready() const;
  std::optional<Error> load_error() const;
  // Refuses new work, waits up to `drain_ms` for what is under way, then ends everything.
  void drain(int drain_ms);

 private:
  struct State;
  explicit EngineServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace capstan::engine
