// The engine behind HTTP: OpenAI's chat and completions, models, health and metrics of one model.
//
//   CAPSTAN_TRY(auto server, EngineServer::start({.port = 9000, .served_name = "abacus"},
//                                                [](auto progress) { return load_served_model(...); }));
//   ...                    // /health answers 503 with the stage while the loader runs on its own thread,
//   then 200 server->drain(30'000); // new requests get 503, those under way end, then the model is let go
//
// Routes: POST /v1/chat/completions, POST /v1/completions, GET /v1/models, GET /v1/models/{id}, GET /health,
// GET /metrics. A request from a web page of another origin, or with a foreign Host, is refused.
// Threads: drain and the questions from any thread. Destruction drains at once (0 ms).
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "engine/server/served_model.h"

namespace capstan::engine {

struct EngineServerOptions {
  std::string host = "127.0.0.1";  // loopback only: the engine speaks plain HTTP to the gateway on its host
  int port = 0;                    // 0: any free one
  std::string served_name;
};

class EngineServer {
 public:
  // Told by the loader: what it is doing now ("reading the tokenizer").
  using Progress = std::function<void(std::string_view stage)>;
  using Loader = std::function<Result<ServedModel>(const Progress&)>;

  // Listens at once. Failure: kInvalid for a host that is not loopback, kConflict or kIo for the port.
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
