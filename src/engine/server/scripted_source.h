// A TokenSource for tests: says a fixed text (marks spelled out) to every prompt, one token after another, on
// its own thread; honours tokens_max, stop tokens and cancel. Needs the byte-level tokenizer of
// harmony/tokenizer_testing.h.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <list>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "engine/server/token_source.h"
#include "harmony/tokenizer.h"

namespace capstan::engine {

class ScriptedSource : public TokenSource {
 public:
  ScriptedSource(const harmony::Tokenizer& tokenizer, std::string text, int token_ms = 0)
      : tokens_(tokenizer.encode_with_specials(text)), token_ms_(token_ms) {}
  ~ScriptedSource() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    for (std::thread& thread : threads_) thread.join();
  }

  Result<RequestId> submit(GenerationRequest request) override {
    const std::lock_guard lock(mutex_);
    if (full) return fail(Code::kExhausted, "the queue is full");
    const RequestId id = next_id_++;
    last_request = request;
    threads_.emplace_back([this, id, request = std::move(request)]() mutable { play(id, request); });
    return id;
  }
  void cancel(RequestId id) override {
    const std::lock_guard lock(mutex_);
    cancelled_.insert(id);
  }
  BatchStats stats() const override {
    return {.kv_bytes_max = 400, .kv_bytes_pinned = 100, .preemptions = 2, .prefix = {.query_tokens = 40, .hit_tokens = 30}};
  }
  int submitted() {
    const std::lock_guard lock(mutex_);
    return static_cast<int>(next_id_) - 1;
  }
  int cancelled() {
    const std::lock_guard lock(mutex_);
    return static_cast<int>(cancelled_.size());
  }

  bool full = false;
  std::vector<float> logprobs;  // of each request's tokens, in the order of submission; -0.5 for the others
  GenerationRequest last_request;  // read it when nothing is under way

 private:
  bool gone(RequestId id) {
    const std::lock_guard lock(mutex_);
    return stopping_ || cancelled_.contains(id);
  }
  float logprob_of(RequestId id) const { return id <= logprobs.size() ? logprobs[id - 1] : -0.5f; }
  void play(RequestId id, const GenerationRequest& request) {
    for (std::size_t i = 1; request.on_prompt_token && i < request.prompt.size(); ++i) {
      TokenEvent event{.id = id, .token = request.prompt[i], .index = static_cast<int>(i), .logprob = -0.25f};
      if (request.top_logprobs > 0) event.top.push_back({request.prompt[i], -0.25f});
      request.on_prompt_token(event);
    }
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      if (token_ms_ > 0) std::this_thread::sleep_for(std::chrono::milliseconds(token_ms_));
      TokenEvent event{.id = id, .token = tokens_[i], .index = static_cast<int>(i), .logprob = logprob_of(id)};
      for (int k = 0; k < request.top_logprobs; ++k)
        event.top.push_back({tokens_[i] + k, -0.5f - static_cast<float>(k)});
      const bool limit = request.tokens_max > 0 && static_cast<int>(i) + 1 >= request.tokens_max;
      const bool stop = std::ranges::find(request.stop_tokens, tokens_[i]) != request.stop_tokens.end();
      if (gone(id)) {
        event.token = -1;
        event.finish = FinishReason::kCancelled;
      } else if (stop) {
        event.finish = FinishReason::kStop;
      } else if (limit || i + 1 == tokens_.size()) {
        event.finish = FinishReason::kLength;
      }
      request.on_token(event);
      if (event.finish) return;
    }
  }

  std::vector<TokenId> tokens_;
  int token_ms_;
  std::mutex mutex_;
  RequestId next_id_ = 1;
  bool stopping_ = false;
  std::set<RequestId> cancelled_;
  std::list<std::thread> threads_;
};

}  // namespace capstan::engine
