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
  // One choice's first token: how long it waited, how long its prompt took, and how many tokens of it were
  // computed.
  void prefilled(double queue_seconds, double prefill_seconds, int computed_tokens);
  // One choice has ended.
  struct Finished {
    std::string_view reason;  // "stop", "length", "tool_calls", "abort"
    double seconds = 0;       // since the request arrived
    double decode_seconds = 0;     // from its first token to its last
    double inference_seconds = 0;  // from the queue's end to its last token
    int prompt_tokens = 0;
    int completion_tokens = 0;
  };
  void finished(const Finished& choice);
  // An accepted request's own limits; tokens_max 0: none.
  void accepted(int choices, int tokens_max);
  // A request is over: the tokens of its longest choice.
  void longest_choice(int tokens);
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
