// Converse and ConverseStream over a replica's chat/completions. Private to bedrock/; threads: as an
// exchange's.
#pragma once

#include <optional>

#include "gateway/bedrock/converse_answer.h"
#include "gateway/bedrock/model_exchange.h"

namespace capstan::gateway::bedrock {

class ConverseExchange final : public ModelExchange {
 public:
  ConverseExchange(const Catalogue& catalogue, bool stream) : ModelExchange(catalogue), stream_(stream) {}
  std::expected<UpstreamCall, http::Response> begin(http::Request& request, const Caller& caller) override;
  void on_answer(http::Response answer, const Usage* usage, Reply& reply) override;
  void on_stream_begin(Reply& reply) override;
  void on_event(const StreamEvent& event, Reply& reply) override;
  void on_stream_end(const Usage& usage, Reply& reply) override;
  void on_break(const ApiError& error, Reply& reply) override;

 private:
  void send(const std::vector<ConverseEvent>& events, Reply& reply);

  const bool stream_;
  bool failed_ = false;  // an exception was sent: nothing follows
  std::optional<ConverseAnswer> answer_;
};

}  // namespace capstan::gateway::bedrock
