// The engine's metrics in Prometheus' text form, under vLLM's names where it has them, so that existing
// dashboards and autoscalers work. docs/engine-server.md lists them.
//
// Threads: safe from any thread.  Cost: a few atomic operations per observation.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "engine/batching/batch.h"

namespace capstan::engine {

class Metrics {
 public:
  explicit Metrics(const std::string& model_name);
  ~Metrics();

  void first_token(double seconds);  // since the request arrived
  void next_token(double seconds);   // since the token before
  void finished(std::string_view reason, double seconds, int prompt_tokens, int completion_tokens);
  void http_answer(std::string_view path, int status);
  void prompt_tokens(int count);
  void generated_token();

  // The text of /metrics; `stats` gives the gauges.
  std::string text(const BatchStats& stats);

 private:
  struct Series;
  std::unique_ptr<Series> series_;
};

}  // namespace capstan::engine
