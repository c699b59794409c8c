// Asks a model over HTTP and puts its streamed answer together.
//
//   ModelClient client(spec.model, "http://127.0.0.1:8080", key);
//   CAPSTAN_TRY(ModelReply reply, client.ask(body, 60'000, show));
//
// Busy servers (429, 5xx, no connection) are asked again, as their retry-after says or after 0.5 s, 1 s, …,
// until the time is over.  Threads: each ask from any thread.  Failure: kTimeout (the time was over),
// kUnavailable, kDenied (401, 403), kNotFound (no such model), kInvalid (the server's own words), kCancelled.
// A conversation that is longer than the model's context is no failure: finish "context".
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <string_view>

#include "agents/loop/spec.h"
#include "agents/loop/step.h"
#include "http/client.h"

namespace capstan::agents::loop {

// Pieces as they come: reasoning or content.
using OnPiece = std::function<void(std::string_view piece, bool reasoning)>;

class ModelClient {
 public:
  ModelClient(Api api, std::string server, std::string key)
      : api_(api), server_(std::move(server)), key_(std::move(key)) {}
  // The calls of the reply have the server's ids.
  Result<ModelReply> ask(const Json& body, std::int64_t time_ms, const OnPiece& on_piece);
  // The name to use when a spec names none: abacus if the server has it, else its first.
  Result<std::string> choose_model();
  // Ends all asks under way, and later ones, with kCancelled.
  void cancel() {
    cancelled_ = true;
    client_.cancel();
  }

 private:
  Result<ModelReply> try_once(const Json& body, std::int64_t time_ms, const OnPiece& on_piece,
                              std::int64_t& retry_after_ms);
  http::Request request_to(std::string_view route, std::string body) const;

  Api api_;
  std::string server_;
  std::string key_;
  http::Client client_;
  std::atomic<bool> cancelled_ = false;
};

}  // namespace capstan::agents::loop
