// CountTokens: the prompt's tokens, as the replica itself counts them: it is asked for one token of an
// answer. So the count is exact for every kind of server, and costs (and is metered as) the reading of the
// prompt. Private to bedrock/. Threads: as an exchange's.
#pragma once

#include "gateway/bedrock/model_exchange.h"

namespace capstan::gateway::bedrock {

class CountTokensExchange final : public ModelExchange {
 public:
  explicit CountTokensExchange(const Catalogue& catalogue) : ModelExchange(catalogue) {}
  std::expected<UpstreamCall, http::Response> begin(http::Request& request, const Caller& caller) override;
  void on_answer(http::Response answer, const Usage* usage, Reply& reply) override;
  void on_stream_begin(Reply& reply) override;
  void on_event(const StreamEvent&, Reply&) override {}
  void on_stream_end(const Usage&, Reply&) override {}
  void on_break(const ApiError&, Reply&) override {}
};

}  // namespace capstan::gateway::bedrock
