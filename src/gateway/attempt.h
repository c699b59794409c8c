// One replica's try at one request: its call, and what it counts for on the replica while it is under way. Private to gateway/.
//
// Threads: of the event loop.  Ownership: the sink outlives it. A sink's function may destroy the attempt that calls it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "gateway/replica_table.h"
#include "http/async_client.h"

namespace capstan::gateway {

class Attempt;

class AttemptSink {
 public:
  virtual void on_head(Attempt& attempt, http::Response& head) = 0;
  virtual void on_piece(Attempt& attempt, std::string_view piece) = 0;
  virtual void on_end(Attempt& attempt, Result<void> result) = 0;

 protected:
  ~AttemptSink() = default;
};

class Attempt final : public http::CallSink {
 public:
  // What the replica's state is told at the end.
  enum class Outcome { kGood, kSoftFailure, kHardFailure, kNothing };

  // `prompt_tokens` are those that are not cached there; they count until the first byte of the answer.
  Attempt(AttemptSink& sink, std::size_t replica, ReplicaStatePtr state, std::int64_t prompt_tokens, std::int64_t answer_tokens,
          std::int64_t now_ms)
      : sink_(sink), replica_(replica), state_(std::move(state)), prompt_tokens_(prompt_tokens), answer_tokens_(answer_tokens) {
    state_->tokens += prompt_tokens_ + answer_tokens_;
    state_->circuit.sent(now_ms);
  }
  Attempt(const Attempt&) = delete;
  Attempt& operator=(const Attempt&) = delete;
  ~Attempt() {
    state_->tokens -= prompt_tokens_ + answer_tokens_;
    if (!told_) state_->circuit.gave_up();
  }

  void start(http::AsyncClient& client, const std::string& url, const http::Request& head, std::string_view body,
             const http::CallOptions& options) {
    call_ = client.start(url, head, body, options, *this);
  }
  std::size_t replica() const { return replica_; }
  http::AsyncCall* call() { return call_.get(); }
  void prompt_is_done() { state_->tokens -= std::exchange(prompt_tokens_, 0); }
  void tell(Outcome outcome, std::int64_t now_ms) {
    told_ = outcome != Outcome::kNothing;
    if (outcome == Outcome::kGood) state_->circuit.succeeded();
    if (outcome == Outcome::kSoftFailure) state_->circuit.failed(now_ms, routing::Circuit::Failure::kSoft);
    if (outcome == Outcome::kHardFailure) state_->circuit.failed(now_ms, routing::Circuit::Failure::kHard);
  }

  bool head_seen = false;
  // While another attempt may still win: the head that its first byte will bring to bear.
  std::optional<http::Response> held_head;

 private:
  void on_head(http::Response& head) override { sink_.on_head(*this, head); }
  void on_piece(std::string_view piece) override { sink_.on_piece(*this, piece); }
  void on_end(Result<void> result) override { sink_.on_end(*this, std::move(result)); }

  AttemptSink& sink_;
  const std::size_t replica_;
  ReplicaStatePtr state_;
  std::int64_t prompt_tokens_;
  std::int64_t answer_tokens_;
  bool told_ = false;
  std::unique_ptr<http::AsyncCall> call_;
};

}  // namespace capstan::gateway
