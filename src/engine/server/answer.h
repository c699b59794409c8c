// An HTTP answer fed by generations: what chat and completions share. Private to this folder.
//
// It submits n generations, gives their tokens one by one to the derived class, writes server-sent events or
// one JSON body, counts usage, and cancels what is left when the client goes away. Threads: tokens come on
// the engine's thread, the client's leaving on an I/O thread; one mutex guards all state. Ownership: shared
// by the callbacks of its generations; the model and the metrics must outlive those.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/server/metrics.h"
#include "engine/server/openai_request.h"
#include "engine/server/served_model.h"
#include "http/server.h"

namespace capstan::engine {

class Answer : public std::enable_shared_from_this<Answer> {
 public:
  struct Context {
    ServedModel& model;
    Metrics& metrics;
    http::ResponseWriterPtr writer;
    std::string path;  // of the request, for metrics
    std::string tenant = {};  // set by the gateway: whose share of the engine it uses
    int priority = 0;         // higher ones go first
    std::chrono::steady_clock::time_point arrived = std::chrono::steady_clock::now();
  };
  virtual ~Answer() = default;

  // Submits; what the engine refuses is answered at once. `tokens_max` 0: until the context is full.
  // `constraints`: none, or one a choice. Each prompt gets an equal share of the choices, in order.
  void start(const std::vector<std::vector<TokenId>>& prompts, int tokens_max, int top_logprobs,
             bool logprobs, std::vector<std::shared_ptr<TokenConstraint>> constraints = {});

 protected:
  Answer(Context context, const SamplingRequest& request, std::string id_prefix, int choices);

  // One token of one choice; true if the choice is complete (a stop sequence). Called under the mutex.
  virtual bool token(int choice, const TokenEvent& event) = 0;
  // Of the prompt's tokens but the first, before the choice's own, if they are wanted. Called under the mutex.
  virtual bool scores_prompt() const { return false; }
  virtual void prompt_token(int, const TokenEvent&) {}
  // The choice's end: `length` if the limit was hit. Called once per choice, under the mutex.
  virtual void end(int choice, bool length) = 0;
  // The whole body of an answer that is not streamed, without usage.
  virtual Json whole() = 0;
  virtual int reasoning_tokens() const { return 0; }
  virtual void begin_stream() {}

  bool streaming() const { return request_.stream; }
  // {"id", "object", "created", "model", "system_fingerprint"}
  Json head(std::string_view object) const;
  // Sends a chunk; with include_usage it gets "usage": null.
  void send(Json chunk);
  // For the metrics: one choice has ended.
  void observe_end(int choice, std::string_view reason, int tokens);

  Context context_;
  TokenSource& source_;  // of context_.model; a drain takes it out of the model before it ends
  SamplingRequest request_;

 private:
  struct Choice {
    RequestId id = 0;
    bool submitted = false;
    bool ended = false;
  };
  void on_token(int choice, const TokenEvent& event);
  void on_prompt_token(int choice, const TokenEvent& event);
  void observe(const TokenEvent& event, int choice);
  void choice_over(int choice, bool length);
  void complete();
  void abandon();  // the client is gone
  void refuse(const ApiError& error);
  void cancel_rest();
  Json usage() const;

  std::string id_;
  std::int64_t created_s_;
  std::uint64_t seed_;
  std::mutex mutex_;
  std::vector<Choice> choices_;
  std::vector<std::chrono::steady_clock::time_point> began_, first_token_, last_token_;  // of each choice
  int longest_ = 0;  // tokens of the longest choice so far
  int open_choices_;
  std::vector<int> prompt_tokens_;  // of each choice's prompt
  int prompt_tokens_sum_ = 0;       // of all prompts
  std::size_t choices_a_prompt_ = 1;
  int completion_tokens_ = 0;
  std::vector<int> cached_tokens_;  // of each choice's prompt
  bool started_ = false;  // the stream's head is written
  bool over_ = false;     // answered, refused or abandoned: later events are ignored
};

// Does the prompt and what may follow (`wanted`, 0: anything) fit into the model's context?
std::optional<ApiError> context_error(const ServedModel& model, const std::vector<TokenId>& prompt,
                                      long wanted);

// The tokens that an answer to this prompt may have; `wanted` as above.
std::uint32_t tokens_left(const ServedModel& model, const std::vector<TokenId>& prompt, long wanted);

// The answer to a refused request.
http::Response error_response(const ApiError& error);

}  // namespace capstan::engine
