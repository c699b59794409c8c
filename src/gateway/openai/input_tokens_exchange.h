// POST /v1/responses/input_tokens: how many tokens a request of the Responses API would be. The replica is asked for one
// token, so the count is exact for every kind of server, costs the reading of the prompt, and is metered so.
//
// Threads: as an exchange's, with Blocking::kBegin.
#pragma once

#include "gateway/exchange.h"
#include "gateway/openai/responses_state.h"

namespace capstan::gateway::openai {

class InputTokensExchange final : public Exchange {
 public:
  explicit InputTokensExchange(ResponsesState& state) : state_(state) {}
  std::expected<UpstreamCall, http::Response> begin(http::Request& request, const Caller& caller) override;
  http::Response error(const ApiError& error) const override;
  void on_answer(http::Response answer, const Usage* usage, Reply& reply) override;
  void on_stream_begin(Reply& reply) override;
  void on_event(const StreamEvent&, Reply&) override {}
  void on_stream_end(const Usage&, Reply&) override {}
  void on_break(const ApiError&, Reply&) override {}

 private:
  ResponsesState& state_;
};

}  // namespace capstan::gateway::openai
