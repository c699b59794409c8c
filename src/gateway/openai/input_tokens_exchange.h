// POST /v1/responses/input_tokens: how many tokens a request of the Responses API would be. The replica is asked for one
// token, so the count is exact for every kind of server, costs the reading of the prompt, and is metered so.
//
// Threads: as an exchange's, with Blocking::kBegin.
#pragma once

#include "gateway/openai/responses_state.h"
#include "gateway/openai/whole_exchange.h"

namespace capstan::gateway::openai {

class InputTokensExchange final : public WholeExchange {
 public:
  explicit InputTokensExchange(ResponsesState& state)
      : WholeExchange("the replica streamed an answer that was not to be streamed"), state_(state) {}
  std::expected<UpstreamCall, http::Response> begin(http::Request& request, const Caller& caller) override;
  void on_answer(http::Response answer, const Usage* usage, Reply& reply) override;

 private:
  ResponsesState& state_;
};

}  // namespace capstan::gateway::openai
