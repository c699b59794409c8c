// POST /v1/responses over a replica's chat/completions: stateless or stored; or prepared, in the background.
//
// Threads: an exchange's; begin() reads the database where the request refers to what is stored. Private to
// openai/.
#pragma once

#include <optional>

#include "gateway/exchange.h"
#include "gateway/openai/responses_answer.h"
#include "gateway/openai/responses_state.h"

namespace capstan::gateway::openai {

class ResponsesExchange final : public Exchange {
 public:
  explicit ResponsesExchange(ResponsesState& state) : state_(state) {}
  // One whose answer has begun: begin() only asks.
  ResponsesExchange(ResponsesState& state, std::string owner, ResponsesState::Prepared prepared, ResponsesAnswer answer)
      : state_(state), owner_(std::move(owner)), prepared_(std::move(prepared)), answer_(std::move(answer)) {}
  std::expected<UpstreamCall, http::Response> begin(http::Request& request, const Caller& caller) override;
  http::Response error(const ApiError& error) const override;
  void on_answer(http::Response answer, const Usage* usage, Reply& reply) override;
  void on_stream_begin(Reply& reply) override;
  void on_event(const StreamEvent& event, Reply& reply) override;
  void on_stream_end(const Usage& usage, Reply& reply) override;
  void on_break(const ApiError& error, Reply& reply) override;

 private:
  void send(const ResponsesAnswer::Events& events, Reply& reply);
  void keep();

  ResponsesState& state_;
  std::string owner_;
  ResponsesState::Prepared prepared_;
  std::optional<ResponsesAnswer> answer_;
};

}  // namespace capstan::gateway::openai
